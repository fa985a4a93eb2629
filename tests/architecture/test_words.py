"""Code below the command line speaks Python: only `edgeloop.cli` knows how an option is spelled."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from edgeloop.app.compare import CompareOptions
from edgeloop.app.measure import MeasureOptions
from edgeloop.app.request import PlanWords
from edgeloop.cli import app
from edgeloop.cli.words import OPTIONS, spell
from edgeloop.sentences import Argument, Sentence, names_argument, spelled_by, text_from_json, text_to_json

HOST = Path(__file__).parents[2] / "host" / "edgeloop"
OTHER_PROGRAMS = {
    "board/agent.py": "arguments of the agent's own command",
}
"""Files whose options belong to other programs, as single words of a command."""


def commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every command with its name in full; a group of them has `commands`."""
    for inner_name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{name} {inner_name}".strip())
    if not hasattr(command, "commands"):
        yield name, command


COMMANDS = dict(commands(typer.main.get_command(app)))
WORDS = {
    name: {word for parameter in command.params for word in (*parameter.opts, parameter.metavar)}
    for name, command in COMMANDS.items()
}
"""Options and metavars of each command."""
OUR_OPTIONS = {word for words in WORDS.values() for word in words if word is not None and word.startswith("--")}


def strings(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def test_no_string_below_the_command_line_has_an_option_of_ours() -> None:
    for path in sorted(HOST.rglob("*.py")):
        name = path.relative_to(HOST).as_posix()
        for line, text in strings(path) if not name.startswith("cli/") else ():
            ours = OUR_OPTIONS & set(re.findall(r"--[a-z][a-z-]*", text))
            is_word_of_other_program = name in OTHER_PROGRAMS and " " not in text
            assert not ours or is_word_of_other_program, f"{name}:{line}: {sorted(ours)} in {text!r}"


COMMAND = re.compile(rf"\bedgeloop ({'|'.join(sorted({name.split()[0] for name in COMMANDS}))})\b")


def test_a_message_below_the_command_line_names_a_command_by_command_line_alone() -> None:
    for path in sorted(HOST.rglob("*.py")):
        name = path.relative_to(HOST).as_posix()
        if name.startswith("cli/"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
                assert not COMMAND.search(node.value), f"{name}:{node.lineno}: {node.value!r}"


def calls_of(function: str) -> Iterator[tuple[str, ast.Call]]:
    for path in sorted(HOST.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function:
                yield f"{path.relative_to(HOST)}:{node.lineno}", node


def test_every_command_that_a_sentence_names_is_there_with_its_options() -> None:
    calls = list(calls_of("command_line"))
    assert calls
    for where, call in calls:
        first = call.args[0]
        assert isinstance(first, ast.Constant), where
        options = {f"--{keyword.arg.replace('_', '-')}" for keyword in call.keywords if keyword.arg}
        assert options <= WORDS[first.value], f"{where}: {first.value} has no {options - WORDS[first.value]}"


def test_every_argument_that_a_sentence_names_has_a_word_on_the_command_line() -> None:
    paths = {
        (where, call.args[0].value) for where, call in calls_of("Argument") if isinstance(call.args[0], ast.Constant)
    }
    assert len(paths) > 20
    assert {path for where, path in paths if path not in OPTIONS} <= {"test"}, "`test` is of Study.tell alone"


@pytest.mark.parametrize(("command", "options"), [("measure", MeasureOptions), ("compare", CompareOptions)])
def test_every_option_of_a_request_has_the_word_of_its_command(command: str, options: type) -> None:
    names = {field.name for field in dataclasses.fields(options)} - {"plan"}
    names |= {f"plan.{field.name}" for field in dataclasses.fields(PlanWords)}
    for name in names:
        assert OPTIONS[name] in WORDS[command], name


def test_every_word_of_the_table_is_an_option_or_a_metavar_of_some_command() -> None:
    words = {word for of_command in WORDS.values() for word in of_command}
    assert set(OPTIONS.values()) <= words


@pytest.mark.parametrize(
    ("argument", "python", "shell"),
    [
        (Argument("plan.profile"), "plan.profile", "--profile"),
        (Argument("engine_b", "exec"), "engine_b='exec'", "--engine-b exec"),
        (Argument("resume", value=True), "resume=True", "--resume"),
        (Argument("shapes", ["x=1,2", "y=3"]), "shapes=['x=1,2', 'y=3']", "--shape x=1,2 --shape y=3"),
        (Argument("model"), "model", "MODEL"),
    ],
)
def test_python_and_the_command_line_each_have_their_own_spelling(argument: Argument, python: str, shell: str) -> None:
    sentence = Sentence("say {} ({}), please", argument, 7)
    assert (str(sentence), spelled_by(spell, sentence)) == (f"say {python} (7), please", f"say {shell} (7), please")
    nested = Sentence("{}; {}", sentence, argument)
    assert spelled_by(spell, nested) == f"say {shell} (7), please; {shell}"
    assert names_argument(nested, argument.path)
    assert not names_argument(str(nested), argument.path)
    again = text_from_json(text_to_json(nested))
    assert again is not None
    assert spelled_by(spell, again) == spelled_by(spell, nested)


def test_a_sentence_has_as_many_places_as_values() -> None:
    with pytest.raises(ValueError, match="2 places for 1 values"):
        Sentence("{} and {}", 1)

"""Figures of the house, counted on its source: `make figures`, or `python tests/architecture/house_figures.py [ROOT]`.

What is counted is what makes a house hard to grow in: concepts that are known in many files, names that say nothing,
crossings without types, rules that read sentences, knots of imports. `--walk` also runs one `measure` and counts how
often its request changes rooms. The same script counts any earlier state of the repository, given its root.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import tempfile
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import FrameType

SOURCES = ("host", "device_agent")
ENGINES = frozenset({"litert", "tflite-runtime", "tvm", "exec"})
IRREGULAR = frozenset(
    [
        "begun",
        "bound",
        "broken",
        "brought",
        "built",
        "bought",
        "chosen",
        "done",
        "drawn",
        "fed",
        "felt",
        "found",
        "given",
        "gone",
        "grown",
        "heard",
        "held",
        "kept",
        "known",
        "laid",
        "led",
        "left",
        "lent",
        "lost",
        "made",
        "meant",
        "met",
        "paid",
        "put",
        "said",
        "seen",
        "sent",
        "shown",
        "sold",
        "sought",
        "spent",
        "spoken",
        "stood",
        "struck",
        "swept",
        "taken",
        "taught",
        "thrown",
        "told",
        "understood",
        "won",
        "worn",
        "wound",
        "written",
        "asked",
    ]
)
NOT_PARTICIPLES = frozenset(
    ["seed", "speed", "need", "feed", "embed", "bed", "shed", "weed", "breed", "exceed", "proceed", "indeed", "red"]
)
SENTENCES = frozenset(["text", "message", "next_step", "reason", "detail", "sentence", "note"])
READS_TEXT = frozenset(
    ["split", "rsplit", "partition", "rpartition", "startswith", "endswith", "removeprefix", "removesuffix", "find"]
)
COMPLEXITY_MAX = 20
"""By radon's count: one for each branch, loop, condition and operand of and/or."""


@dataclass(frozen=True)
class Source:
    """One Python file of the product."""

    path: Path
    module: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    @property
    def lines(self) -> int:
        return self.text.count("\n")

    @property
    def room(self) -> str:
        parts = self.module.split(".")
        return parts[1] if len(parts) > 1 and parts[0] == "edgeloop" else parts[0]


def sources(root: Path) -> list[Source]:
    """Every Python file under `host/` and `device_agent/` of a repository."""
    found = []
    for top in SOURCES:
        for path in sorted((root / top).rglob("*.py")):
            parts = path.relative_to(root / top).with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found.append(Source(path.relative_to(root), module, path.read_text(encoding="utf-8")))
    return found


def is_participle(name: str) -> bool:
    """True where a whole name is a participle: it says that something happened and not what is held."""
    word = name.strip("_")
    if not word.isalpha() or not word.islower() or word in NOT_PARTICIPLES:
        return False
    return word in IRREGULAR or (len(word) > 3 and word.endswith("ed"))


def bindings(tree: ast.Module) -> Iterator[str]:
    """Every name that is bound, once for each scope that binds it."""

    def names(scope: ast.AST) -> Iterator[str]:
        bound: set[str] = set()
        inner: list[ast.AST] = []
        todo = list(ast.iter_child_nodes(scope))
        while todo:
            node = todo.pop()
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                bound.add(node.name)
                inner.append(node)
                continue
            if isinstance(node, ast.Lambda):
                inner.append(node)
                continue
            if isinstance(node, ast.arg):
                bound.add(node.arg)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                bound.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                bound.add(node.attr)
            todo.extend(ast.iter_child_nodes(node))
        yield from bound
        for one in inner:
            yield from names(one)

    yield from names(tree)


def participles(files: list[Source]) -> Counter[str]:
    """By name, the files that bind it."""
    return Counter(name for file in files for name in set(bindings(file.tree)) if is_participle(name))


def class_names_twice(files: list[Source]) -> dict[str, list[str]]:
    where: dict[str, list[str]] = defaultdict(list)
    for file in files:
        for node in ast.walk(file.tree):
            if isinstance(node, ast.ClassDef):
                where[node.name].append(file.module)
    return {name: modules for name, modules in sorted(where.items()) if len(modules) > 1}


def docstrings(files: list[Source]) -> Iterator[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for file in files:
        for node in ast.walk(file.tree):
            if isinstance(node, kinds) and (text := ast.get_docstring(node)):
                yield text
            if isinstance(node, ast.ClassDef | ast.Module):
                yield from attribute_docstrings(node.body)


def attribute_docstrings(body: list[ast.stmt]) -> Iterator[str]:
    """Yield each string that stands below an assignment."""
    for statement, below in pairwise(body):
        value = below.value if isinstance(below, ast.Expr) else None
        is_below_a_name = isinstance(statement, ast.Assign | ast.AnnAssign)
        if is_below_a_name and isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield value.value


def opens_with_a_question_word(text: str) -> bool:
    return re.match(r"(What|Whether|How)\b", text) is not None


def files_with_engine_names(files: list[Source]) -> list[str]:
    """Files in which an engine's name stands as a string."""
    return [
        str(file.path)
        for file in files
        if any(isinstance(node, ast.Constant) and node.value in ENGINES for node in ast.walk(file.tree))
    ]


def files_with_word(files: list[Source], word: str) -> list[str]:
    """Files whose code, comments left out, has an identifier or a short string with the word in it."""

    def has(node: ast.AST) -> bool:
        texts = (getattr(node, name, None) for name in ("id", "attr", "arg", "name", "value"))
        return any(isinstance(text, str) and len(text) < 60 and word in text for text in texts)

    return [str(file.path) for file in files if any(map(has, ast.walk(file.tree)))]


def bare_any(files: list[Source]) -> int:
    """Annotations that are `Any` itself; as the element of an array or a mapping it is not counted."""

    def is_any(node: ast.AST | None) -> bool:
        if isinstance(node, ast.BinOp):
            return is_any(node.left) or is_any(node.right)
        return isinstance(node, ast.Name) and node.id == "Any"

    return sum(
        is_any(getattr(node, "annotation", None)) + is_any(getattr(node, "returns", None))
        for file in files
        for node in ast.walk(file.tree)
    )


def untyped_mappings(files: list[Source]) -> int:
    """`Mapping[str, Any]` and `dict[str, Any]`."""
    return sum(
        isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("Mapping", "dict", "MutableMapping")
        and ast.unparse(node.slice) in ("str, Any", "(str, Any)")
        for file in files
        for node in ast.walk(file.tree)
    )


def threaded_limits(files: list[Source]) -> list[str]:
    """Signatures that take both limits of a process one by one."""
    found = []
    for file in files:
        for node in ast.walk(file.tree):
            if isinstance(node, ast.FunctionDef):
                names = {arg.arg for arg in (*node.args.args, *node.args.kwonlyargs)}
                if {"deadline_s", "memory_max_bytes"} <= names:
                    found.append(f"{file.module}.{node.name}")
    return found


def files_that_replace(files: list[Source]) -> list[str]:
    """Files that write a file atomically by themselves: `partial.replace(final)` or `os.replace`."""

    def replaces(node: ast.AST) -> bool:
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr != "replace":
            return False
        return len(node.args) == 1 or (isinstance(node.func.value, ast.Name) and node.func.value.id == "os")

    return [
        file.module for file in files if file.module.startswith("edgeloop.") and any(map(replaces, ast.walk(file.tree)))
    ]


def files_that_digest(files: list[Source]) -> list[str]:
    """Files that hash a whole file by themselves."""
    pattern = re.compile(r"hashlib\.file_digest\(|hashlib\.sha256\([\w./()\[\]\" ]*read_bytes\(\)\)")
    return [file.module for file in files if file.module.startswith("edgeloop.") and pattern.search(file.text)]


def suffix_tests(files: list[Source]) -> list[str]:
    """Comparisons of a file's suffix, and `endswith(".xyz")`."""
    found = []
    for file in files:
        for node in ast.walk(file.tree):
            compared = isinstance(node, ast.Compare) and any(
                isinstance(part, ast.Attribute) and part.attr == "suffix" for part in (node.left, *node.comparators)
            )
            ends = (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "endswith"
                and any(isinstance(a, ast.Constant) and str(a.value).startswith(".") for a in node.args)
            )
            if compared or ends:
                found.append(f"{file.module}:{node.lineno}")
    return found


def sentences_read(files: list[Source]) -> list[str]:
    """Places where code takes a sentence apart, or looks for words in one."""

    def is_sentence(node: ast.AST) -> bool:
        return any(isinstance(n, ast.Attribute) and n.attr in SENTENCES for n in ast.walk(node))

    found = []
    for file in files:
        for node in ast.walk(file.tree):
            reads = (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and (
                    (node.func.attr in READS_TEXT and is_sentence(node.func.value))
                    or (
                        isinstance(node.func.value, ast.Name)
                        and node.func.value.id == "re"
                        and any(map(is_sentence, node.args))
                    )
                )
            )
            looks = (
                isinstance(node, ast.Compare)
                and any(isinstance(op, ast.In | ast.NotIn) for op in node.ops)
                and any(map(is_sentence, node.comparators))
                and isinstance(node.left, ast.Constant)
            )
            if reads or looks:
                found.append(f"{file.module}:{node.lineno}")
    return found


def broad_excepts(files: list[Source]) -> list[str]:
    def is_broad(node: ast.AST) -> bool:
        if not isinstance(node, ast.ExceptHandler):
            return False
        names = [n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)] if node.type is not None else []
        return node.type is None or bool({"Exception", "BaseException"} & set(names))

    return [
        f"{file.module}:{node.lineno}"
        for file in files
        for node in ast.walk(file.tree)
        if is_broad(node) and isinstance(node, ast.ExceptHandler)
    ]


def too_complex(files: list[Source]) -> list[str]:
    """Functions over COMPLEXITY_MAX, with their figure."""
    from radon.complexity import cc_visit

    found: set[str] = set()
    for file in files:
        for block in cc_visit(file.text):
            for one in (block, *getattr(block, "methods", ())):
                if one.complexity > COMPLEXITY_MAX and not hasattr(one, "methods"):
                    found.add(f"{file.module}.{one.name} {one.complexity}")
    return sorted(found)


def import_graph(files: list[Source]) -> dict[str, set[str]]:
    """Module -> modules that it imports, anywhere in it, for type checking too."""
    known = {file.module for file in files}
    graph: dict[str, set[str]] = {}
    for file in files:
        found: set[str] = set()
        for node in ast.walk(file.tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    found.add(inner if inner in known else node.module)
        graph[file.module] = (found & known) - {file.module}
    return graph


def knots(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Modules that import each other, over however many others."""
    reach: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        todo = list(graph[start])
        while todo:
            node = todo.pop()
            if node not in seen:
                seen.add(node)
                todo.extend(graph.get(node, ()))
        reach[start] = seen
    in_knot = sorted(module for module in graph if module in reach[module])
    groups: list[list[str]] = []
    for module in in_knot:
        for group in groups:
            if module in reach[group[0]] and group[0] in reach[module]:
                group.append(module)
                break
        else:
            groups.append([module])
    return groups


def widest_import(graph: Mapping[str, set[str]]) -> tuple[str, int]:
    """The module that imports the most others."""
    module = max(graph, key=lambda name: len(graph[name]))
    return module, len(graph[module])


def layers(root: Path) -> dict[str, int]:
    """Rooms by their height, from the contract in pyproject.toml; the lowest is 0."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    drawn = next(c["layers"] for c in contracts if c["type"] == "layers" and "edgeloop_agent" not in str(c))
    return {
        room.strip().removeprefix("edgeloop."): height
        for height, line in enumerate(reversed(drawn))
        for room in re.split(r"[|:]", line)
    }


def walk(root: Path) -> tuple[int, int]:
    """Run one `measure` against this machine; return how often a call goes to another room, and how often it climbs.

    Calls are counted by the functions at both ends, each pair once.
    """
    import importlib

    height = layers(root)
    crossings: set[tuple[str, str]] = set()
    climbs: set[tuple[str, str]] = set()

    def place(frame: FrameType | None) -> tuple[str, str] | None:
        while frame is not None:
            name = str(frame.f_globals.get("__name__", ""))
            if name.startswith("edgeloop."):
                return name.split(".")[1], f"{name}.{frame.f_code.co_qualname}"
            frame = frame.f_back
        return None

    def trace(frame: FrameType, event: str, _argument: object) -> None:
        name = str(frame.f_globals.get("__name__", ""))
        if event != "call" or not name.startswith("edgeloop.") or frame.f_code.co_name.startswith("<"):
            return
        caller, called = place(frame.f_back), place(frame)
        if caller is None or called is None or caller[0] == called[0]:
            return
        crossings.add((caller[1], called[1]))
        if height.get(called[0], 0) > height.get(caller[0], 0):
            climbs.add((caller[1], called[1]))

    package = importlib.import_module("edgeloop")
    model = root / "tests/data/tiny_int8.tflite"
    model = model if model.exists() else next((root / "tests/data").glob("*.tflite"))
    with tempfile.TemporaryDirectory():
        run: Callable[..., object] = package.measure
        words = package.PlanWords(profile="quick", sessions=2, runs_min=5, time_s_min=0.05)
        sys.setprofile(trace)
        try:
            run(model, "local", plan=words)
        finally:
            sys.setprofile(None)
    return len(crossings), len(climbs)


def figures(root: Path) -> list[tuple[str, str]]:
    """Every figure with its name, in the order of the report."""
    files = sources(root)
    total = sum(file.lines for file in files)
    texts = list(docstrings(files))
    questions = sum(map(opens_with_a_question_word, texts))
    rooms = Counter(file.room for file in files if file.module.startswith("edgeloop."))
    graph = import_graph(files)
    module, most = widest_import(graph)
    broad = broad_excepts(files)
    bare = participles(files)
    twice = class_names_twice(files)
    complex_ = too_complex(files)
    knotted = knots(graph)
    return [
        ("files, lines", f"{len(files)}, {total}"),
        ("rooms of the host, the largest", f"{len(rooms)}, {rooms.most_common(1)[0]}"),
        ("the module that imports the most others", f"{module} ({most})"),
        ("files with an engine's name in a string", str(len(files_with_engine_names(files)))),
        ("files that know energy", str(len(files_with_word(files, "energy")))),
        ("files that know missed_periods", str(len(files_with_word(files, "missed_periods")))),
        (
            "bound names that are bare participles",
            f"{bare.total()} ({', '.join(f'{n} {c}' for n, c in bare.most_common(6))})",
        ),
        ("class names used twice or more", f"{len(twice)} ({', '.join(twice)})"),
        ("files called child.py", str(sum(file.path.name == "child.py" for file in files))),
        (
            "docstrings that open with What, Whether or How",
            f"{questions} of {len(texts)} ({questions / len(texts):.0%})",
        ),
        ("annotations that are Any, mappings of str to Any", f"{bare_any(files)}, {untyped_mappings(files)}"),
        ("places that read a sentence", f"{len(sentences_read(files))} ({', '.join(sentences_read(files)[:8])})"),
        ("signatures with deadline_s and memory_max_bytes", str(len(threaded_limits(files)))),
        ("files that replace a file themselves", str(len(files_that_replace(files)))),
        ("files that digest a file themselves", str(len(files_that_digest(files)))),
        ("tests of a file's suffix", str(len(suffix_tests(files)))),
        ("broad excepts, for 1,000 lines", f"{len(broad)}, {1000 * len(broad) / total:.2f}"),
        (f"functions with a complexity over {COMPLEXITY_MAX}", f"{len(complex_)} ({', '.join(complex_)})"),
        ("knots of modules that import each other", f"{len(knotted)} ({'; '.join(' '.join(k) for k in knotted)})"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).parents[2])
    parser.add_argument("--walk", action="store_true", help="run one measure, and count how its request walks")
    parser.add_argument("--list", choices=sorted(_LISTS), help="print what one figure counts")
    options = parser.parse_args()
    if options.list:
        for line in _LISTS[options.list](sources(options.root)):
            print(line)
        return
    for name, figure in figures(options.root):
        print(f"{name}: {figure}")
    if options.walk:
        crossings, climbs = walk(options.root)
        print(f"crossings of one measure between rooms, of them upwards: {crossings}, {climbs}")


def _participles_listed(files: list[Source]) -> Iterator[str]:
    for file in files:
        bare = sorted(name for name in bindings(file.tree) if is_participle(name))
        if bare:
            yield f"{file.path}: {' '.join(bare)}"


_LISTS: dict[str, Callable[[list[Source]], object]] = {
    "participles": _participles_listed,
    "engines": files_with_engine_names,
    "energy": lambda files: files_with_word(files, "energy"),
    "sentences": sentences_read,
    "limits": threaded_limits,
    "replace": files_that_replace,
    "digest": files_that_digest,
    "suffix": suffix_tests,
    "broad": broad_excepts,
    "complex": too_complex,
}

if __name__ == "__main__":
    main()

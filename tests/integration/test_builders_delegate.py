"""A delegate's own compiler as the last step of a build: what it is given, what is kept, how it fails."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from dense_compiler import NAME
from dense_delegate import COMPILER

from edgeloop.builders.delegate import DelegateBuilder
from edgeloop.core.artifact import Artifact, Parity
from edgeloop.errors import BuildError
from edgeloop.host_runtime.tflite import read_tflite
from edgeloop.ports import TrainedNetwork
from edgeloop.processes.limits import ProcessLimits

MODEL = Path(__file__).parents[1] / "data/tiny_float.tflite"
TRAINED = TrainedNetwork(key="k", folder="/nowhere", seconds=1, epochs=1, validation={})
COMPILE = (sys.executable, str(COMPILER), "{model}")


class Given:
    """A builder that gives a ready .tflite, and counts."""

    def __init__(self) -> None:
        self.builds = 0
        self.made = "tiny"

    def key(self, trained: TrainedNetwork, lightening: str) -> str:
        return f"{self.made}/{trained.key}/{lightening}"

    def build(self, trained: TrainedNetwork, lightening: str) -> Artifact:
        self.builds += 1
        parity = Parity(n=9, rule="top-1 class", agreement=1.0, agreement_upper=1.0)
        return read_tflite(MODEL).model_copy(update={"parity": parity, "tools": {"litert-torch": "0"}})


def builder(root: Path, *command: str, given: Given | None = None, **changes: Any) -> DelegateBuilder:
    return DelegateBuilder(root, cast("Any", given or Given()), "dense", command, **changes)


@pytest.mark.parametrize("words", [COMPILE, (*COMPILE, "{output}")])
def test_what_the_compiler_writes_is_deployed_and_its_source_answers_on_this_host(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    given = Given()
    made = builder(tmp_path, *words, given=given)
    artifact = made.build(TRAINED, "fp32")
    content = Path(artifact.path).read_bytes()
    assert NAME in content
    assert artifact.deployed_bytes == len(content)
    assert artifact.sha256 != read_tflite(MODEL).sha256
    assert artifact.compiled_operators == 4
    assert artifact.parity is not None
    assert artifact.parity.rule == f"top-1 class; before {Path(sys.executable).name}"
    assert artifact.tools["dense_compiler.py"].startswith("sha256 ")
    x = np.random.default_rng(0).random((3, 4, 4, 1), dtype=np.float32)
    (outputs,) = made.predict(artifact, {"x" if len(artifact.inputs) != 1 else artifact.inputs[0].name: x}).values()
    assert outputs.shape == (3, 3)
    assert made.build(TRAINED, "fp32") == artifact
    assert given.builds == 1


def test_another_compiler_or_another_file_is_another_artifact(tmp_path: Path) -> None:
    script = tmp_path / "compiler.py"
    script.write_text(COMPILER.read_text())
    words = (sys.executable, str(script), "{model}")
    first = builder(tmp_path / "a", *words).key(TRAINED, "fp32")
    assert builder(tmp_path / "a", *words, "{output}").key(TRAINED, "fp32") != first
    given = Given()
    given.made = "other"
    assert builder(tmp_path / "a", *words, given=given).key(TRAINED, "fp32") != first
    script.write_text(COMPILER.read_text() + "# another version\n")
    assert builder(tmp_path / "a", *words).key(TRAINED, "fp32") != first


@pytest.mark.parametrize(
    ("script", "line"),
    [
        (
            "print('reading'); print('operator 3 is not supported'); raise SystemExit(4)",
            "ended with status 4: operator 3",
        ),
        ("import os; os.kill(os.getpid(), 11)", "was ended by signal 11"),
        ("pass", "was to write one .tflite, found none"),
        ("open('a.tflite', 'w'); open('b.tflite', 'w')", "was to write one .tflite, found a.tflite, b.tflite"),
        ("open('a.tflite', 'w').write('no model')", "was to write one .tflite, found a.tflite"),
        (
            "print('thinking', flush=True); import time; time.sleep(60)",
            "was not done after 5 s and was stopped: thinking",
        ),
    ],
)
def test_a_compiler_that_fails_is_one_line_with_its_last_words_and_its_log(
    tmp_path: Path, script: str, line: str
) -> None:
    late = "sleep" in script
    made = builder(tmp_path, sys.executable, "-c", script, "{model}", limits=ProcessLimits(5.0 if late else 60.0))
    with pytest.raises(BuildError) as caught:
        made.build(TRAINED, "fp32")
    begin = (
        f"with {sys.executable} for the delegate dense: the process"
        if late
        else f"for the delegate dense: {sys.executable}"
    )
    assert f"{begin} " in caught.value.message
    assert line in caught.value.message
    log, *more = (caught.value.next_step or "").removeprefix("its log is ").split(", and ")
    assert Path(log).is_file()
    assert more == (["toolchain.build_deadline_s gives it more"] if late else [])
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".building")] == []


def test_a_compiler_that_is_running_ends_with_the_run(tmp_path: Path) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    script = (
        f"o = open({str(told)!r}, 'w', 1); print('begun', file=o); import time; time.sleep(60); print('ended', file=o)"
    )
    made = builder(tmp_path, sys.executable, "-c", script, "{model}")
    with ThreadPoolExecutor(1) as beside:
        building = beside.submit(made.build, TRAINED, "fp32")
        with told.open() as said:
            assert said.readline() == "begun\n"
            made.close()
            assert said.read() == "", "it was ended, since it holds the pipe no more, and did not come to its end"
        with pytest.raises(BuildError, match="was ended by SIGKILL"):
            building.result()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone can")
def test_a_compiler_is_held_to_the_memory_of_the_campaign(tmp_path: Path) -> None:
    script = "held = bytearray(1 << 30)"
    made = builder(tmp_path, sys.executable, "-c", script, "{model}", limits=ProcessLimits(60.0, 512 << 20))
    with pytest.raises(BuildError, match="ended with status 1: MemoryError"):
        made.build(TRAINED, "fp32")


def test_a_compiler_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no-such-compiler can't be run: No such file or directory"):
        builder(tmp_path, "no-such-compiler", "{model}").build(TRAINED, "fp32")

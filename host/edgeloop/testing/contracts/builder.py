"""The rules of every Builder. Subclass BuilderContract, give it a `case` fixture, and run it with pytest.

class TestMyBuilder(BuilderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def case(cls):
        return BuilderCase(make=lambda folder: MyBuilder(folder), ...)

A builder that works in child processes subclasses ChildBuilderContract instead, and gives a `child_case` too.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgeloop.core.artifact import Artifact
from edgeloop.core.measurement import Arrays
from edgeloop.errors import BuildError, DataError
from edgeloop.ports import Builder, TrainedNetwork
from edgeloop.processes.limits import ProcessLimits

_SOON_S = 20.0
"""For what takes no time, on a busy machine."""


@dataclass(frozen=True, slots=True)
class BuilderCase:
    """A builder with a network for it."""

    make: Callable[[Path], Builder]
    """A new builder that keeps what it builds in a folder, which may have been used before."""
    network: TrainedNetwork
    lightening: str
    other: TrainedNetwork
    """Another network of the same lightening."""
    inputs: Arrays
    """A few samples for `network`."""
    has_file: bool = True
    """False for a simulated builder, whose artifacts have no file."""


@dataclass(frozen=True, slots=True)
class ChildBuilderCase:
    """The same builder with any Python code in the place of its toolchain."""

    make: Callable[[Path, str, ProcessLimits], Builder]
    network: TrainedNetwork
    lightening: str


class BuilderContract:
    """Rules of the Builder port."""

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("builder")

    @pytest.fixture(scope="class")
    @classmethod
    def artifact(cls, case: BuilderCase, folder: Path) -> Artifact:
        builder = case.make(folder)
        try:
            return builder.build(case.network, case.lightening)
        finally:
            builder.close()

    def test_a_key_is_the_same_in_every_builder_and_another_networks_is_another(
        self, case: BuilderCase, tmp_path: Path
    ) -> None:
        one, two = case.make(tmp_path / "one"), case.make(tmp_path / "two")
        assert one.key(case.network, case.lightening) == two.key(case.network, case.lightening)
        assert one.key(case.network, case.lightening) != one.key(case.other, case.lightening)

    def test_an_artifact_says_what_its_file_is(self, case: BuilderCase, artifact: Artifact) -> None:
        assert len(artifact.sha256) == 64
        assert artifact.deployed_bytes > 0
        if case.has_file:
            content = Path(artifact.path).read_bytes()
            assert Path(artifact.path).is_absolute()
            assert hashlib.sha256(content).hexdigest() == artifact.sha256
            assert len(content) == artifact.deployed_bytes

    def test_a_built_network_is_found_by_another_builder(
        self, case: BuilderCase, artifact: Artifact, folder: Path
    ) -> None:
        written_ns = Path(artifact.path).stat().st_mtime_ns if case.has_file else 0
        assert case.make(folder).build(case.network, case.lightening) == artifact
        if case.has_file:
            assert Path(artifact.path).stat().st_mtime_ns == written_ns

    def test_equal_keys_give_equal_files_and_a_damaged_one_is_built_anew(
        self, case: BuilderCase, artifact: Artifact, folder: Path, tmp_path: Path
    ) -> None:
        if case.has_file:
            Path(artifact.path).write_bytes(b"damaged")
        builder = case.make(folder if case.has_file else tmp_path)
        try:
            again = builder.build(case.network, case.lightening)
        finally:
            builder.close()
        assert again == artifact
        if case.has_file:
            assert hashlib.sha256(Path(again.path).read_bytes()).hexdigest() == artifact.sha256

    def test_outputs_come_by_name_one_for_each_sample(
        self, case: BuilderCase, artifact: Artifact, folder: Path
    ) -> None:
        builder = case.make(folder)
        assert builder.build(case.network, case.lightening) == artifact
        outputs = builder.predict(artifact, case.inputs)
        assert list(outputs) == [spec.name for spec in artifact.outputs]
        samples = len(next(iter(case.inputs.values())))
        for spec in artifact.outputs:
            assert outputs[spec.name].shape == (samples, *spec.shape[1:])
            assert outputs[spec.name].dtype.kind == "f"
            assert np.isfinite(outputs[spec.name]).all()

    def test_an_input_without_an_array_is_an_error_of_the_data(
        self, case: BuilderCase, artifact: Artifact, folder: Path
    ) -> None:
        builder = case.make(folder)
        assert builder.build(case.network, case.lightening) == artifact
        with pytest.raises(DataError):
            builder.predict(artifact, {"no such input": np.zeros((1, 1), np.float32)})

    def test_warming_up_changes_nothing_and_closing_twice_does_no_harm(
        self, case: BuilderCase, artifact: Artifact, folder: Path
    ) -> None:
        builder = case.make(folder)
        builder.warm_up()
        builder.warm_up()
        assert builder.build(case.network, case.lightening) == artifact
        builder.close()
        builder.close()
        builder.warm_up()


class ChildBuilderContract(BuilderContract):
    """Rules of a Builder that works in child processes."""

    @pytest.mark.parametrize(
        ("code", "what"),
        [
            ("print('no such operator'); raise SystemExit(3)", "no such operator"),
            ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV|signal 11"),
            ("import time; print('thinking', flush=True); time.sleep(60)", "was not done after .* s and was stopped"),
        ],
    )
    def test_a_toolchain_that_fails_is_a_build_error_and_leaves_no_folder(
        self, child_case: ChildBuilderCase, tmp_path: Path, code: str, what: str
    ) -> None:
        builder = child_case.make(tmp_path, code, ProcessLimits(deadline_s=3.0 if "sleep" in code else 60.0))
        with pytest.raises(BuildError, match=what) as failure:
            builder.build(child_case.network, child_case.lightening)
        assert failure.value.next_step, "where the toolchain's own words are"
        assert not list(tmp_path.rglob("*.tflite"))
        assert not list(tmp_path.rglob("*.so"))
        assert not list(tmp_path.rglob(".*"))

    def test_closing_ends_a_build_that_is_running(self, child_case: ChildBuilderCase, tmp_path: Path) -> None:
        started = tmp_path / "started"
        code = f"import pathlib, time; pathlib.Path({str(started)!r}).touch(); time.sleep(60)"
        builder = child_case.make(tmp_path / "store", code, ProcessLimits(deadline_s=60.0))
        with ThreadPoolExecutor(1) as thread:
            build = thread.submit(builder.build, child_case.network, child_case.lightening)
            _wait_for(started)
            builder.close()
            with pytest.raises(BuildError):
                build.result(timeout=_SOON_S)

    def test_a_closed_builder_builds_nothing_more(self, child_case: ChildBuilderCase, tmp_path: Path) -> None:
        started = tmp_path / "started"
        builder = child_case.make(
            tmp_path / "store", f"import pathlib; pathlib.Path({str(started)!r}).touch()", ProcessLimits(60.0)
        )
        builder.close()
        builder.warm_up()
        with pytest.raises(BuildError, match="was closed"):
            builder.build(child_case.network, child_case.lightening)
        assert not started.exists()


def _wait_for(path: Path) -> None:
    ends_s = time.monotonic() + _SOON_S
    while not path.exists() and time.monotonic() < ends_s:
        threading.Event().wait(0.02)
    assert path.exists(), "the child was not started"

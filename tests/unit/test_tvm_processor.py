"""Which processor this machine has, for keys: `native` is another one on another machine."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeloop.builders.store import ArtifactStore
from edgeloop.builders.tvm import builder as tvm_builder
from edgeloop.builders.tvm.builder import TvmBuilder, host_library
from edgeloop.builders.tvm.processor import processor_in
from edgeloop.builders.tvm.versions import TvmTarget, host_library_name, host_target
from edgeloop.core.artifact import Artifact
from edgeloop.errors import BuildError
from edgeloop.ports import TrainedNetwork
from edgeloop.processes.limits import ProcessLimits

CORE = "processor : {}\nmodel name : Xeon\nflags : {}\ncpu MHz : {}\n"
BIG, LITTLE = (
    "processor : 0\nCPU part : 0xd08\nFeatures : fp asimd\n",
    "processor : 1\nCPU part : 0xd03\nFeatures : fp\n",
)
TRAINED = TrainedNetwork(key="k", folder="/nowhere", seconds=1, epochs=1, validation={})


def test_a_processor_is_its_name_and_features_and_not_its_clock_nor_how_many_cores_there_are() -> None:
    one = processor_in(CORE.format(0, "sse2 avx2", 800), "x86_64")
    assert processor_in(CORE.format(0, "avx2 sse2", 3100) + CORE.format(1, "sse2 avx2", 900), "x86_64") == one
    assert processor_in(CORE.format(0, "sse2 avx2 avx512f", 800), "x86_64") != one
    assert processor_in(CORE.format(0, "sse2 avx2", 800), "i686") != one


def test_cores_of_two_kinds_are_another_processor_than_cores_of_one() -> None:
    assert processor_in(BIG + LITTLE, "aarch64") == processor_in(LITTLE + BIG, "aarch64")
    assert processor_in(BIG + LITTLE, "aarch64") != processor_in(BIG, "aarch64")


@pytest.mark.parametrize("target", [host_target(), TvmTarget(machine="aarch64", mcpu="cortex-a72")])
def test_what_is_built_on_another_machine_has_another_key(
    target: TvmTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tvm_builder, "tool_versions", dict)
    given: Any = SimpleNamespace(key=lambda _trained, _lightening: "imported")
    gate: Any = SimpleNamespace(rule="top-1")
    builder = TvmBuilder(tmp_path, gate, given, lambda: target)
    here = builder.key(TRAINED, "fp32")
    assert builder.key(TRAINED, "fp32") == here
    monkeypatch.setattr(tvm_builder, "this_processor", lambda: "another")
    assert builder.key(TRAINED, "fp32") != here


def test_a_build_that_goes_on_after_its_run_was_closed_starts_nothing_more(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, ("/nowhere",), ProcessLimits(1.0))
    store.close()
    store.warm_up()
    with pytest.raises(BuildError, match="building it: the run was closed"), store.new_folder() as folder:
        store.run("key", "it", TRAINED, TrainedNetwork, folder)


def test_of_equal_files_each_machine_keeps_the_library_that_runs_on_it(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, (), ProcessLimits(1.0))
    artifact = Artifact(
        path="model.so", sha256=hashlib.sha256(b"1").hexdigest(), deployed_bytes=1, inputs=(), outputs=()
    )
    for key, beside in (("there", "host-there.so"), ("here", host_library_name())):
        with store.new_folder() as folder:
            (folder / "model.so").write_bytes(b"1")
            (folder / beside).write_bytes(key.encode())
            kept = store.keep(key, folder, artifact)
    assert host_library(kept) == Path(kept.path).with_name(host_library_name())
    assert Path(kept.path).with_name("host-there.so").read_bytes() == b"there"

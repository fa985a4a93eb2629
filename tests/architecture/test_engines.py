"""An engine is one row: where its name may stand, what a row has to agree with, and a new one from its row alone."""

from __future__ import annotations

import ast
import dataclasses
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
from packaging.requirements import Requirement

from edgeloop.app.request import ModelOptions, RequestChecks
from edgeloop.board.wheels import Interpreter, engine_support, wheel_lock
from edgeloop.core.artifact import Artifact
from edgeloop.core.campaign import Campaign
from edgeloop.core.lightening import LADDER, Lightening
from edgeloop.core.limits import LimitSet
from edgeloop.core.network import NetworkSizes, Setting
from edgeloop.core.plan import Timing
from edgeloop.engines.capabilities import Capability
from edgeloop.engines.registry import ENGINES, EngineRow, Wheel, build_engines, engine_for, wheel_engines
from edgeloop.search.engine_rungs import builds, refusal
from edgeloop.wiring.builders import BuilderSet, BuilderSite
from edgeloop.wiring.host_engines import HOST_ENGINES, HostEngine, OpenModel, ReadyModel
from edgeloop_agent import engines as agent_engines

ROOT = Path(__file__).parents[2]
NAMED_IN = {
    "host/edgeloop/engines/registry.py": "the rows",
    "host/edgeloop/builders/tvm/builder.py": "a part of the keys of what was built before there were rows",
    "device_agent/edgeloop_agent/engines/__init__.py": "the agent's own table",
    "device_agent/edgeloop_agent/engines/litert.py": "its own module",
    "device_agent/edgeloop_agent/engines/tflite_runtime.py": "its own module",
    "device_agent/edgeloop_agent/engines/tvm.py": "its own module",
    "device_agent/edgeloop_agent/engines/program.py": "its own module",
}
"""Files in which an engine's name may stand, each with its reason. Another one reads the row."""


def test_an_engines_name_stands_in_its_row_and_in_its_own_modules_alone() -> None:
    for top in ("host", "device_agent"):
        for path in sorted((ROOT / top).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            names = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)} & set(ENGINES)
            place = path.relative_to(ROOT).as_posix()
            assert not names or place in NAMED_IN, f"{place} has {sorted(names)}"


def test_host_and_agent_know_the_same_engines() -> None:
    entries = {entry.name: entry for entry in agent_engines.ENGINES}
    assert set(entries) == set(ENGINES)
    for name, row in ENGINES.items():
        entry = entries[name]
        assert (entry.delegates, "tune" in entry.session_kinds, entry.unpacks) == (
            row.delegates,
            row.tunes,
            row.unpacks,
        )


@pytest.mark.parametrize("row", ENGINES.values(), ids=lambda row: row.name)
def test_a_row_agrees_with_what_edgeloop_does_with_it(row: EngineRow) -> None:
    host = HOST_ENGINES[row.name]
    assert (host.make_builder is not None) == row.builds
    assert (host.compile_model is not None) == bool(row.compiles)
    assert set(row.timings) <= set(get_args(Timing))
    assert set(row.rungs) <= {rung.base for rung in LADDER}
    for capability in row.rungs.values():
        assert capability.as_fast_as is None or capability.as_fast_as in row.rungs
    for wheel in row.wheels:
        locked = [item for item in wheel_lock().wheel if item.distribution == wheel.distribution]
        assert {(item.version, item.members) for item in locked} == {(wheel.version, wheel.members)}


@pytest.mark.parametrize("row", [row for row in ENGINES.values() if row.builds], ids=lambda row: row.name)
def test_the_extra_of_an_engine_installs_what_building_for_it_needs(row: EngineRow) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = {Requirement(text).name for text in extras[str(row.extra)]}
    assert set(row.packages) <= installed


# a new engine: a row, and an entry for the host

TOY = EngineRow(
    name="toy",
    title="Toy",
    model_noun="a toy",
    runs=".toy",
    claims=(".toy",),
    wheels=(Wheel("toy-runtime", "1.0"),),
    rungs={"fp32": Capability(size_real=True, latency_real=True, accuracy_real=True, note="a toy", runs_linear=False)},
    extra="toy",
)
PLAIN: dict[str, Any] = {"schema": 1, "name": "c", "targets": ["pi"], "limits": LimitSet()}
SIZES = NetworkSizes(parameters=1, macs=1, layers=(), activations=(4,), peak_activation_elements=4)


def open_toy(file: ReadyModel) -> OpenModel:
    return OpenModel(Artifact(path=str(file.path), sha256="0" * 64, deployed_bytes=1, inputs=(), outputs=()))


@dataclasses.dataclass
class ToyBuilder:
    """As much of a builder as is asked here."""

    site: BuilderSite

    def close(self) -> None: ...


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> EngineRow:
    monkeypatch.setitem(ENGINES, TOY.name, TOY)
    host = HostEngine(open_toy, ToyBuilder)  # type: ignore[arg-type]  # not the whole of a builder
    monkeypatch.setitem(HOST_ENGINES, TOY.name, host)
    return TOY


def test_a_campaign_may_name_a_new_engine_and_its_schema_lists_it(toy: EngineRow) -> None:
    campaign = Campaign.model_validate({**PLAIN, "reference": {"family": "mlp"}, "search": {"engines": ["toy"]}})
    assert campaign.engines == ("litert", toy.name)
    assert Setting.model_json_schema()["properties"]["engine"]["enum"] == list(build_engines())
    with pytest.raises(ValueError, match="Input should be 'litert', 'tflite-runtime', 'tvm' or 'toy'"):
        Setting(engine="onnx")
    with pytest.raises(ValueError, match="engine toy takes no delegate"):
        Campaign.model_validate({**PLAIN, "reference": {"family": "mlp", "engine": "toy", "delegate": "coral"}})


def test_a_request_chooses_a_new_engine_by_its_file_and_opens_it(toy: EngineRow, tmp_path: Path) -> None:
    checks, path = RequestChecks(), tmp_path / "m.toy"
    model = ModelOptions("candidate", path, "model", None, threads=1, delegate="coral")
    row = checks.engine(model)
    assert row is toy is engine_for(".toy")
    content = checks.open_model(model, row, {})
    assert content is not None
    assert content.artifact.path == str(path)
    assert checks.faults == []
    assert checks.delegate(model, row, []) == "coral"
    assert checks.open_model(model, ENGINES["litert"], {}) is None
    assert [str(fault) for fault in checks.faults] == [
        "delegate: toy takes no delegate; engines that do: litert, tflite-runtime",
        f"model: {path}: litert runs a .tflite; say engine='toy' for a .toy, or leave it out",
    ]


def test_rungs_wheels_and_builders_of_a_new_engine_come_from_its_row(toy: EngineRow, tmp_path: Path) -> None:
    fp32, w8a8 = Lightening.parse("fp32"), Lightening.parse("w8a8")
    assert builds(toy.name, fp32)
    assert refusal(toy.name, w8a8, SIZES) == "for toy only fp32 is built"
    assert toy.name in wheel_engines()
    support = engine_support(Interpreter((3, 11), "aarch64", (2, 36), engines=("toy",), numpy="2.1"), "system")
    assert support["toy"].detail == "the installed toy-runtime is used, with the system's numpy 2.1"
    campaign = Campaign.model_validate({**PLAIN, "reference": {"family": "mlp", "engine": "toy"}})
    factories = {name: host.make_builder for name, host in HOST_ENGINES.items() if host.make_builder is not None}
    builders = BuilderSet(campaign, tmp_path, None, None, factories)  # type: ignore[arg-type]  # asked for by no toy
    one, two = (builders.of(toy.name, bench_on(name)) for name in ("a", "b"))
    assert one is two, "a toy runs on every processor"


def bench_on(name: str) -> Any:
    return type("Bench", (), {"board": type("Board", (), {"name": name})()})()

"""A trained float network becomes a library for a processor, which the agent's engine runs as the network would."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

import campaigns
import numpy as np
import pytest
from trained_folder import write_trained_folder

from edgeloop.builders.parity import Gate
from edgeloop.builders.tflite.builder import TfliteBuilder
from edgeloop.builders.tvm.builder import TvmBuilder
from edgeloop.builders.tvm.versions import TvmTarget, host_library_name
from edgeloop.core.campaign import Task
from edgeloop.errors import BuildError, ModelError
from edgeloop.host_runtime.tflite import read_library
from edgeloop.ports import TrainedNetwork
from edgeloop.processes.limits import ProcessLimits
from edgeloop_agent.engines import load_engine
from edgeloop_agent.engines.base import ModelFile

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("litert_torch", reason="needs the tflite extra")
pytest.importorskip("tvm_ffi", reason="needs the tvm extra")
nn = torch.nn

pytestmark = pytest.mark.train
HERE = TvmTarget(machine=platform.machine(), mcpu="native")


class Wide(nn.Module):
    """Padding, strides, depthwise, channels that are no multiple of a vector, a residual, two inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.depthwise = nn.Conv2d(1, 12, 3, 2, 1), nn.Conv2d(12, 12, 3, 1, 1, groups=12)
        self.point, self.back = nn.Conv2d(12, 22, 1), nn.Conv2d(22, 22, 3, padding=1)
        self.head, self.other = nn.Linear(27, 5), nn.Linear(27, 3)

    def forward(self, x: Any, facts: Any) -> Any:
        x = self.point(self.depthwise(self.first(x.permute(0, 3, 1, 2)).relu()).relu()).relu()
        x = (self.back(x) + x).relu().mean((2, 3))
        x = torch.cat([x, facts], 1)
        return self.head(x), self.other(x)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedNetwork:
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    inputs = {"x": random.normal(size=(300, 12, 12, 1)), "facts": random.normal(size=(300, 5))}
    floats = {name: values.astype(np.float32) for name, values in inputs.items()}
    folder = tmp_path_factory.mktemp("trained") / "wide"
    return write_trained_folder(folder, Wide(), floats, "fp32", outputs=("a", "b"), key="wide-fp32")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store") / "artifacts"


def builder(store: Path, target: TvmTarget = HERE, **more: Any) -> TvmBuilder:
    gate = Gate(Task(kind="regression"))
    return TvmBuilder(store, gate, TfliteBuilder(store, gate), lambda: target, **more)


def test_the_agent_runs_what_is_built_as_the_network_would(trained: TrainedNetwork, store: Path) -> None:
    artifact = builder(store).build(trained, "fp32")
    assert Path(artifact.path).name == "model.so"
    assert artifact.parity is not None
    assert artifact.parity.agreement == 1.0
    with np.load(Path(trained.folder) / "probe.npz") as arrays:
        probe = {name: arrays[name] for name in arrays.files}
    engine = load_engine("tvm")
    engine.load(ModelFile(artifact.path, 1))
    assert [t.name for t in engine.inputs()] == ["x", "facts"]
    for index in range(20):
        for (put, number), name in zip(engine.setters(), ("x", "facts"), strict=True):
            put(number, probe[f"parity/x/{name}"][index : index + 1])
        engine.invoker()()
        for (get, number), name in zip(engine.getters(), ("a", "b"), strict=True):
            np.testing.assert_allclose(get(number)[0], probe[f"parity/y/{name}"][index], atol=1e-5)
    given = {name: probe[f"parity/x/{name}"] for name in ("x", "facts")}
    predicted = builder(store).predict(artifact, given)
    np.testing.assert_allclose(predicted["b"], probe["parity/y/b"], atol=1e-5)


def test_no_function_of_a_network_stays_as_plain_loops(trained: TrainedNetwork, store: Path) -> None:
    artifact = builder(store).build(trained, "fp32")
    assert "left as plain loops" not in Path(artifact.path).with_name("build.log").read_text()


def test_for_another_processor_it_is_cross_built_and_what_runs_here_lies_beside_it(
    trained: TrainedNetwork, store: Path
) -> None:
    target = TvmTarget(machine="aarch64", mcpu="cortex-a72")
    artifact = builder(store, target).build(trained, "fp32")
    header = Path(artifact.path).read_bytes()[:20]
    assert header[:4] == b"\x7fELF"
    assert int.from_bytes(header[18:20], "little") == 183  # EM_AARCH64
    assert Path(artifact.path).with_name(host_library_name()).is_file()
    assert artifact.tools["processor"] == "aarch64-linux-gnu cortex-a72"
    assert builder(store, target).build(trained, "fp32") == artifact  # found, not built


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL (out of memory, usually)"),
        (
            "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 28, 1 << 28)); bytes(1 << 30)",
            "ended with status 1 and no result: MemoryError",
        ),
        ("while True: pass", "was not done after 3 s and was stopped"),
    ],
    ids=["segfault", "killed", "memory", "endless"],
)
def test_a_toolchain_that_crashes_is_an_error_with_its_last_line(
    trained: TrainedNetwork, store: Path, code: str, says: str
) -> None:
    other = TvmTarget(machine=HERE.machine, mcpu="x86-64")
    broken = builder(store, other, command=(sys.executable, "-c", code), limits=ProcessLimits(3))
    with pytest.raises(BuildError, match="fp32 with TVM for") as caught:
        broken.build(trained, "fp32")
    assert says in str(caught.value)


def test_a_ready_library_is_known_by_its_description_alone(
    trained: TrainedNetwork, store: Path, tmp_path: Path
) -> None:
    built = Path(builder(store).build(trained, "fp32").path)
    lonely = tmp_path / "model.so"
    lonely.write_bytes(built.read_bytes())
    with pytest.raises(ModelError, match=r"there is no artifact\.json beside it"):
        read_library(lonely)
    (tmp_path / "artifact.json").write_bytes(built.with_name("artifact.json").read_bytes())
    assert [spec.name for spec in read_library(lonely).outputs] == ["a", "b"]
    lonely.write_bytes(built.read_bytes() + b"!")
    with pytest.raises(ModelError, match=r"describes another file than model\.so"):
        read_library(lonely)


@pytest.mark.full
def test_targets_of_two_processors_are_each_measured_with_a_file_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    here = tmp_path / "cache" / "edgeloop" / "local-board"
    any_core = {"x86_64": "x86-64-v2", "aarch64": "generic"}[platform.machine()]
    # The target `local` is of the shipped model, the other one of a model called so that lies beside the campaign.
    model = f'schema = 1\nname = "local"\narchitectures = ["{platform.machine()}"]\nmcpu = "{any_core}"\n'
    (tmp_path / "local.toml").write_text(model + '[runtime]\nsource = "system"\n')
    there = campaigns.write_local_board(tmp_path, "plain")
    text = campaigns.CAMPAIGN.format(target='local", "plain', size_ratio=100)
    for old, new in (
        ('["w8a8", "w4a8"]', '["fp32"]\nengines = ["tvm"]'),
        ('family = "ds_cnn"', 'family = "ds_cnn"\nengine = "tvm"'),
    ):
        text = text.replace(old, new)
    (tmp_path / "campaign.toml").write_text(text)
    told = campaigns.run("run", tmp_path / "campaign.toml", "--out", tmp_path / "run", cwd=tmp_path)
    events = campaigns.events(tmp_path / "run")
    built = [event for event in events if event["kind"] == "built"]
    assert len(built) == 2
    for event in built:
        first, elsewhere = event["artifact"]["sha256"], event["elsewhere"]
        assert list(elsewhere) == ["plain"]
        assert elsewhere["plain"]["tools"]["processor"].split()[1] == any_core
        other = elsewhere["plain"]["sha256"]
        assert other != first
        for state, pushed, foreign in ((here, first, other), (there, other, first)):
            assert (state / "cache" / f"{pushed}.so").is_file()
            assert not (state / "cache" / f"{foreign}.so").exists()
    best = tmp_path / "run" / "best"
    models = sorted(best.glob("*/model.so"))
    assert [model.parent.name for model in models] == sorted(
        f"{platform.machine()}-{artifact['tools']['processor'].split()[1]}"
        for artifact in (built[1]["artifact"], built[1]["elsewhere"]["plain"])
    )
    assert sorted(path.name for path in best.iterdir() if path.is_file()) == ["proof.json"]
    proof = json.loads((best / "proof.json").read_text())
    sizes = {m["target"]: m["model"]["sha256"] for m in proof["measurements"]}
    assert sizes == {"local": built[1]["artifact"]["sha256"], "plain": built[1]["elsewhere"]["plain"]["sha256"]}
    assert told.stdout.count("best/") == 2 or told.stderr.count("best/") == 2
    words = ("measure", best / f"{platform.machine()}-{any_core}" / "model.so", "--target", "plain", "--engine", "tvm")
    campaigns.run(*words, "--profile", "quick", cwd=tmp_path)
    campaigns.run("run", tmp_path / "campaign.toml", "--out", tmp_path / "run", "--resume", cwd=tmp_path)
    assert campaigns.events(tmp_path / "run") == events


def test_one_campaign_tries_both_engines_tunes_on_the_board_and_puts_out_a_compiled_network(tmp_path: Path) -> None:
    state = campaigns.write_local_board(tmp_path)
    text = campaigns.CAMPAIGN.format(target="here", size_ratio=100).replace(
        'lightenings = ["w8a8", "w4a8"]',
        'lightenings = ["fp32", "w8a8"]\nengines = ["litert", "tvm"]\nstrategy = "grid"\npareto = true',
    )
    (tmp_path / "campaign.toml").write_text(f"{text}\n[tuning]\ntrials = 20\n")
    said = campaigns.run("run", tmp_path / "campaign.toml", "--out", tmp_path / "run", cwd=tmp_path).stderr
    assert said.count("tuning on here: ") == 2  # of each precision the functions are others
    assert state.is_dir()
    events = campaigns.events(tmp_path / "run")
    engines = {
        e["trial"]: (e["candidate"]["engine"], e["candidate"]["lightening"]) for e in events if e["kind"] == "asked"
    }
    asked = {found: number for number, found in engines.items() if number}
    assert set(asked) == {(engine, rung) for engine in ("litert", "tvm") for rung in ("fp32", "w8a8")}

    def top1(trial: int) -> list[float]:
        judged = [e for e in events if e["kind"] == "judged" and e["trial"] == trial and e["split"] == "validation"]
        return [metric["value"] for e in judged for metric in e["summary"]["metrics"] if metric["metric"] == "top1"]

    for rung in ("w8a8", "fp32"):
        compiled = asked["tvm", rung]
        built = next(e for e in events if e["kind"] == "built" and e["trial"] == compiled)
        assert "functions measured" in built["artifact"]["tools"]["schedules"]
        assert top1(compiled)[0] == pytest.approx(built["converted"]["top1"], abs=1e-9)  # the host's, sample for sample
        assert top1(compiled) == top1(asked["litert", rung])  # the same trained network, the same arithmetic
    (database,) = (tmp_path / "run" / "tuning").glob("*.jsonl")
    rows = [json.loads(line) for line in database.read_text().splitlines()]
    assert all(ns and ns > 0 for row in rows for ns in row["median_ns"])
    model = Path(built["artifact"]["path"])
    words = ("measure", model, "--target", "here", "--engine", "tvm", "--profile", "quick", "--json")
    found = json.loads(campaigns.run(*words, cwd=tmp_path).stdout)
    assert found["engine"].startswith("tvm 0.27")
    wrong = campaigns.run("measure", model, "--target", "here", "--engine", "litert", cwd=tmp_path, expect=2)
    assert "say --engine tvm for a .so" in wrong.stderr

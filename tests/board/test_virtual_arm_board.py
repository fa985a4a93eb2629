"""The agent, the runtimes and the commands on a virtual ARM board. `make test-board` runs all, CI a short part."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from kept_samples import kept_outputs

from edgeloop.host_runtime.tflite import predict_tflite, read_tflite
from edgeloop.testing.virtual_board import VirtualBoardHome

pytestmark = [pytest.mark.board, pytest.mark.timeout(1800)]

DATA = Path(__file__).parents[1] / "data"
SAMPLES = 200
BRIEF = ("--sessions", "2", "--runs-min", "20", "--time-s-min", "0.1")


@pytest.fixture(scope="session")
def labelled(tmp_path_factory):
    """Random inputs of the tiny models, each labelled with a random class: some are right, some wrong."""
    rng = np.random.default_rng(0)
    spec = read_tflite(DATA / "tiny_float.tflite")
    x = rng.normal(size=(SAMPLES, *spec.inputs[0].shape[1:])).astype(np.float32)
    y = rng.integers(0, spec.outputs[0].shape[-1], SAMPLES)
    path = tmp_path_factory.mktemp("data") / "labelled.npz"
    np.savez(path, x=x, y=y)
    return path


def host_outputs(model: Path, data: Path) -> np.ndarray:
    artifact = read_tflite(model)
    return next(iter(predict_tflite(artifact, {artifact.inputs[0].name: np.load(data)["x"]}).values()))


def same_as_on_the_host(edgeloop, home, target, model, engine, data):
    """Measure on the board and require the host's results, sample by sample; return the measurement's JSON."""
    done = edgeloop("measure", model, "--target", target, "--engine", engine, "--data", data, *BRIEF, "--json")
    board, host = kept_outputs(home), host_outputs(model, data)
    assert board.shape == host.shape
    step = read_tflite(model).outputs[0].scale or 0.0
    assert np.abs(board - host).max() <= step + 1e-5  # kernels of two processors round a sum's last bit apart
    top = np.sort(host, axis=1)
    clear = top[:, -1] - top[:, -2] > step + 1e-5  # a tie within that step has no class of its own
    assert clear.mean() > 0.9
    assert (board.argmax(1) == host.argmax(1))[clear].all()
    found = json.loads(done.stdout)
    right = host.argmax(1) == np.load(data)["y"]
    assert abs(found["accuracy"]["value"] - right.mean()) <= (~clear).mean()
    assert found["emulated"] is True
    assert found["sessions"] == 2
    return found


def test_a_provisioned_board_runs_both_engines(edgeloop, virt):
    assert "ready for litert, tflite-runtime" in edgeloop("targets", "provision", virt).stdout


@pytest.mark.parametrize("model", ["tiny_int8.tflite", "tiny_float.tflite"])
@pytest.mark.parametrize("engine", ["litert", "tflite-runtime"])
def test_arm64_gives_the_hosts_results_sample_by_sample(edgeloop, home, virt, labelled, engine, model):
    found = same_as_on_the_host(edgeloop, home, virt, DATA / model, engine, labelled)
    assert found["engine"].startswith(engine)


def test_a_model_compared_with_itself_gives_the_same_answers(edgeloop, virt, labelled):
    model = DATA / "tiny_int8.tflite"
    done = edgeloop("compare", model, model, "--target", virt, "--data", labelled, *BRIEF, "--json")
    found = json.loads(done.stdout)
    assert found["emulated"] is True
    assert found["agreement"]["value"] == 1.0
    assert found["a"]["accuracy"]["value"] == found["b"]["accuracy"]["value"]
    assert 0.1 < found["ratio"]["p50"]["value"] < 10


def test_absolute_times_are_refused_there_before_anything_is_sent_unless_they_are_allowed(edgeloop, virt):
    words = ("measure", DATA / "tiny_int8.tflite", "--target", virt, "--limit", "latency.p50_ms=1000", *BRIEF)
    refused = edgeloop(*words, expect=2)
    assert "virt is emulated, and times there mean nothing as times" in refused.stderr
    assert "--allow-emulated" in refused.stderr
    allowed = edgeloop(*words, "--allow-emulated").stdout
    assert "PASS" in allowed
    assert "EMULATED board: its times mean nothing as times" in allowed


@pytest.mark.full
def test_armhf_gives_the_hosts_results_with_the_systems_numpy(edgeloop, home: VirtualBoardHome, labelled):
    home.create("virt32", arch="armhf", cpu="cortex-a53")
    try:
        assert "ready for tflite-runtime" in edgeloop("targets", "provision", "virt32").stdout
        for model in ("tiny_int8.tflite", "tiny_float.tflite"):
            found = same_as_on_the_host(edgeloop, home, "virt32", DATA / model, "tflite-runtime", labelled)
            assert found["engine"].startswith("tflite-runtime")
    finally:
        home.boards.stop("virt32")

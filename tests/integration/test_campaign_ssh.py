"""A campaign over a real sshd: keys and a pinned host key made for it, a user that is not root, nothing faked."""

from __future__ import annotations

import json
from pathlib import Path

import campaigns
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgeloop.core.campaign import Data
from edgeloop.data.load import load
from edgeloop.records.samples import AttemptFolder
from edgeloop.testing.sshd import LoopbackSshd

pytestmark = [pytest.mark.train, pytest.mark.sshd]


@pytest.fixture(scope="module")
def finished(sshd_session: LoopbackSshd, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    folder = tmp_path_factory.mktemp("ssh-campaign")
    sshd_session.write_board(folder)
    campaign = campaigns.write_campaign(folder, target="loopback")
    done = campaigns.run("run", campaign, "--out", folder / "run", "--json", cwd=folder)
    return folder / "run", json.loads(done.stdout)


def test_a_campaign_over_ssh_ends_with_a_network_and_its_proof(finished: tuple[Path, dict[str, object]]) -> None:
    folder, document = finished
    assert document["exit_code"] == 0
    assert (folder / "best" / "model.tflite").is_file()
    proof = json.loads((folder / "best" / "proof.json").read_text())
    assert [m["split"] for m in proof["measurements"]] == ["validation", "test"]
    assert all(m["verdict"] == "PASS" for m in proof["measurements"])
    assert (folder / "report.html").stat().st_size < 3_000_000


def test_the_agents_accuracy_is_the_hosts_sample_by_sample(finished: tuple[Path, dict[str, object]]) -> None:
    """An evaluation of the test's own, over the same test data, agrees in every output."""
    folder, _ = finished
    proof = json.loads((folder / "best" / "proof.json").read_text())
    attempt = AttemptFolder(next((folder / proof["samples"][-1]).glob("attempt-*"))).read()
    (board,) = attempt.outputs["candidate"].values()
    test = load(Data(provider="digits")).test
    (x,), (labels,) = test.x.values(), test.y.values()
    runtime = Interpreter(model_path=str(folder / "best" / "model.tflite"), num_threads=1)
    runtime.allocate_tensors()
    source, sink = runtime.get_input_details()[0], runtime.get_output_details()[0]
    scale, zero = source["quantization"]
    own = []
    for sample in x[: len(board)]:
        value = sample[None]
        if source["dtype"] is np.int8:
            value = np.clip(np.rint(value / scale) + zero, -128, 127).astype(np.int8)
        runtime.set_tensor(source["index"], value)
        runtime.invoke()
        own.append(runtime.get_tensor(sink["index"])[0].astype(np.float32))
    out_scale, out_zero = sink["quantization"]
    outputs = np.stack(own) if not out_scale else (np.stack(own) - out_zero) * np.float32(out_scale)
    np.testing.assert_allclose(board, outputs, atol=1e-6)
    last = proof["measurements"][-1]
    assert last["accuracy"]["n"] == len(board)
    assert last["accuracy"]["value"] == pytest.approx(float((outputs.argmax(1) == labels[: len(board)]).mean()))


def test_nothing_on_the_board_is_roots_and_the_host_key_was_pinned(
    finished: tuple[Path, dict[str, object]], sshd_session: LoopbackSshd
) -> None:
    owners = {path.owner() for path in Path(sshd_session.state_dir).rglob("*")}
    assert owners == {sshd_session.user}
    assert sshd_session.user != "root"


def test_a_wrong_host_key_is_refused_before_anything_is_sent(sshd_session: LoopbackSshd, tmp_path: Path) -> None:
    wrong = sshd_session.ssh.model_copy(update={"host_key": "SHA256:" + "A" * 43})
    sshd_session.write_board(tmp_path, ssh=wrong)
    before = sorted(Path(sshd_session.state_dir).rglob("*"))
    model = Path(__file__).parents[1] / "data" / "tiny_float.tflite"
    done = campaigns.run("measure", model, "--target", "loopback", cwd=tmp_path, expect=3)
    assert done.stderr.count("\n") == 1
    assert "host key" in done.stderr
    assert sorted(Path(sshd_session.state_dir).rglob("*")) == before

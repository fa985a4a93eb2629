"""TVM on a virtual ARM board: cross-built here, run there on the smallest runtime, in one campaign with LiteRT."""

from __future__ import annotations

import json

import campaigns
import pytest

from edgeloop.board.inventory import read_board
from edgeloop.board.ssh import SshLink

pytestmark = [pytest.mark.board, pytest.mark.full, pytest.mark.train, pytest.mark.timeout(2400)]


def test_a_campaign_tries_both_engines_and_each_has_the_hosts_accuracy(edgeloop, home, virt, tmp_path):
    text = campaigns.CAMPAIGN.format(target=virt, size_ratio=100).replace(
        'lightenings = ["w8a8", "w4a8"]',
        'lightenings = ["fp32", "w8a8"]\nengines = ["litert", "tvm"]\nstrategy = "grid"\npareto = true',
    )
    # Ratios of an emulated processor mean nothing, so that the limit on latency leaves everything through.
    (tmp_path / "campaign.toml").write_text(text.replace("= 30.0", "= 1000.0"))
    edgeloop("run", tmp_path / "campaign.toml", "--out", tmp_path / "run", cwd=tmp_path)
    events = campaigns.events(tmp_path / "run")
    engines = {e["trial"]: e["candidate"]["engine"] for e in events if e["kind"] == "asked"}
    assert sorted(engine for trial, engine in engines.items() if trial) == ["litert", "litert", "tvm", "tvm"]
    for trial, engine in engines.items():
        built = next(e for e in events if e["kind"] == "built" and e["trial"] == trial)
        judged = next(e for e in events if e["kind"] == "judged" and e["trial"] == trial)
        (top1,) = [m["value"] for m in judged["summary"]["metrics"] if m["metric"] == "top1"]
        assert top1 == pytest.approx(built["converted"]["top1"], abs=1e-9)
        assert judged["summary"]["engine"].startswith(engine)
        if engine == "tvm":
            assert built["artifact"]["tools"]["processor"] == "aarch64-linux-gnu cortex-a53"
    best = json.loads((tmp_path / "run" / "best" / "proof.json").read_text())
    assert all(m["verdict"] == "PASS" for m in best["measurements"])


def test_what_a_board_is_given_of_tvm_is_under_10_mb(edgeloop, home, virt):
    edgeloop("targets", "provision", virt, "--engine", "tvm")
    board = read_board(home.folder / f"config/edgeloop/targets/{virt}.toml")
    link = SshLink(board.ssh, board.name)
    try:
        find = f"cd {board.runtime.state_dir}/runtimes && du -sb $(ls -d */tvm */tvm_ffi */typing_extensions.py)"
        listed = link.run(["sh", "-c", find]).stdout.decode().split()
    finally:
        link.close()
    assert sum(map(int, listed[::2])) < 10_000_000

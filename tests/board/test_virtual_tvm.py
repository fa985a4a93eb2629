"""TVM on a virtual ARM board: cross-built here, run there on the smallest runtime, in one campaign with LiteRT."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import campaigns
import pytest

from edgeloop.board.ssh import SshLink
from edgeloop.config.board_files import read_board
from edgeloop.testing.virtual_board import VirtualBoardHome

pytestmark = [pytest.mark.board, pytest.mark.full, pytest.mark.train, pytest.mark.timeout(2400)]


CORE = "cortex-a76"
"""Of the second board. The first one's model says cortex-a53, which has no dot products: other code for integers."""


@pytest.fixture
def virt_with_dot_products(home: VirtualBoardHome, tmp_path: Path) -> Iterator[str]:
    name, model = "virt-dot", f"virtual-{CORE}"
    file = home.create(name, cpu=CORE)
    (tmp_path / f"{model}.toml").write_text(
        f'schema = 1\nname = "{model}"\narchitectures = ["aarch64"]\nmcpu = "{CORE}"\n'
    )
    file.write_text(file.read_text().replace('extends = "virtual-arm64"', f'extends = "{model}"'))
    yield name
    home.boards.kill(name)


def test_a_campaign_tries_both_engines_on_two_kinds_of_cores_and_each_has_the_hosts_accuracy(
    edgeloop, virt, virt_with_dot_products, tmp_path
):
    targets = (virt, virt_with_dot_products)
    text = campaigns.CAMPAIGN.format(target='", "'.join(targets), size_ratio=100).replace(
        'lightenings = ["w8a8", "w4a8"]',
        'lightenings = ["fp32", "w8a8"]\nengines = ["litert", "tvm"]\nstrategy = "grid"\npareto = true',
    )
    # Ratios of an emulated processor mean nothing, so that the limit on latency leaves everything through.
    (tmp_path / "campaign.toml").write_text(
        text.replace("= 30.0", "= 1000.0").replace("wall_minutes = 10", "wall_minutes = 60")
    )
    edgeloop("run", tmp_path / "campaign.toml", "--out", tmp_path / "run", cwd=tmp_path)
    events = campaigns.events(tmp_path / "run")
    asked = {e["trial"]: e["candidate"] for e in events if e["kind"] == "asked"}
    tried = sorted((c["engine"], c["lightening"]) for trial, c in asked.items() if trial)
    assert tried == [("litert", "fp32"), ("litert", "w8a8"), ("tvm", "fp32"), ("tvm", "w8a8")]
    for trial, candidate in asked.items():
        built = next(e for e in events if e["kind"] == "built" and e["trial"] == trial)
        if candidate["engine"] == "tvm":
            compiled = [built["artifact"], built["elsewhere"][virt_with_dot_products]]
            cores = [artifact["tools"]["processor"] for artifact in compiled]
            assert cores == ["aarch64-linux-gnu cortex-a53", f"aarch64-linux-gnu {CORE}"]
        judged = {
            e["target"]: e
            for e in events
            if e["kind"] == "judged" and e["trial"] == trial and e["split"] == "validation"
        }
        assert sorted(judged) == sorted(targets)
        for of_target in judged.values():
            (top1,) = [m["value"] for m in of_target["summary"]["metrics"] if m["metric"] == "top1"]
            assert top1 == pytest.approx(built["converted"]["top1"], abs=1e-9)
            assert of_target["summary"]["engine"].startswith(candidate["engine"])
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

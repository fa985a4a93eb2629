"""The engine `exec` on virtual ARM boards: the C++ example, cross-built, beside this host's and the agent's reading."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import own_program
import pytest
from kept_samples import kept_outputs

from edgeloop.board.ssh import SshLink
from edgeloop.config.board_files import read_board
from edgeloop.testing.virtual_board import VirtualBoardHome

pytestmark = [pytest.mark.board, pytest.mark.full, pytest.mark.timeout(3600)]

BRIEF = ("--sessions", "3", "--runs-min", "50", "--time-s-min", "0.5")
# On the board, by the agent's own clock, from outside: what more samples in one batch take longer, start and reading
# of the weights left out. The fastest of five each.
FROM_OUTSIDE = """
import os, subprocess, sys, tempfile, time
program, weights, samples = sys.argv[1], sys.argv[2], int(sys.argv[3])
folder = tempfile.mkdtemp()
def batch(count):
    with open(folder + "/plan.txt", "w") as plan:
        plan.write("protocol 1\\ntask evaluate\\nthreads 1\\nsamples %d\\n" % count)
    with open(folder + "/input.0.bin", "wb") as data:
        data.write(b"\\0\\0\\0\\x3f" * (256 * count))
    start = time.perf_counter_ns()
    subprocess.run([program, weights, folder], stdin=subprocess.DEVNULL, check=True)
    return time.perf_counter_ns() - start
few = min(batch(samples) for _ in range(5))
many = min(batch(5 * samples) for _ in range(5))
print((many - few) / (4 * samples))
"""


def measured_as_on_the_host(edgeloop, home: VirtualBoardHome, target: str, folder: Path) -> float:
    """Measure the example; require the host's results sample by sample, and the agent's own time. Return the ratio."""
    words = ("measure", folder / "net.toml", "--target", target, "--engine", "exec", "--data", folder / "net.npz")
    found = json.loads(edgeloop(*words, *BRIEF, "--json", expect=(0, 3)).stdout)
    # A busy host sets the guest's clock while it measures, which makes it INVALID; nothing else may.
    assert all("the clock was set" in reason for reason in found["trust"]["reasons"]), found["reasons"]
    assert found["engine"] == "exec net 1.0"
    assert found["sessions"] == 3
    assert 0 < found["peak_rss_bytes"] < 32 << 20
    assert found["model"]["deployed_bytes"] == sum((folder / name).stat().st_size for name in ("net", "net.bin"))
    np.testing.assert_allclose(kept_outputs(home), own_program.scores(folder), atol=1e-4)
    assert found["accuracy"]["value"] == 1.0
    ratio = found["latency_ns"]["p50"] / seen_from_outside_ns(home, target)
    print(f"{target}: the program's own p50 over the agent's reading from outside: {ratio:.2f}")
    return float(ratio)


def seen_from_outside_ns(home: VirtualBoardHome, target: str) -> float:
    board = read_board(home.folder / f"config/edgeloop/targets/{target}.toml")
    link = SshLink(board.ssh, board.name)
    try:
        listed = link.run(["sh", "-c", f"ls -d {board.runtime.state_dir}/runtimes/*/program/net"]).stdout.decode()
        program = listed.split()[0]
        argv = [board.runtime.python, "-", program, f"{program}.bin", "2000"]
        done = link.run(argv, stdin=FROM_OUTSIDE.encode(), deadline_s=300)
    finally:
        link.close()
    assert done.exit_status == 0, done.last_words
    return float(done.stdout)


def test_the_cross_built_example_gives_the_hosts_results_and_the_agents_own_time(edgeloop, home, virt, tmp_path):
    folder = own_program.example(tmp_path)
    own_program.cross_build(folder, "aarch64-linux-musl")
    assert 0.5 < measured_as_on_the_host(edgeloop, home, virt, folder) < 2


def test_a_32_bit_system_takes_part(edgeloop, home, tmp_path):
    folder = own_program.example(tmp_path)
    own_program.cross_build(folder, "arm-linux-musleabihf")
    home.create("virt32exec", arch="armhf", cpu="cortex-a53")
    try:
        assert 0.5 < measured_as_on_the_host(edgeloop, home, "virt32exec", folder) < 2
    finally:
        home.boards.stop("virt32exec")

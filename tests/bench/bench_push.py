"""Our push beside `scp`: 100 MB over a loopback sshd, alternating in one run, medians and their ratio.

    python tests/bench/bench_push.py [--megabytes 100] [--rounds 5] [--json]

Our push ends when the board has hashed the file, made it durable (fsync) and given it its name; scp does none of
that. The aim is a ratio of at most 1.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from edgeloop.board.agent import BoardAgent, cache_name
from edgeloop.board.ssh import SshLink
from edgeloop.core.board import Board, BoardModel, Runtime
from edgeloop.processes.files import sha256_of
from edgeloop.testing.sshd import LoopbackSshd, why_no_sshd


def main() -> None:
    parser = argparse.ArgumentParser(description="our push beside scp")
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    reason = why_no_sshd()
    if reason:
        raise SystemExit(reason)
    with tempfile.TemporaryDirectory() as folder, LoopbackSshd() as sshd:
        path = Path(folder, "big.npz")
        path.write_bytes(os.urandom(asked.megabytes * 1_000_000))
        ours_s, scp_s = compare(sshd, path, asked.rounds)
    ratio = statistics.median(ours_s) / statistics.median(scp_s)
    if asked.json:
        print(json.dumps({"megabytes": asked.megabytes, "ours_s": ours_s, "scp_s": scp_s, "ratio": ratio}))
        return
    for name, seconds in (("push, hashed and synced on the board", ours_s), ("scp", scp_s)):
        listed = " ".join(f"{s:.2f}" for s in seconds)
        print(f"{name:38} median {statistics.median(seconds):.3f} s   ({listed})")
    print(f"ratio {ratio:.2f} (aim: at most 1.00)")


def compare(sshd: LoopbackSshd, path: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each round, ours and scp's. One round before them is not counted."""
    model = BoardModel.model_validate({"schema": 1, "name": "loopback"})
    runtime = Runtime(python=sshd.python, state_dir=sshd.state_dir)
    board = Board(name="loopback", model=model, ssh=sshd.ssh, runtime=runtime)
    link = SshLink(sshd.ssh, board.name)
    agent = BoardAgent(link, board)
    sha256 = sha256_of(path)
    cached = f"{sshd.state_dir}/cache/{cache_name(sha256, path)}"
    ours_s, scp_s = [], []
    for number in range(rounds + 1):
        began = time.perf_counter()
        agent.push(path, sha256)
        ours = time.perf_counter() - began
        assert agent.missing([cache_name(sha256, path)])[0] == frozenset()
        link.run(["rm", "-f", cached, f"{cached}.ok"])
        began = time.perf_counter()
        subprocess.run([*scp_command(sshd), str(path), f"{sshd.user}@{sshd.host}:{sshd.state_dir}/by-scp"], check=True)
        scp = time.perf_counter() - began
        link.run(["rm", "-f", f"{sshd.state_dir}/by-scp"])
        if number:
            ours_s.append(ours)
            scp_s.append(scp)
    link.close()
    return ours_s, scp_s


def scp_command(sshd: LoopbackSshd) -> list[str]:
    known = sshd.folder / "known_hosts"
    known.write_text(f"[{sshd.host}]:{sshd.port} {sshd.public_host_key}\n")
    options = ["-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes"]
    return ["scp", "-q", "-P", str(sshd.port), "-i", str(sshd.identity_file), *options]


if __name__ == "__main__":
    main()

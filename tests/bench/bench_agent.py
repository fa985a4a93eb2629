"""The agent's median beside a bare loop over the same interpreter, in one run, alternating. Prints the ratio.

Usage: python tests/bench/bench_agent.py [MODEL.tflite]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from edgeloop.analysis.plans import schedule
from edgeloop.board.bench import open_bench
from edgeloop.config.board_files import local_board
from edgeloop.core.measurement import MeasureRequest, Subject
from edgeloop.core.plan import Environment, Plan
from edgeloop.host_runtime.tflite import read_tflite

ROUNDS = 5
BARE = """
import sys, time
import numpy as np
from ai_edge_litert.interpreter import Interpreter
runtime = Interpreter(model_path=sys.argv[1], num_threads=1)
runtime.allocate_tensors()
for detail in runtime.get_input_details():
    shape, dtype = detail["shape"], detail["dtype"]
    runtime.set_tensor(detail["index"], np.random.default_rng(0).standard_normal(shape).astype(dtype))
invoke, now = runtime.invoke, time.perf_counter_ns
end = time.monotonic() + 0.5
while time.monotonic() < end:
    invoke()
times = []
end = time.monotonic() + 1.0
while time.monotonic() < end:
    start = now(); invoke(); times.append(now() - start)
print(int(np.median(times)))
"""


def bare_ns(model: Path) -> float:
    done = subprocess.run([sys.executable, "-c", BARE, str(model)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def agent_ns(model: Path, folder: Path) -> float:
    subject = Subject("candidate", read_tflite(model))
    plan = Plan.of("quick", sessions=2, time_s_min=1.0)
    request = MeasureRequest(
        key=f"{time.monotonic_ns():064x}",
        subjects=(subject,),
        schedule=schedule(["candidate"], [], plan),
        plan=plan,
        environment=Environment(),
        folder=folder,
    )
    bench = open_bench(local_board())
    attempt = bench.measure(request, lambda *_: None)
    bench.close()
    return float(np.median([np.median(session.latencies_ns) for session in attempt.sessions]))


def main() -> int:
    model = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "data" / "tiny_float.tflite"
    bare, agent = [], []
    with tempfile.TemporaryDirectory() as name:
        for number in range(ROUNDS):
            bare.append(bare_ns(model))
            agent.append(agent_ns(model, Path(name) / str(number)))
    loop, ours = statistics.median(bare), statistics.median(agent)
    print(f"{model.name}: bare loop {loop:.0f} ns, agent {ours:.0f} ns; ratio {ours / loop:.4f}, {ours - loop:+.0f} ns")
    print("aim: within 1 % or 1 us: " + ("kept" if ours - loop <= max(0.01 * loop, 1000) else "missed"))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""One engine with one network, for bench_engines.py: a line on stdin asks for a round, whose median in ns is answered.

A process for each engine, since tflite-runtime needs a numpy of its own. Of edgeloop only the agent is imported.

Usage: engine_worker.py ENGINE MODEL SAMPLE.npy
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np

from edgeloop_agent.engines import load_engine
from edgeloop_agent.engines.base import ModelFile

RUNS = 50


def main() -> int:
    name, model, sample = sys.argv[1:]
    engine = load_engine(name)
    engine.load(ModelFile(model, 1))
    ((put, index),) = engine.in_process_model().setters()
    put(index, np.load(sample))
    invoke, now = engine.in_process_model().invoker(), time.perf_counter_ns
    invoke()
    print("ready", flush=True)
    for _ in sys.stdin:
        times = []
        for _ in range(RUNS):
            start = now()
            invoke()
            times.append(now() - start)
        print(statistics.median(times), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

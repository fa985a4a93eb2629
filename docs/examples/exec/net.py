"""The network of net.cpp in Python: a program of one's own for the engine `exec`.

Called as `net.py net.bin FOLDER`; the protocol is docs/reference/exec.md. Replace `Net` by your runtime.
"""

from __future__ import annotations

import array
import os
import sys
import time
from pathlib import Path

import numpy as np

INPUTS, HIDDEN, OUTPUTS = 256, 64, 10


class Net:
    """relu(x W1 + b1) W2 + b2; the file holds W1, b1, W2, b2 in this order, float32."""

    def __init__(self, path):
        values = np.fromfile(path, "<f4")
        sizes = [INPUTS * HIDDEN, HIDDEN, HIDDEN * OUTPUTS, OUTPUTS]
        w1, self.b1, w2, self.b2 = np.split(values, np.cumsum(sizes)[:-1])
        self.w1, self.w2 = w1.reshape(INPUTS, HIDDEN), w2.reshape(HIDDEN, OUTPUTS)
        self.x = np.zeros(INPUTS, np.float32)
        self.y = np.zeros(OUTPUTS, np.float32)

    def invoke(self):
        self.y = np.maximum(self.x @ self.w1 + self.b1, 0) @ self.w2 + self.b2


class Loop:
    """Single inferences, back to back or one each period; how long each took, in ns."""

    def __init__(self, net, samples, timing, period_ns):
        self.net, self.samples, self.period_ns = net, samples, period_ns
        self.copies = timing == "copy_in_out"
        self.next = self.missed = 0

    def once(self):
        x = self.samples[self.next]
        self.next = (self.next + 1) % len(self.samples)
        if not self.copies:
            self.net.x[:] = x
        start = time.perf_counter_ns()
        if self.copies:
            self.net.x[:] = x
        self.net.invoke()
        if self.copies:
            self.net.y.copy()
        return time.perf_counter_ns() - start

    def run(self, runs_min, runs_max, time_ns):
        times = array.array("q")
        opened = due = time.monotonic_ns()
        self.missed = 0
        while len(times) < runs_max and (len(times) < runs_min or time.monotonic_ns() - opened < time_ns):
            if self.period_ns:
                time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
                late = time.monotonic_ns() - due
                if late >= self.period_ns:  # the run before went on for longer: this one starts now, the rest move
                    self.missed += late // self.period_ns
                    due += late
                due += self.period_ns
            times.append(self.once())
        return times


def main(weights, folder):
    plan = dict(line.split() for line in (folder / "plan.txt").read_text().splitlines())
    if plan["protocol"] != "1":
        sys.exit(f"plan.txt is of protocol {plan['protocol']}, this program speaks 1")
    begun = time.perf_counter_ns()
    net = Net(weights)
    told = {"version": "net.py 1.0", "load_ns": time.perf_counter_ns() - begun}
    samples = np.fromfile(folder / "input.0.bin", "<f4").reshape(-1, INPUTS)
    if plan["task"] == "evaluate":
        outputs = np.empty((len(samples), OUTPUTS), "<f4")
        for index, sample in enumerate(samples):
            net.x[:] = sample
            net.invoke()
            outputs[index] = net.y
        outputs.tofile(folder / "output.0.bin")
    else:
        asked = {key: int(value) for key, value in plan.items() if key not in ("task", "timing")}
        loop = Loop(net, samples, plan["timing"], asked["period_ns"])
        told["first_ns"] = loop.once()
        warmups = loop.run(asked["warmup_runs"], asked["runs_max"], asked["warmup_ns"])
        told["window_start_ns"] = time.monotonic_ns()
        latencies = loop.run(asked["runs"], asked["runs_max"], asked["time_ns"])
        told["window_end_ns"], told["missed_periods"] = time.monotonic_ns(), loop.missed
        (folder / "warmup.bin").write_bytes(warmups.tobytes())
        (folder / "latency.bin").write_bytes(latencies.tobytes())
    (folder / "answer.txt").write_text("".join(f"{key} {value}\n" for key, value in told.items()))
    # All is written: with stdout closed the agent reads our peak memory, then closes our stdin.
    os.close(1)
    while os.read(0, 1):
        pass
    os._exit(0)  # the interpreter would find its stdout closed


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

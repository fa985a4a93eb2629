"""What of a rung is real on an engine: its size, its latency, its accuracy; and which rungs an engine can't run.

Found by building networks of four families under every rung and running each file in both engines
(`python tests/bench/bench_rungs.py` prints the table again). A rung whose latency is another one's is no answer
where a latency limit failed, and one that an engine refuses is left out of the search.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capability:
    """What a measurement of a rung is about, on one engine."""

    size_real: bool
    """The file holds the weights in these bits."""
    latency_real: bool
    """The engine computes with these bits; False: it takes as long as `as_fast_as`."""
    accuracy_real: bool
    """The engine's outputs are those of these bits."""
    note: str
    as_fast_as: str | None = None
    """The rung whose latency this one has."""

    @property
    def summary(self) -> str:
        """`size and accuracy real; weights are made float when the model is loaded: the latency of fp32`."""
        real = [
            name
            for name, is_real in (
                ("size", self.size_real),
                ("latency", self.latency_real),
                ("accuracy", self.accuracy_real),
            )
            if is_real
        ]
        listed = ", ".join(real[:-1]) + (" and " if len(real) > 1 else "") + real[-1] if real else "nothing"
        return f"{listed} real; {self.note}"


_FP32 = Capability(size_real=True, latency_real=True, accuracy_real=True, note="float throughout")
_FP16 = Capability(
    size_real=True,
    latency_real=False,
    accuracy_real=True,
    note="weights are made float when the model is loaded: the latency of fp32",
    as_fast_as="fp32",
)
_W8A16 = Capability(
    size_real=True,
    latency_real=True,
    accuracy_real=True,
    note="kernels of 16-bit activations are plain loops: slower than fp32",
)
_W8A8 = Capability(size_real=True, latency_real=True, accuracy_real=True, note="integer throughout")
_W4A8 = Capability(
    size_real=True,
    latency_real=True,
    accuracy_real=True,
    note="4-bit convolutions are unpacked at each invocation: slower than w8a8; fully connected ones are not",
)
_W4A8_OLD = Capability(
    size_real=True,
    latency_real=True,
    accuracy_real=True,
    note="4-bit convolutions are unpacked at each invocation: no faster than w8a8; fully connected ones are refused",
)
CAPABILITIES: Mapping[str, Mapping[str, Capability]] = {
    "litert": {"fp32": _FP32, "fp16": _FP16, "w8a16": _W8A16, "w8a8": _W8A8, "w4a8": _W4A8},
    "tflite-runtime": {"fp32": _FP32, "fp16": _FP16, "w8a16": _W8A16, "w8a8": _W8A8, "w4a8": _W4A8_OLD},
    "tvm": {"fp32": _FP32, "w8a8": _W8A8},
}
"""By engine and by the bits of a rung (`Lightening.base`); a rung that is absent has no builder for the engine."""
NO_FOUR_BIT_LINEAR: frozenset[str] = frozenset({"tflite-runtime"})

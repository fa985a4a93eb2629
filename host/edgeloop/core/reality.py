"""What of a rung is real on an engine: its size, its latency, its accuracy; and which rungs an engine can't run.

Found by building networks of four families under every rung and running each file in both engines
(`python tests/bench/bench_rungs.py` prints the table again). A rung whose latency is another one's is no answer
where a latency limit failed, and one that an engine refuses is left out of the search.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeloop.core.lightening import Lightening
from edgeloop.core.network import Engine, NetworkSizes


@dataclass(frozen=True, slots=True)
class Reality:
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
    def told(self) -> str:
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


_FP32 = Reality(size_real=True, latency_real=True, accuracy_real=True, note="float throughout")
_FP16 = Reality(
    size_real=True,
    latency_real=False,
    accuracy_real=True,
    note="weights are made float when the model is loaded: the latency of fp32",
    as_fast_as="fp32",
)
_W8A16 = Reality(
    size_real=True,
    latency_real=True,
    accuracy_real=True,
    note="kernels of 16-bit activations are plain loops: slower than fp32",
)
_W8A8 = Reality(size_real=True, latency_real=True, accuracy_real=True, note="integer throughout")
_W4A8 = Reality(
    size_real=True,
    latency_real=True,
    accuracy_real=True,
    note="4-bit convolutions are unpacked at each invocation: slower than w8a8; fully connected ones are not",
)
_W4A8_OLD = Reality(
    size_real=True,
    latency_real=True,
    accuracy_real=True,
    note="4-bit convolutions are unpacked at each invocation: no faster than w8a8; fully connected ones are refused",
)
_REALITIES: Mapping[Engine, Mapping[str, Reality]] = {
    "litert": {"fp32": _FP32, "fp16": _FP16, "w8a16": _W8A16, "w8a8": _W8A8, "w4a8": _W4A8},
    "tflite-runtime": {"fp32": _FP32, "fp16": _FP16, "w8a16": _W8A16, "w8a8": _W8A8, "w4a8": _W4A8_OLD},
    "tvm": {"fp32": _FP32, "w8a8": _W8A8},
}
_NO_FOUR_BIT_LINEAR: frozenset[Engine] = frozenset({"tflite-runtime"})


def reality(engine: Engine, lightening: Lightening) -> Reality:
    """Return what is real of a rung on an engine. Shares and pruning change nothing of it: fewer channels are fewer."""
    return _REALITIES[engine][lightening.base]


def builds(engine: Engine, lightening: Lightening) -> bool:
    """Whether there is a builder of a rung for an engine."""
    return lightening.base in _REALITIES[engine]


def refusal(engine: Engine, lightening: Lightening, sizes: NetworkSizes) -> str | None:
    """Say why an engine can't run a network under a rung; None where it can.

    Which layers of a mixed rung take 4 bit is not known before it is trained, so that any of them may.
    """
    if not builds(engine, lightening):
        return f"for {engine} only {', '.join(_REALITIES[engine])} is built"
    if engine not in _NO_FOUR_BIT_LINEAR or lightening.weight_bits >= 8:
        return None
    hidden = [layer.name for place, layer in enumerate(sizes.layers) if layer.linear and not sizes.is_edge(place)]
    if not hidden:
        return None
    return f"{engine} has no 4-bit kernel for the fully connected layer {hidden[0]}"


def answers_latency(engine: Engine, failed: Lightening, answer: Lightening) -> bool:
    """Whether a rung may be asked since another one was too slow: not where its latency is that one's by nature."""
    slow, asked = reality(engine, failed), reality(engine, answer)
    same = (slow.as_fast_as or failed.base) == (asked.as_fast_as or answer.base)
    return asked.latency_real or not same or answer.pruned_pct != failed.pruned_pct

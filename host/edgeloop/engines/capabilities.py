"""The capability of an engine under a rung: whether size, latency and accuracy are real.

Found by building networks of four families under every rung and running each file in every engine
(`python tests/bench/bench_rungs.py` prints the table again). A rung whose latency is another one's is no answer
where a latency limit failed. Each engine's own are in its row (`engines.registry`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capability:
    """The properties of a rung that a measurement on one engine is about."""

    size_real: bool
    """The file holds the weights in these bits."""
    latency_real: bool
    """The engine computes with these bits; False: it takes as long as `as_fast_as`."""
    accuracy_real: bool
    """The engine's outputs are those of these bits."""
    note: str
    as_fast_as: str | None = None
    """The rung whose latency this one has."""
    runs_linear: bool = True
    """The engine has kernels of these bits for fully connected layers; without them it refuses the network."""

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
        names = ", ".join(real[:-1]) + (" and " if len(real) > 1 else "") + real[-1] if real else "nothing"
        return f"{names} real; {self.note}"

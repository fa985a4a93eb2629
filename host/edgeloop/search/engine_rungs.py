"""What the rungs of the ladder are on an engine: which it can run, and which of them answer a latency limit."""

from __future__ import annotations

from edgeloop.core.lightening import Lightening
from edgeloop.core.network import Engine, NetworkSizes
from edgeloop.engines.capabilities import CAPABILITIES, NO_FOUR_BIT_LINEAR, Capability


def capability(engine: Engine, lightening: Lightening) -> Capability:
    """Return what is real of a rung on an engine. Shares and pruning change nothing of it: fewer channels are fewer."""
    return CAPABILITIES[engine][lightening.base]


def builds(engine: Engine, lightening: Lightening) -> bool:
    """Whether there is a builder of a rung for an engine."""
    return lightening.base in CAPABILITIES[engine]


def refusal(engine: Engine, lightening: Lightening, sizes: NetworkSizes) -> str | None:
    """Say why an engine can't run a network under a rung; None where it can.

    Which layers of a mixed rung take 4 bit is not known before it is trained, so that any of them may.
    """
    if not builds(engine, lightening):
        return f"for {engine} only {', '.join(CAPABILITIES[engine])} is built"
    if engine not in NO_FOUR_BIT_LINEAR or lightening.weight_bits >= 8:
        return None
    hidden = [layer.name for place, layer in enumerate(sizes.layers) if layer.linear and not sizes.is_edge(place)]
    if not hidden:
        return None
    return f"{engine} has no 4-bit kernel for the fully connected layer {hidden[0]}"


def answers_latency(engine: Engine, failed: Lightening, answer: Lightening) -> bool:
    """Whether a rung may be asked since another one was too slow: not where its latency is that one's by nature."""
    slow, asked = capability(engine, failed), capability(engine, answer)
    same = (slow.as_fast_as or failed.base) == (asked.as_fast_as or answer.base)
    return asked.latency_real or not same or answer.pruned_pct != failed.pruned_pct

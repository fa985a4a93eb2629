"""The rungs of the ladder on an engine: those that it can run, and those of them that answer a latency limit."""

from __future__ import annotations

from edgeloop.core.lightening import Lightening
from edgeloop.core.network import Engine, NetworkSizes
from edgeloop.engines.capabilities import Capability
from edgeloop.engines.registry import ENGINES


def capability(engine: Engine, lightening: Lightening) -> Capability:
    """Return what is real of a rung on an engine. Shares and pruning change nothing of it: fewer channels are fewer."""
    return ENGINES[engine].rungs[lightening.base]


def builds(engine: Engine, lightening: Lightening) -> bool:
    """Return True where there is a builder of a rung for an engine."""
    return lightening.base in ENGINES[engine].rungs


def refusal(engine: Engine, lightening: Lightening, sizes: NetworkSizes) -> str | None:
    """Say why an engine can't run a network under a rung; None where it can.

    Which layers of a mixed rung take its lower bits is not known before it is trained, so that any of them may.
    """
    if not builds(engine, lightening):
        return f"for {engine} only {', '.join(ENGINES[engine].rungs)} is built"
    if capability(engine, lightening).runs_linear:
        return None
    hidden = [layer.name for place, layer in enumerate(sizes.layers) if layer.linear and not sizes.is_edge(place)]
    if not hidden:
        return None
    return f"{engine} has no {lightening.weight_bits}-bit kernel for the fully connected layer {hidden[0]}"


def answers_latency(engine: Engine, failure: Lightening, answer: Lightening) -> bool:
    """Return True where a rung may be asked since another one was too slow: its latency is not that one's by nature."""
    slow, fast = capability(engine, failure), capability(engine, answer)
    same = (slow.as_fast_as or failure.base) == (fast.as_fast_as or answer.base)
    return fast.latency_real or not same or answer.pruned_pct != failure.pruned_pct

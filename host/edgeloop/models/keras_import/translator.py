"""Reads a Keras model by following what it does: the operations that Keras recorded between symbolic tensors.

A layer or function that is not in the tables of keras_layers and is the user's own is called with symbolic tensors in
turn, so that what it is made of is seen; what is Keras's own and not in the tables is refused by its name.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from edgeloop.errors import UserError
from edgeloop.models.keras_graph import KerasValue, TorchGraph
from edgeloop.models.keras_layers import ACTIVATIONS, LAYERS

NEXT = "docs/reference/networks-and-data.md lists the layers that are known"


class Translator:
    """Reads one Keras model into a `TorchGraph`. `source` is the factory, for messages."""

    def __init__(self, source: str) -> None:
        self.graph = TorchGraph()
        self.source = source

    def run(self, called: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call `called` with a symbolic tensor for each value among its arguments; return values in its results' order.

        The structure of the results (tensor, list, dictionary) is kept.
        """
        values = [leaf for leaf in keras.tree.flatten((args, dict(kwargs))) if isinstance(leaf, KerasValue)]
        symbols = {id(value): keras.KerasTensor((None, *value.shape), value.dtype) for value in values}
        symbolic_args, symbolic_kwargs = keras.tree.map_structure(
            lambda leaf: symbols[id(leaf)] if isinstance(leaf, KerasValue) else leaf, (tuple(args), dict(kwargs))
        )
        with _mode(called, symbolic_kwargs):
            results = called(*symbolic_args, **symbolic_kwargs)
        found: dict[int, KerasValue] = {id(symbols[id(value)]): value for value in values}
        strange = [leaf for leaf in keras.tree.flatten(results) if not isinstance(leaf, keras.KerasTensor)]
        if strange:
            raise self.error(f"{_name_of(called)} returns a {type(strange[0]).__name__}")
        if any(id(leaf) not in found for leaf in keras.tree.flatten(results)):
            for node in _recorded(list(symbols.values()), results):
                if all(id(tensor) in found for tensor in node.input_tensors):
                    self._translate(node, found)
        return keras.tree.map_structure(lambda leaf: found[id(leaf)], results)

    def error(self, what: str, next_step: str = NEXT) -> UserError:
        return UserError(f"{self.source}: {what}", next_step=next_step)

    def refused(self, layer: Any, why: str, next_step: str = NEXT) -> UserError:
        return self.error(f"the layer {layer.name} ({type(layer).__name__}) {why}", next_step)

    def activated(self, value: KerasValue, layer: Any, activation: Any) -> KerasValue:
        """Apply a layer's activation: one of Keras's functions, a layer, or a function of the user's own."""
        known = ACTIVATIONS.get(getattr(activation, "__name__", "")) if _is_kerass(activation) else None
        if known is not None:
            return known(self.graph, value)
        result = self.run(activation, (value,), {})
        if not isinstance(result, KerasValue):
            raise self.refused(layer, "has an activation that returns more than one tensor")
        return result

    def _translate(self, node: Any, found: dict[int, KerasValue]) -> None:
        layer = node.operation
        args, kwargs = node.arguments.fill_in(found)
        if any(None in tensor.shape[1:] for tensor in node.outputs):
            raise self.refused(layer, "gives a shape that is not known before it runs")
        known = LAYERS.get(type(layer).__name__) if _is_kerass(type(layer)) else None
        if known is not None:
            self._check(layer, kwargs)
            results: Any = known(self, layer, args, kwargs, tuple(node.outputs[0].shape[1:]))
        elif _is_kerass(type(layer)) and not isinstance(layer, keras.Model | keras.layers.Lambda):
            raise self.refused(layer, "is not known here")
        else:
            results = self.run(layer.call, args, {k: v for k, v in kwargs.items() if k != "mask" or v is not None})
        for tensor, value in zip(node.outputs, keras.tree.flatten(results), strict=True):
            found[id(tensor)] = value

    def _check(self, layer: Any, kwargs: Mapping[str, Any]) -> None:
        if getattr(layer, "data_format", "channels_last") not in {"channels_last", None}:
            raise self.refused(layer, "is channels_first; data are channel-last", 'set data_format="channels_last"')
        if getattr(layer, "compute_dtype", "float32") != "float32" and not isinstance(layer, keras.layers.InputLayer):
            raise self.refused(layer, f"computes in {layer.compute_dtype}", "build it in float32; rungs lighten it")
        constrained = [
            name for name in vars(layer) if name.endswith("_constraint") and getattr(layer, name) is not None
        ]
        if constrained:
            raise self.refused(layer, f"has a {constrained[0]}, which training here would not keep", "leave it out")
        if kwargs.get("mask") is not None:
            raise self.refused(layer, "is masked")
        if kwargs.get("training"):
            raise self.refused(layer, "is called with training=True", "leave training out: it follows the loop's mode")


def _is_kerass(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).startswith("keras.")


def _name_of(called: Any) -> str:
    owner = getattr(called, "__self__", called)
    return str(getattr(owner, "name", getattr(owner, "__name__", type(owner).__name__)))


def _recorded(inputs: Sequence[Any], results: Any) -> list[Any]:
    """The calls that Keras recorded between tensors, in an order in which they can be done."""
    by_depth = keras.Function(list(inputs), results)._nodes_by_depth  # noqa: SLF001 -- no public way to the calls
    nodes = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    return [node for node in nodes if node.operation is not None and not node.is_input]


class _Following:
    """The `training` that layers are called with while they are read: neither True nor the user's own False.

    Layers that are reached with it follow the loop's mode. It counts as False wherever code asks.
    """

    def __bool__(self) -> bool:
        return False


_FOLLOWING = _Following()


@contextlib.contextmanager
def _mode(called: Any, kwargs: dict[str, Any]) -> Iterator[None]:
    """Hand `training` on, as Keras does: by the argument where there is one, else by the context of the call."""
    layer = getattr(called, "__self__", called)
    if not isinstance(layer, keras.layers.Layer):
        yield
        return
    given = kwargs.pop("training", None)
    training = _FOLLOWING if given is None else given
    if "training" in inspect.signature(called).parameters:
        kwargs["training"] = training
    layer._get_call_context().set_value("training", training)  # noqa: SLF001 -- call alone, unlike __call__, has none
    try:
        yield
    finally:
        layer._maybe_reset_call_context()  # noqa: SLF001

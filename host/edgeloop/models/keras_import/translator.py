"""Reads a Keras model by following what it does: the operations that Keras recorded between symbolic tensors.

A layer or function that is not in the table of `layers` and is the user's own is called with symbolic tensors in
turn, so that its own calls are seen. One that is Keras's own and not in the table is refused by its name.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from edgeloop.errors import UserError
from edgeloop.models.keras_import.call import KNOWN_LAYERS_STEP, LayerCall, refusal_of
from edgeloop.models.keras_import.graph import KerasValue, TorchGraph
from edgeloop.models.keras_import.layers import LAYERS
from edgeloop.models.keras_import.plain_layers import ACTIVATIONS


class Translator:
    """Reads one Keras model into a `TorchGraph`; it is the `Translation` of each of its calls.

    `source` is the factory, for messages.
    """

    def __init__(self, source: str) -> None:
        self.graph = TorchGraph()
        self.source = source

    def run(self, function: Callable[..., Any], args: Sequence[object], kwargs: Mapping[str, object]) -> Any:
        """Call a function with a symbolic tensor for each value among its arguments, and translate its calls.

        Return values in the structure of its results (tensor, list, dictionary).
        """
        values = [leaf for leaf in keras.tree.flatten((args, dict(kwargs))) if isinstance(leaf, KerasValue)]
        symbols = {id(value): keras.KerasTensor((None, *value.shape), value.dtype) for value in values}
        symbolic_args, symbolic_kwargs = keras.tree.map_structure(
            lambda leaf: symbols[id(leaf)] if isinstance(leaf, KerasValue) else leaf, (tuple(args), dict(kwargs))
        )
        with _mode(function, symbolic_kwargs):
            results = function(*symbolic_args, **symbolic_kwargs)
        by_symbol: dict[int, KerasValue] = {id(symbols[id(value)]): value for value in values}
        strange = [leaf for leaf in keras.tree.flatten(results) if not isinstance(leaf, keras.KerasTensor)]
        if strange:
            raise self.error(f"{_name_of(function)} returns a {type(strange[0]).__name__}")
        if any(id(leaf) not in by_symbol for leaf in keras.tree.flatten(results)):
            for node in _calls_between(list(symbols.values()), results):
                if all(id(tensor) in by_symbol for tensor in node.input_tensors):
                    self._translate(node, by_symbol)
        return keras.tree.map_structure(lambda leaf: by_symbol[id(leaf)], results)

    def error(self, what: str, next_step: str = KNOWN_LAYERS_STEP) -> UserError:
        return UserError(f"{self.source}: {what}", next_step=next_step)

    def activate(self, value: KerasValue, layer: keras.Layer, activation: Callable[..., object]) -> KerasValue:
        """Apply a layer's activation: one of Keras's functions, a layer, or a function of the user's own."""
        of_keras = ACTIVATIONS.get(getattr(activation, "__name__", "")) if _is_kerass(activation) else None
        if of_keras is not None:
            return of_keras(self.graph, value)
        result = self.run(activation, (value,), {})
        if not isinstance(result, KerasValue):
            raise self._refusal(layer, "has an activation that returns more than one tensor")
        return result

    def _refusal(self, layer: keras.Layer, why: str, next_step: str = KNOWN_LAYERS_STEP) -> UserError:
        return self.error(refusal_of(layer, why), next_step)

    def _translate(self, node: Any, by_symbol: dict[int, KerasValue]) -> None:
        """Translate one call, a node of Keras's own graph, which has no types."""
        layer = node.operation
        args, kwargs = node.arguments.fill_in(by_symbol)
        if any(None in tensor.shape[1:] for tensor in node.outputs):
            raise self._refusal(layer, "gives a shape that is not known before it runs")
        translation = LAYERS.get(type(layer).__name__) if _is_kerass(type(layer)) else None
        if translation is not None:
            self._check(layer, kwargs)
            results: Any = translation(LayerCall(self, layer, args, kwargs, tuple(node.outputs[0].shape[1:])))
        elif _is_kerass(type(layer)) and not isinstance(layer, keras.Model | keras.layers.Lambda):
            raise self._refusal(layer, "is not known here")
        else:
            results = self.run(layer.call, args, {k: v for k, v in kwargs.items() if k != "mask" or v is not None})
        for tensor, value in zip(node.outputs, keras.tree.flatten(results), strict=True):
            by_symbol[id(tensor)] = value

    def _check(self, layer: keras.Layer, kwargs: Mapping[str, object]) -> None:
        if getattr(layer, "data_format", "channels_last") not in {"channels_last", None}:
            raise self._refusal(layer, "is channels_first; data are channel-last", 'set data_format="channels_last"')
        if getattr(layer, "compute_dtype", "float32") != "float32" and not isinstance(layer, keras.layers.InputLayer):
            raise self._refusal(layer, f"computes in {layer.compute_dtype}", "build it in float32; rungs lighten it")
        constraints = [
            name for name in vars(layer) if name.endswith("_constraint") and getattr(layer, name) is not None
        ]
        if constraints:
            raise self._refusal(layer, f"has a {constraints[0]}, which training here would not keep", "leave it out")
        if kwargs.get("mask") is not None:
            raise self._refusal(layer, "is masked")
        if kwargs.get("training"):
            raise self._refusal(layer, "is called with training=True", "leave training out: it follows the loop's mode")


def _is_kerass(thing: object) -> bool:
    return str(getattr(thing, "__module__", "")).startswith("keras.")


def _name_of(function: Callable[..., object]) -> str:
    owner = getattr(function, "__self__", function)
    return str(getattr(owner, "name", getattr(owner, "__name__", type(owner).__name__)))


def _calls_between(inputs: Sequence[keras.KerasTensor], results: Any) -> list[Any]:
    """The nodes that Keras recorded between tensors, in an order in which they can be computed."""
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
def _mode(function: Callable[..., object], kwargs: dict[str, object]) -> Iterator[None]:
    """Hand `training` on, as Keras does: by the argument where there is one, else by the context of the call."""
    layer = getattr(function, "__self__", function)
    if not isinstance(layer, keras.layers.Layer):
        yield
        return
    training = kwargs.pop("training", None)
    if training is None:
        training = _FOLLOWING
    if "training" in inspect.signature(function).parameters:
        kwargs["training"] = training
    layer._get_call_context().set_value("training", training)  # noqa: SLF001 -- call alone, unlike __call__, has none
    try:
        yield
    finally:
        layer._maybe_reset_call_context()  # noqa: SLF001

"""One call of a Keras layer or operation, as the functions that translate it see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import torch

from edgeloop.errors import UserError
from edgeloop.models.keras_import.graph import KerasValue, TorchGraph

KNOWN_LAYERS_STEP = "docs/reference/networks-and-data.md lists the layers that are known"


class Translation(Protocol):
    """The model that is being read."""

    @property
    def graph(self) -> TorchGraph: ...

    def error(self, what: str, next_step: str = KNOWN_LAYERS_STEP) -> UserError:
        """Return the error that says what of the model can't be read."""
        ...

    def activate(self, value: KerasValue, layer: keras.Layer, activation: Callable[..., object]) -> KerasValue:
        """Apply a layer's activation: one of Keras's functions, a layer, or a function of the user's own."""
        ...


@dataclass(frozen=True, slots=True)
class LayerCall:
    """A layer or operation, the arguments that it is called with, and the shape of its result."""

    translation: Translation
    layer: Any
    """keras.Layer or keras.Operation; neither has types for what its subclasses hold."""
    args: tuple[Any, ...]
    """Values, numbers, variables, and tuples or lists of them."""
    kwargs: Mapping[str, Any]
    shape: tuple[int, ...]
    """Channel-last, without the batch."""

    @property
    def graph(self) -> TorchGraph:
        return self.translation.graph

    @property
    def value(self) -> KerasValue:
        """The first argument, of a layer that takes one tensor."""
        value: KerasValue = self.args[0]
        return value

    @property
    def is_of_list(self) -> bool:
        """True for a layer's list of tensors, False for the two arguments of an operation."""
        return len(self.args) == 1 and isinstance(self.args[0], tuple | list)

    def activate(self, value: KerasValue) -> KerasValue:
        """Apply the layer's own activation."""
        return self.translation.activate(value, self.layer, self.layer.activation)

    def refusal(self, why: str, next_step: str = KNOWN_LAYERS_STEP) -> UserError:
        """Return the error that names the layer and says why it can't be read."""
        return self.translation.error(refusal_of(self.layer, why), next_step)


LayerTranslation = Callable[[LayerCall], KerasValue]
"""Adds to the graph what a layer or operation computes, and returns its result."""


def refusal_of(layer: keras.Layer, why: str) -> str:
    """The sentence that names a layer that can't be read."""
    return f"the layer {layer.name} ({type(layer).__name__}) {why}"


def tensor_of(variable: object) -> torch.Tensor:
    """A Keras variable's value, or an array of numbers, on the processor, float32."""
    value = variable.value if isinstance(variable, keras.Variable) else variable
    return torch.as_tensor(value, dtype=torch.float32, device="cpu").detach().clone()

"""From a network's specification and the data's shapes to a torch module that speaks channel-last."""

from __future__ import annotations

import contextlib
import difflib
import pickle
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from edgeloop.core.network import NetworkIO, NetworkSpec
from edgeloop.errors import UserError
from edgeloop.models.channel_last import BuiltNetwork, ChannelLast, adapt
from edgeloop.models.conv1d import Conv1d
from edgeloop.models.dense import Autoencoder, Mlp
from edgeloop.models.ds_cnn import DsCnn
from edgeloop.models.keras_import.network import is_keras, seed_all, translate_model
from edgeloop.models.keras_import.without_tensorflow import without_tensorflow
from edgeloop.models.resnet import ResNet
from edgeloop.user_code.functions import call_function, load_function

if TYPE_CHECKING:
    import keras

_FAMILIES: dict[str, tuple[Callable[[float, int, NetworkIO, int], nn.Module], bool]] = {
    "ds_cnn": (DsCnn, True),
    "resnet": (ResNet, True),
    "conv1d": (Conv1d, False),
    "mlp": (Mlp, False),
    "autoencoder": (Autoencoder, False),
}
"""Family: its class, and True where its inputs are channel-first. Outputs come in the data's own layout."""


def build_network(spec: NetworkSpec, io: NetworkIO, channel_multiple: int) -> BuiltNetwork:
    """Build the network, seeded by `spec.seed`, in training mode, with `spec.weights` where there are any.

    `forward(*inputs)` takes float32 or integer tensors (batch, ...), channel-last, in the order of
    `signature.inputs`, and returns a tuple of tensors, channel-last, in the order of `signature.outputs`; for
    torch.export, the dynamic shapes of n inputs are `((shape_1, ..., shape_n),)`.
    Families round channels to a multiple of `channel_multiple`; a user's factory rounds as it likes.

    Raises UserError: an unknown family, a factory that fails or returns something else than a module, inputs or
    outputs that are not those of the data, weights of another network.
    """
    seed_all(spec.seed)
    if spec.family is not None:
        if spec.family not in _FAMILIES:
            close = difflib.get_close_matches(spec.family, _FAMILIES, n=1)
            raise UserError(
                f"unknown family {spec.family!r}",
                next_step=f"did you mean {close[0]!r}?" if close else f"families are {', '.join(_FAMILIES)}",
            )
        family, channel_first = _FAMILIES[spec.family]
        source = f"family {spec.family!r}"
        network = family(spec.width, spec.depth, io, channel_multiple)
        layout = ChannelLast(inputs=not channel_first, outputs=True)
    else:
        assert spec.factory is not None
        source = spec.factory
        with contextlib.redirect_stdout(sys.stderr), without_tensorflow(source):  # stdout belongs to results
            product = call_function(load_function(source), source, width=spec.width, depth=spec.depth)
            if is_keras(product):
                return _from_keras(product, spec, io, source)
        network = _torch_module(product, source)
        layout = ChannelLast(*[spec.layout == "channels_last"] * 2)
    if spec.weights is not None:
        _load_weights(network, Path(spec.weights), source)
    return adapt(network, io, layout, source)


def _from_keras(model: keras.Model, spec: NetworkSpec, io: NetworkIO, source: str) -> BuiltNetwork:
    if spec.layout == "channels_first":
        raise UserError(
            f"{source}: a Keras model is channel-last, reference.layout says channels_first",
            next_step="leave reference.layout out",
        )
    network = translate_model(model, io, source, Path(spec.weights) if spec.weights is not None else None)
    return adapt(network, io, ChannelLast(inputs=True, outputs=True), source)


def _torch_module(network: object, reference: str) -> nn.Module:
    if not isinstance(network, nn.Module):
        raise UserError(
            f"{reference}: returned a {type(network).__name__}, not a torch.nn.Module or a Keras model",
            next_step="write it as build(width: float, depth: int) -> torch.nn.Module",
        )
    return network


def _load_weights(network: nn.Module, path: Path, source: str) -> None:
    if not path.is_file():
        raise UserError(f"{path}: no such file", next_step="save it with torch.save(network.state_dict(), FILE)")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{path}: not a state dict, or cut short",
            next_step="save it with torch.save(network.state_dict(), FILE); a whole pickled network is not read",
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(
            f"{path}: not a state dict of tensors", next_step="save it with torch.save(network.state_dict(), FILE)"
        )
    own = network.state_dict()
    differences = [
        *(f"{key} is missing" for key in own if key not in state),
        *(f"{key} is not in the network" for key in state if key not in own),
        *(
            f"{key} is {tuple(state[key].shape)}, the network has {tuple(own[key].shape)}"
            for key in own
            if key in state and state[key].shape != own[key].shape
        ),
    ]
    if differences:
        more = f", and {len(differences) - 4} more" if len(differences) > 4 else ""
        raise UserError(
            f"{path}: weights of another network than {source}: {', '.join(differences[:4])}{more}",
            next_step="check width, depth and the factory that it was trained with",
        )
    network.load_state_dict(dict(state))

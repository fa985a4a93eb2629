"""A Keras model as a torch module: built for the data's shapes, its layers translated one by one, and compared.

From here on it is a network like any other: trained, pruned, widened, folded and quantized by the same code. What
Keras itself would do in `fit` (its optimizer, regularizers, callbacks) is not asked for. Why translated and not
wrapped: docs/decisions/0018.
"""

from __future__ import annotations

import inspect
import keyword
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.fx import Node

from edgeloop.core.network import NetworkIO, TensorShape
from edgeloop.errors import HarnessError, UserError, translated
from edgeloop.models.keras_import.graph import KerasValue

if TYPE_CHECKING:
    import keras

TOLERANCE = 1e-4
"""Of outputs, relative to the largest: float sums in another order differ by less."""
_WEIGHT_FILES = (".weights.h5", ".keras")


def seed_all(seed: int) -> None:
    """Seed what torch's and Keras's initializers draw from.

    Keras draws its seeds from Python's generator; its own set_random_seed would import tensorflow where that is there.
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 -- a factory's own code may draw from it
    torch.manual_seed(seed)


def is_keras(network: object) -> bool:
    """True for anything of Keras's, of whatever version."""
    modules = {base.__module__.partition(".")[0] for base in type(network).__mro__}
    return bool(modules & {"keras", "tf_keras"})


def translate_model(model: keras.Model, io: NetworkIO, source: str, weights: Path | None = None) -> nn.Module:
    """Return a Keras model as a torch module in training mode, channel-last outside. `source` names the factory.

    Forward's arguments have the names of the data's inputs. `weights` is a file of `model.save_weights`. A softmax at
    the end of a classification network is left out: what is trained and deployed gives logits.

    Raises UserError where the model is not Keras 3 on torch, can't be built for these data, or has a layer that is
    not known; HarnessError where the translation gives something else than the model.
    """
    _check_version(model, source)
    import keras

    from edgeloop.models.keras_import.translator import Translator

    translator = Translator(source)
    place = _placement(model, io, source)
    shapes = {tensor.name: tensor for tensor in io.inputs}
    with translated(
        UserError,
        f"{source}: the model can't be followed on the data's shapes",
        next_step="layers and keras.ops are followed through call; torch and numpy functions are not",
    ):
        # Called once as Keras calls it, so that its weights exist; then its calls are followed.
        args, kwargs = place({name: keras.KerasTensor((None, *t.shape), t.dtype) for name, t in shapes.items()})
        model(*args, **kwargs)
        if weights is not None:
            _load(model, weights)
        alone = len(shapes) == 1
        values = {name: translator.graph.input("x" if alone else name, t.shape, t.dtype) for name, t in shapes.items()}
        args, kwargs = place(values)
        results = translator.run(model.call, args, kwargs)
    ends_in_softmax: list[bool] = []

    def output(value: KerasValue) -> Node:
        softmax = io.kind == "classification" and value.node.target is torch.softmax
        if io.kind == "classification" and value.node.target is torch.sigmoid:
            raise UserError(
                f"{source}: the model ends in a sigmoid; a classifier gives one logit for each class",
                next_step="end it in Dense(classes), or in Dense(classes, activation='softmax')",
            )
        ends_in_softmax.append(softmax)
        if softmax:
            value = replace(value, node=value.node.all_input_nodes[0])
        return translator.graph.channel_last(value).node

    network = translator.graph.to_module(keras.tree.map_structure(output, results))
    _compare(network, model, place, list(shapes.values()), ends_in_softmax, source)
    return network.train()


def _check_version(model: object, source: str) -> None:
    keras = sys.modules.get("keras")
    if keras is None or int(keras.__version__.partition(".")[0]) < 3 or not isinstance(model, keras.Model):
        layer = keras is not None and isinstance(model, keras.layers.Layer)
        what = "a layer, not a model" if layer else "not a model of Keras 3"
        raise UserError(
            f"{source}: the {type(model).__name__} that it returns is {what}",
            next_step="return a keras.Model of Keras 3 (pip install 'edgeloop[keras]')",
        )
    backend = keras.config.backend()
    if backend != "torch":
        raise UserError(
            f"{source}: Keras runs on {backend} here, and networks are trained on torch",
            next_step="leave KERAS_BACKEND alone in the factory's file",
        )


_Place = Callable[[Mapping[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]
"""From tensors by the data's names to the arguments of a model's call."""


def _placement(model: keras.Model, io: NetworkIO, source: str) -> _Place:
    """Return the way in which a model takes the data's inputs. Raises UserError where their names are not its own."""
    import keras

    data = [tensor.name for tensor in io.inputs]
    strange = [name for name in data if not name.isidentifier() or keyword.iskeyword(name)]
    if len(data) > 1 and strange:
        raise UserError(
            f"{source}: the input {strange[0]} can't be the name of an argument",
            next_step="name it in the data with letters, digits and _ alone",
        )
    if isinstance(model, keras.Sequential):
        if len(data) == 1:
            return _alone(data[0])
        raise _other_inputs(source, ["one"], data)
    if getattr(model, "inputs", None):
        return _by_input(model, data, source)
    return _by_argument(model, data, source)


def _alone(name: str) -> _Place:
    return lambda tensors: ((tensors[name],), {})


def _by_input(model: keras.Model, data: Sequence[str], source: str) -> _Place:
    """The placement for a functional model: the names of its keras.Input, in their structure."""
    import keras

    names = [str(tensor.name) for tensor in model.inputs]
    if len(names) == len(data) == 1:
        names = list(data)
    if sorted(names) != sorted(data):
        raise _other_inputs(source, names, data)
    order = iter(names)
    structure = keras.tree.map_structure(lambda _: next(order), model.input)
    return lambda tensors: ((keras.tree.map_structure(lambda name: tensors[name], structure),), {})


def _by_argument(model: keras.Model, data: Sequence[str], source: str) -> _Place:
    """The placement for a subclassed model: the arguments of its call, or one that takes a dictionary."""
    parameters = [
        p
        for p in inspect.signature(model.call).parameters.values()
        if p.name not in {"training", "mask"} and p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}
    ]
    needs = [p.name for p in parameters if p.default is p.empty]
    if len(needs) == 1 and len(data) == 1:
        return _alone(data[0])
    if len(parameters) == 1:
        return lambda tensors: ((dict(tensors),), {})
    if not set(needs) <= set(data) <= {p.name for p in parameters}:
        raise _other_inputs(source, needs, data)
    return lambda tensors: ((), dict(tensors))


def _other_inputs(source: str, names: Sequence[str], data: Sequence[str]) -> UserError:
    return UserError(
        f"{source}: the model takes {', '.join(names)}, the data have the inputs {', '.join(data)}",
        next_step="give keras.Input, or the arguments of call, the names that follow x/ in the data",
    )


def _load(model: keras.Model, path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path}: no such file", next_step="save it with model.save_weights('m1.weights.h5')")
    if not path.name.endswith(_WEIGHT_FILES):
        raise UserError(
            f"{path}: weights of a Keras model end in {' or '.join(_WEIGHT_FILES)}",
            next_step="save them with model.save_weights('m1.weights.h5')",
        )
    with translated(
        UserError,
        f"{path}: not the weights of this model",
        next_step="check width, depth and the factory that it was trained with",
    ):
        model.load_weights(str(path))


def _compare(
    network: nn.Module,
    model: keras.Model,
    place: _Place,
    inputs: Sequence[TensorShape],
    ends_in_softmax: Sequence[bool],
    source: str,
) -> None:
    """Raise HarnessError where the translation gives something else than the model."""
    import keras

    draw = np.random.default_rng(0)
    samples = {
        tensor.name: draw.standard_normal((2, *tensor.shape)).astype(np.float32)
        if tensor.dtype == "float32"
        else np.zeros((2, *tensor.shape), tensor.dtype)
        for tensor in inputs
    }
    args, kwargs = place({name: keras.ops.convert_to_tensor(array) for name, array in samples.items()})
    network.eval()
    with torch.no_grad():
        theirs = keras.tree.flatten(model(*args, **kwargs))
        ours = keras.tree.flatten(network(*(torch.from_numpy(array) for array in samples.values())))
    for one, other, softmax in zip(ours, theirs, ends_in_softmax, strict=True):
        of_keras = other.detach().cpu()
        of_torch = torch.softmax(one, -1) if softmax else one
        apart = float((of_torch - of_keras).abs().max()) / max(1.0, float(of_keras.abs().max()))
        if of_torch.shape != of_keras.shape or not apart <= TOLERANCE:
            raise HarnessError(
                f"{source}: translated to torch, the model's outputs are {apart:.2g} off",
                next_step="report it with the factory; a layer of it is translated wrongly",
            )

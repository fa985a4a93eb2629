"""A Keras model is translated into a torch module that gives the same, trains like it, and is folded like any other."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from edgeloop.core.lightening import Lightening
from edgeloop.core.network import NetworkIO, NetworkSpec, TensorShape
from edgeloop.errors import ModelError, UserError
from edgeloop.models.build import build_network
from edgeloop.models.channel_last import BuiltNetwork
from edgeloop.models.describe import describe
from edgeloop.models.widen import widen
from edgeloop.training.fake_quantize import FakeQuantized
from edgeloop.training.graph import exported_graph, kind_of
from edgeloop.training.prune import prune
from edgeloop.training.quantizers import QuantizerPhase
from edgeloop.user_code.functions import load_function

pytestmark = [
    pytest.mark.train,
    pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="needs the extra keras"),
]

HEAD = """
import keras, numpy
from keras import layers, ops

made = []

def keep(model, randomized=False):
    if randomized:
        draw = numpy.random.default_rng(5)
        weights = model.get_weights()
        model.set_weights([w * draw.uniform(0.5, 1, w.shape) + draw.uniform(0, 0.1, w.shape) for w in weights])
    made.append(model)
    return model
"""
IO = NetworkIO(
    kind="classification",
    inputs=(TensorShape(name="x", shape=(9, 11, 2)),),
    outputs=(TensorShape(name="y", shape=(3,)),),
)

MODELS = {
    "all of the convolutions": """
def build(width, depth):
    x = image = keras.Input((9, 11, 2))
    x = layers.Conv2D(int(8 * width), 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU(max_value=6.0)(layers.BatchNormalization(momentum=0.5)(x))
    x = layers.DepthwiseConv2D((3, 2), depth_multiplier=2, padding="same")(x)
    x = layers.BatchNormalization(scale=False)(x)
    y = layers.SeparableConv2D(8, 3, padding="same", dilation_rate=2, activation="relu6")(x)
    x = layers.Add()([layers.Conv2D(8, 1, groups=2)(x), y])
    averaged = layers.AveragePooling2D(2, 2)(layers.ZeroPadding2D(((0, 1), (0, 0)))(x))
    x = layers.Concatenate()([layers.MaxPooling2D(2, padding="same")(x), averaged])
    x = layers.Dropout(0.5)(layers.Flatten()(x))
    x = layers.Activation("relu")(layers.BatchNormalization()(layers.Dense(12)(x)))
    return keep(keras.Model(image, layers.Dense(3, activation="softmax")(x)), True)
""",
    "a subclassed model": """
class Block(layers.Layer):
    def __init__(self, channels):
        super().__init__()
        self.conv = layers.Conv2D(channels, 3, padding="same")
        self.norm = layers.BatchNormalization()
        self.excite = layers.Dense(channels, activation="sigmoid")

    def call(self, x, training=False):
        y = ops.relu(self.norm(self.conv(x), training=training))
        share = self.excite(ops.mean(y, axis=(1, 2)))
        return x + y * ops.reshape(share, (-1, 1, 1, x.shape[-1]))

class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.stem = layers.Conv2D(8, 3, strides=2)
        self.blocks = [Block(8), Block(8)]
        self.pool, self.drop, self.head = layers.GlobalAveragePooling2D(), layers.Dropout(0.5), layers.Dense(3)
        self.scale = self.add_weight(shape=(8,), initializer="ones", name="scale")

    def call(self, x, training=False):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x, training=training)
        return self.drop(self.head(self.pool(x) * self.scale))

def build(width, depth):
    return keep(Net())
""",
    "an unbuilt Sequential with a nested model, a layer used twice and a Lambda": """
def build(width, depth):
    twice = layers.Dense(6, activation="tanh")
    inner = keras.Sequential([layers.Reshape((99, 2)), layers.Conv1D(6, 3, padding="causal"), layers.MaxPooling1D(2)])
    return keep(keras.Sequential([
        inner, twice, layers.Lambda(lambda x: ops.maximum(x, 0.1) * 0.5 - 1), twice, layers.Permute((2, 1)),
        layers.GlobalMaxPooling1D(), layers.Dense(3), layers.Softmax(),
    ]))
""",
}


def _spec(folder: Path, text: str, **given: Any) -> NetworkSpec:
    file = _file(folder, text)
    file.write_text(HEAD + text)
    return NetworkSpec(factory=f"{file}:build", seed=3, **given)


def _file(folder: Path, text: str) -> Path:
    """A name for each text, since a file is imported once."""
    return folder / f"net_{hashlib.sha256(text.encode()).hexdigest()[:8]}.py"


def _kept(folder: Path, text: str) -> Any:
    """Keras's own model, as the factory made it first."""
    return load_function(f"{_file(folder, text)}:made")[0]


def _made(folder: Path, text: str, io: NetworkIO = IO, **given: Any) -> BuiltNetwork:
    return build_network(_spec(folder, text, **given), io, 4)


def _refused(folder: Path, text: str, io: NetworkIO = IO, **given: Any) -> str:
    with pytest.raises(UserError) as caught:
        _made(folder, text, io, **given)
    line = f"{caught.value}; {caught.value.next_step}"
    assert "\n" not in line
    return line


def _samples(count: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 9, 11, 2, generator=torch.Generator().manual_seed(seed))


def _of_keras(model: Any, x: torch.Tensor, *, training: bool = False) -> torch.Tensor:
    with torch.no_grad():
        return torch.as_tensor(model(x, training=training)).cpu()


@pytest.mark.parametrize("text", MODELS.values(), ids=MODELS)
def test_outputs_are_the_keras_models_and_stay_so_when_folded(tmp_path: Path, text: str) -> None:
    built = _made(tmp_path, text).eval()
    model = _kept(tmp_path, text)
    x = _samples()
    ours = built(x)[0].detach()
    wanted = _of_keras(model, x)
    assert float(((ours.softmax(1) if "oftmax" in text else ours) - wanted).abs().max()) < 1e-5
    graph = exported_graph(built, [x])
    built.train()
    assert float((graph(x)[0] - ours).abs().max()) < 1e-5
    norms = [n.name for n in graph.graph.nodes if "batch_norm" in kind_of(n) or kind_of(n) in {"rsqrt", "matmul"}]
    assert norms == [], "batch norm is folded and a Dense layer is one linear layer"
    if "Dropout" in text:
        once, again = (built(x)[0] for _ in range(2))
        assert not torch.equal(once, again), "dropout is there in training"
    assert all(norm.training for norm in built.modules() if "BatchNorm" in type(norm).__name__)


@pytest.mark.parametrize(
    "step",
    [
        "layers.UpSampling2D(2)(x)",
        "layers.PReLU(shared_axes=[1, 2])(x)",
        "layers.LeakyReLU(0.1)(layers.ReLU(4.0)(x))",
        "layers.ELU()(layers.SpatialDropout2D(0.3)(x))",
        "layers.Rescaling(0.5, 1)(layers.Identity()(x))",
        "layers.Average()([x, layers.Maximum()([x, y]), layers.Minimum()([x, y])])",
        "layers.Multiply()([layers.Subtract()([x, y]), x])",
        "layers.MaxPooling2D(3, 2, padding='same')(x)",
        "layers.AveragePooling2D(3, 1, padding='same')(x)",
        "layers.SeparableConv1D(4, 3, padding='same')(layers.Reshape((99, 2))(x))",
        "layers.DepthwiseConv1D(3, strides=2)(layers.ZeroPadding1D(2)(layers.Reshape((99, 2))(x)))",
        "layers.AveragePooling1D(2)(layers.SpatialDropout1D(0.1)(layers.Reshape((99, 2))(x)))",
        "layers.BatchNormalization()(layers.Dense(4, activation='gelu')(x))",
        "layers.GlobalMaxPooling2D(keepdims=True)(x) * x",
        "ops.concatenate([ops.transpose(x, (0, 2, 1, 3)), ops.transpose(y, (0, 2, 1, 3))], axis=1)",
        "ops.squeeze(ops.expand_dims(x, 1), 1) / 2 - ops.sqrt(ops.square(y) + 1)",
        "ops.abs(ops.min(x, axis=-1, keepdims=True)) + ops.sum(y, axis=(1, 2), keepdims=True)",
        "ops.exp(-ops.max(x, axis=1)) * ops.cast(2, 'float32')",
        "layers.Activation('softplus')(ops.silu(ops.sigmoid(ops.tanh(ops.relu6(x)))))",
        "layers.Activation('hard_silu')(layers.Activation('hard_sigmoid')(layers.Softmax()(x)))",
    ],
)
def test_each_layer_that_the_reference_names_is_translated_and_compared(tmp_path: Path, step: str) -> None:
    """Building compares; a second, channel-first tensor meets whatever the step makes of it."""
    text = f"""
def build(width, depth):
    image = keras.Input((9, 11, 2))
    x, y = image, layers.Conv2D(2, 3, padding="same")(image)
    return keras.Model(image, layers.Dense(3)(layers.Flatten()({step})))
"""
    for turned in (text, text.replace("x, y = image, ", "y, x = image, ")):
        assert _made(tmp_path, turned).signature.outputs == ("y",)


def test_a_softmax_at_the_end_of_a_classifier_is_left_out_and_a_custom_tasks_stays(tmp_path: Path) -> None:
    text = "def build(width, depth): return keras.Sequential([layers.Flatten(), layers.Dense(3, activation='softmax')])"
    logits = _made(tmp_path, text).eval()(_samples())[0]
    shares = _made(tmp_path, text, IO.model_copy(update={"kind": "custom"})).eval()(_samples())[0]
    assert torch.allclose(logits.softmax(1), shares, atol=1e-6)


def test_training_moves_the_statistics_as_keras_does_and_drops_only_then(tmp_path: Path) -> None:
    text = """
def build(width, depth):
    return keep(keras.Sequential([
        keras.Input((9, 11, 2)), layers.Conv2D(4, 3), layers.BatchNormalization(momentum=0.8), layers.ReLU(),
        layers.GlobalAveragePooling2D(), layers.Dense(3), layers.Dropout(0.5),
    ]))
"""
    built = _made(tmp_path, text)
    model = _kept(tmp_path, text)
    x = _samples(16)
    assert bool((built.train()(x)[0] == 0).any()), "half of the outputs are dropped"
    _of_keras(model, x, training=True)
    norm = built.network.batch_normalization
    mean, variance = (torch.as_tensor(v.value).detach().cpu() for v in model.layers[1].non_trainable_variables)
    assert float(norm.running_mean.abs().max()) > 1e-3
    assert torch.allclose(norm.running_mean, mean, atol=1e-5)
    assert torch.allclose(norm.running_var, variance, rtol=1e-2), "torch's variance is the unbiased one"
    assert bool((built.train()(x)[0] == 0).any())
    once, again = (built.eval()(x)[0] for _ in range(2))
    assert torch.equal(once, again)
    assert not bool((once == 0).any())


def test_what_is_frozen_keeps_weights_and_statistics(tmp_path: Path) -> None:
    text = """
def build(width, depth):
    model = keras.Sequential([layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Flatten(), layers.Dense(3)])
    model.layers[0].trainable = model.layers[1].trainable = False
    return model
"""
    built = _made(tmp_path, text).train()
    before = {name: value.clone() for name, value in built.state_dict().items()}
    built(_samples())[0].square().sum().backward()
    assert [n for n, p in built.network.named_parameters() if p.requires_grad] == ["dense.weight", "dense.bias"]
    assert all(torch.equal(value, before[name]) for name, value in built.state_dict().items())


def test_gradients_reach_every_weight_through_fake_quantizers(tmp_path: Path) -> None:
    built = _made(tmp_path, MODELS["all of the convolutions"]).eval()
    fake = FakeQuantized(exported_graph(built, [_samples()]), Lightening.parse("w8a8"))
    fake.enter(QuantizerPhase.CALIBRATE)
    fake.module(_samples(32))
    fake.enter(QuantizerPhase.LEARN)
    fake.module(_samples())[0].square().sum().backward()
    weights = [p for name, p in fake.module.named_parameters() if "weight" in name]
    assert len(weights) == len(fake.layers) == 7
    assert all(p.grad is not None and bool(p.grad.abs().max() > 0) for p in weights)
    assert sum(layer.depthwise for layer in fake.layers) == 2


def test_sizes_follow_the_width_and_names_and_weights_are_the_same_at_each_build(tmp_path: Path) -> None:
    text = MODELS["all of the convolutions"]
    one, two = (_made(tmp_path, text).state_dict() for _ in range(2))
    assert list(one) == list(two)
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    sizes = [describe(_spec(tmp_path, text, width=width), IO, 4) for width in (1.0, 2.0)]
    assert sizes[0].parameters < sizes[1].parameters
    assert sizes[0].other_parameters == 0
    assert [layer.name for layer in sizes[0].layers][:2] == ["conv2d", "depthwise_conv2d"]


POOLED = """
def build(width, depth):
    x = image = keras.Input((9, 11, 2))
    for channels in (8, 8):
        x = layers.Conv2D(int(channels * width), 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    return keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
"""


def test_a_keras_network_is_pruned_and_widened_like_any_other(tmp_path: Path) -> None:
    small, wide = _made(tmp_path, POOLED), _made(tmp_path, POOLED, width=2.0)
    widen(small, wide, IO, seed=0, source="net.py:build")
    x = _samples()
    assert torch.allclose(small.eval()(x)[0], wide.eval()(x)[0], atol=1e-5)
    assert prune(small, [x], 50, 4).network.conv2d_1.weight.shape == (4, 4, 3, 3)


def test_pruning_through_a_flatten_in_kerass_order_is_refused_instead_of_taking_the_wrong_columns(
    tmp_path: Path,
) -> None:
    text = "def build(width, depth): return keras.Sequential([layers.Conv2D(8, 3), layers.Flatten(), layers.Dense(3)])"
    with pytest.raises(ModelError, match="which channel went where"):
        prune(_made(tmp_path, text), [_samples()], 50, 4)


def test_weights_of_keras_are_read_and_those_of_another_network_refused(tmp_path: Path) -> None:
    text = POOLED.replace("return keras.Model", "return keep(keras.Model").rstrip() + ", True)\n"
    built = _made(tmp_path, text)
    model = _kept(tmp_path, text)
    model.save_weights(str(tmp_path / "m1.weights.h5"))
    (tmp_path / "again").mkdir()
    file = str(tmp_path / "m1.weights.h5")
    again = _made(tmp_path / "again", POOLED, weights=file)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in built.state_dict().items())
    assert "not the weights of this model" in _refused(tmp_path / "again", POOLED, width=2.0, weights=file)
    assert "model.save_weights" in _refused(tmp_path / "again", POOLED, weights=str(_file(tmp_path, text)))


IMAGE = "def build(width, depth): return keras.Sequential([{layers}, layers.Flatten(), layers.Dense(3)])"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            IMAGE.format(layers="layers.LSTM(4)").replace("[layers.LSTM", "[layers.Reshape((99, 2)), layers.LSTM"),
            "LSTM",
        ),
        (IMAGE.format(layers="layers.LayerNormalization(name='ln')"), r"layer ln \(LayerNormalization\) is not known"),
        (IMAGE.format(layers="layers.Conv2D(2, 1, data_format='channels_first')"), "channels_first"),
        (IMAGE.format(layers="layers.Conv2D(2, 3, dtype='mixed_float16')"), "float16"),
        (IMAGE.format(layers="layers.Conv2D(2, 3, kernel_constraint='max_norm')"), "kernel_constraint"),
        (IMAGE.format(layers="layers.Lambda(lambda x: numpy.abs(x))"), "keras.ops are followed"),
        ("def build(width, depth): return keras.Sequential([layers.Flatten(), layers.Dense(4)])", "the shape"),
        (
            "def build(width, depth): return keras.Sequential([layers.Flatten(), layers.Dense(3, 'sigmoid')])",
            "a sigmoid",
        ),
        ("def build(width, depth): return layers.Dense(3)", "a layer, not a model"),
        ("def build(width, depth): return keras.Sequential([keras.Input((8, 8, 1)), layers.Dense(3)])", "8"),
        ("def build(width, depth):\n    from tensorflow import keras", "imports tensorflow"),
    ],
)
def test_what_cant_be_done_is_said_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    line = _refused(tmp_path, text)
    assert re.search(said, line), line


def test_a_layout_that_contradicts_keras_is_refused_and_the_right_one_taken(tmp_path: Path) -> None:
    assert "leave reference.layout out" in _refused(tmp_path, POOLED, layout="channels_first")
    assert _made(tmp_path, POOLED, layout="channels_last").signature.inputs == ("x",)


def test_several_inputs_and_outputs_go_by_name(tmp_path: Path) -> None:
    io = NetworkIO(
        kind="regression",
        inputs=(TensorShape(name="image", shape=(9, 11, 2)), TensorShape(name="words", shape=(5,), dtype="int32")),
        outputs=(TensorShape(name="a", shape=(1,)), TensorShape(name="b", shape=(9, 11, 4))),
    )
    text = """
def build(width, depth):
    words, image = keras.Input((5,), dtype="int32", name="words"), keras.Input((9, 11, 2), name="image")
    told = layers.Flatten()(layers.Embedding(7, 3)(words))
    seen = layers.Conv2D(4, 3, padding="same")(image)
    both = layers.Concatenate()([told, layers.GlobalAveragePooling2D()(seen)])
    return keras.Model([words, image], {"b": seen, "a": layers.Dense(1)(both)})
"""
    built = _made(tmp_path, text, io)
    assert sorted(built.signature.inputs) == ["image", "words"]
    given = {"image": torch.randn(2, 9, 11, 2), "words": torch.ones(2, 5, dtype=torch.int32)}
    results = dict(zip(built.signature.outputs, built(*(given[n] for n in built.signature.inputs)), strict=True))
    assert {name: tuple(value.shape) for name, value in results.items()} == {"a": (2, 1), "b": (2, 9, 11, 4)}
    assert "the model takes" in _refused(tmp_path, text.replace('name="words"', 'name="text"'), io)


BACKENDS = """
import sys
from edgeloop.core.network import NetworkIO, NetworkSpec, TensorShape
from edgeloop.errors import UserError
from edgeloop.models.build import build_network
io = NetworkIO(kind="classification", inputs=(TensorShape(name="x", shape=(4,)),),
               outputs=(TensorShape(name="y", shape=(3,)),))
sys.modules["keras"] = None if sys.argv[2] == "missing" else sys.modules.pop("keras", sys)
if sys.argv[2] != "missing":
    del sys.modules["keras"]
try:
    build_network(NetworkSpec(factory=sys.argv[1] + ":build"), io, 4)
    print("built", "tensorflow" in sys.modules)
except UserError as error:
    print(f"{type(error).__name__}: {error}; {error.next_step}")
"""


@pytest.mark.parametrize(
    ("head", "how", "said"),
    [
        ("", "installed", "built False"),
        ("", "missing", "MissingExtraError"),
        ("import os; os.environ['KERAS_BACKEND'] = 'numpy'", "installed", "runs on numpy"),
        ("import os; os.environ['KERAS_BACKEND'] = 'tensorflow'", "installed", "leave KERAS_BACKEND alone"),
    ],
)
def test_keras_comes_up_on_torch_whatever_the_environment_says(tmp_path: Path, head: str, how: str, said: str) -> None:
    text = "\nimport keras\ndef build(width, depth): return keras.Sequential([keras.layers.Dense(3)])\n"
    (tmp_path / "net.py").write_text(head + text)
    done = subprocess.run(
        [sys.executable, "-c", BACKENDS, str(tmp_path / "net.py"), how],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
    )
    assert said in done.stdout, done.stdout + done.stderr

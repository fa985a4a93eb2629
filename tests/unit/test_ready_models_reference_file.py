"""M1 as a file: what goes with it in a campaign, what of it is trained (nothing), and probabilities that teach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import make_artifact
from pydantic import ValidationError

from edgeloop.builders.tvm.versions import TvmTarget
from edgeloop.core.campaign import Campaign, Data, Reference, Task, Training
from edgeloop.core.lightening import LADDER, Lightening
from edgeloop.core.limits import LimitSet
from edgeloop.core.network import Candidate, NetworkSizes, NetworkSpec
from edgeloop.errors import ConfigError
from edgeloop.loop.training_phases import phases
from edgeloop.ports import TrainedNetwork, TrainingJob
from edgeloop.processes.limits import DEFAULT_LIMITS
from edgeloop.ready_models import reference_file
from edgeloop.ready_models.reference_file import ReferenceFileBuilder
from edgeloop.ready_models.reference_outputs import _are_probabilities, _logits
from edgeloop.search.size_model import predicted_bytes
from edgeloop.training.summary import write_trained

FILE = {"file": "/m/m1.keras", "family": "ds_cnn"}


@pytest.mark.parametrize(
    "reference",
    [
        FILE,
        {**FILE, "lightening": "dynamic"},
        {**FILE, "lightening": "w8a8", "width": 2.0, "engine": "tflite-runtime", "threads": 2},
        {"file": "/m/m1.tflite", "factory": "/m/net.py:build"},
        {"file": "/m/saved", "larger": ["/m/big.py:build"]},
        {"file": "/m/m1.onnx", "engine": "tvm", "family": "ds_cnn"},
    ],
)
def test_a_file_goes_with_whatever_says_where_m2_comes_from(reference: dict[str, Any]) -> None:
    assert Reference.model_validate(reference).file == reference["file"]


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ({"file": "/m/m1.keras"}, "name where M2 comes from"),
        ({**FILE, "factory": "/m/net.py:build"}, "name where M2 comes from"),
        ({**FILE, "larger": "widen"}, "'widen' starts from M1's own weights"),
        ({**FILE, "larger": "none"}, "'none' starts from M1's own weights"),
        ({**FILE, "weights": "/m/m1.pt"}, "a file has its own"),
        ({**FILE, "larger": ["/m/big.py:build"]}, "leave out family"),
        ({"file": "/m/saved", "width": 2.0, "larger": ["/m/big.py:build"]}, "leave out width"),
        ({**FILE, "file": "/m/m1.tflite", "lightening": "w8a8"}, "measured as it is"),
        ({**FILE, "file": "/m/m1.onnx"}, 'is compiled by TVM: say engine = "tvm"'),
        ({**FILE, "file": "/m/m1.onnx", "engine": "tvm", "lightening": "w8a8"}, "compiled in float"),
        ({**FILE, "engine": "tvm"}, "measured by litert or tflite-runtime"),
        ({**FILE, "lightening": "w8a8-p25"}, "with all its channels"),
        ({"family": "ds_cnn", "lightening": "dynamic"}, "is a form of a Keras file"),
        ({}, "one of family and factory, or a file"),
    ],
)
def test_what_does_not_go_with_a_file_is_said_in_one_line(reference: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Reference.model_validate(reference)
    (error,) = caught.value.errors()
    assert said in error["msg"]


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"teacher": "m1-distilled"}, "M2 is distilled into M1"),
        ({"teacher": "m1", "schedule": "qkd"}, "qkd trains the teacher too"),
    ],
)
def test_a_training_that_would_train_a_file_is_refused(training: dict[str, Any], said: str) -> None:
    plain = {"schema": 1, "name": "c", "targets": ["local"], "limits": LimitSet(), "reference": FILE}
    Campaign.model_validate(plain | {"training": {"teacher": "m2", "schedule": "qkd"}})
    with pytest.raises(ValidationError, match=said):
        Campaign.model_validate(plain | {"training": training})


def test_a_network_is_a_family_a_factory_or_a_file_and_a_file_goes_by_its_name() -> None:
    spec = NetworkSpec(file="/somewhere/m1.keras")
    assert str(Candidate(network=spec, lightening="dynamic")) == "m1.keras dynamic"
    with pytest.raises(ValidationError, match="one of the three"):
        NetworkSpec(file="/somewhere/m1.keras", family="ds_cnn")


def test_no_phase_trains_a_file_and_it_teaches_after_m2_is_trained() -> None:
    m1, m2 = NetworkSpec(file="/m/m1.keras"), NetworkSpec(family="ds_cnn", width=1.41)
    own = phases(Candidate(network=m1, lightening="w8a8"), m1, [], fine_tunes=False)
    assert [(phase.gives, str(phase)) for phase in own] == [("m1", "M1 as it is, run on the data")]
    taught = phases(Candidate(network=m2, lightening="w8a8", teacher="m1"), m1, [], fine_tunes=True)
    assert [phase.gives for phase in taught] == ["m2", "m1", "m3"]
    assert taught[-1].teacher == "m1"


def test_dynamic_is_a_form_of_a_file_and_no_rung() -> None:
    dynamic = Lightening.parse("dynamic")
    assert (dynamic.weight_bits, dynamic.activation_bits, dynamic.is_float) == (8, 32, True)
    assert dynamic not in LADDER
    assert Lightening.parse("fp16").height < dynamic.height < Lightening.parse("w8a16").height
    with pytest.raises(ValueError, match="files are not pruned"):
        Lightening.parse("dynamic-p25")
    plain = {"schema": 1, "name": "c", "targets": ["local"], "limits": LimitSet(), "reference": FILE}
    with pytest.raises(ValidationError, match="not a rung of the ladder"):
        Campaign.model_validate(plain | {"search": {"lightenings": ["w8a8", "dynamic"]}})


def test_dynamic_weighs_a_quarter_of_float_and_one_scale_for_each_channel() -> None:
    layer = {"name": "a", "weights": 9000, "bias": 10, "out_channels": 10, "depthwise": False}
    sizes = NetworkSizes.model_validate(
        {"parameters": 9010, "macs": 9000, "layers": [layer], "activations": [10], "peak_activation_elements": 10}
    )
    less = predicted_bytes(sizes, Lightening.parse("fp32")) - predicted_bytes(sizes, Lightening.parse("dynamic"))
    assert less == 9000 * 3 - 10 * 4


def test_probabilities_teach_by_their_logarithms_which_softmax_turns_back() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 10)).astype(np.float32) * 3
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert _are_probabilities({"y": softmax}, {"y": 0.0})
    assert not _are_probabilities({"y": logits}, {"y": 0.0})
    assert not _are_probabilities({"y": 1 / (1 + np.exp(-logits))}, {"y": 0.0}), "sigmoids do not sum to 1"
    again = np.exp(_logits({"y": softmax}, {"y": 0.0})["y"])
    np.testing.assert_allclose(again / again.sum(-1, keepdims=True), softmax, atol=1e-5)


def test_a_quantized_softmax_is_known_and_what_it_stores_as_zero_is_half_a_step() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(200, 100)).astype(np.float32) * 2
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    step = 1 / 256
    stored = (np.clip(np.rint(softmax / step), 0, 255) * step).astype(np.float32)
    assert _are_probabilities({"y": stored}, {"y": step})
    taught = _logits({"y": stored}, {"y": step})["y"]
    assert np.isfinite(taught).all()
    assert taught.min() == pytest.approx(np.log(step / 2))


def test_a_file_with_open_dimensions_is_given_to_no_delegate(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = make_artifact(path="/m/m1.tflite", sha256="0" * 64, deployed_bytes=1, resized=True)
    monkeypatch.setattr(reference_file, "open_reference_file", lambda *_: opened)
    monkeypatch.setattr(reference_file, "count_tflite", lambda _: (None, "fp32"))
    monkeypatch.setattr(reference_file, "network_io", lambda *_: None)
    reference = {**FILE, "file": "/m/m1.tflite"}
    plain = {"schema": 1, "name": "c", "targets": ["local"], "limits": LimitSet()}
    nothing: Any = None
    reference_file.check_reference_file(Campaign.model_validate(plain | {"reference": reference}), nothing)
    delegated = Campaign.model_validate(plain | {"reference": {**reference, "delegate": "coral"}})
    with pytest.raises(ConfigError, match=r"reference.delegate: /m/m1.tflite leaves dimensions open"):
        reference_file.check_reference_file(delegated, nothing)


@pytest.mark.parametrize(("file", "one_for_all"), [("/m/m1.onnx", False), ("/m/m1.tflite", True)])
def test_a_file_that_is_compiled_has_a_key_for_each_processor(file: str, one_for_all: bool, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the train extra")
    trained = TrainedNetwork(key="k", folder=str(tmp_path), seconds=1, epochs=0, validation={})
    parts: dict[str, Any] = {"task": Task(), "data": Data(), "data_sha256": "d", "recipe": Training()}
    write_trained(tmp_path, trained, TrainingJob(network=NetworkSpec(file=file), lightening="fp32", **parts), [])
    nothing: Any = None

    def key(mcpu: str) -> str:
        target = TvmTarget(machine="aarch64", mcpu=mcpu)
        return ReferenceFileBuilder(nothing, nothing, tmp_path, DEFAULT_LIMITS, lambda: target).key(trained, "fp32")

    assert (key("cortex-a72") == key("cortex-a53")) is one_for_all

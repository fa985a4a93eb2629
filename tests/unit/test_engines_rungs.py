"""What of a rung is real on an engine, and what an engine can't run."""

import pytest

from edgeloop.core.lightening import LADDER, Lightening
from edgeloop.core.network import Engine, LayerSize, NetworkSizes
from edgeloop.engines.registry import build_engines
from edgeloop.search.engine_rungs import answers_latency, builds, capability, refusal

RUNGS = [*LADDER, Lightening.parse("w8a8-p25"), Lightening.parse("w4a8:50-p50")]


def sizes(*layers: tuple[str, bool]) -> NetworkSizes:
    """Layers by name, and whether each is fully connected."""
    return NetworkSizes(
        parameters=1,
        macs=1,
        layers=tuple(
            LayerSize(name=name, weights=16, bias=4, out_channels=4, depthwise=False, linear=linear)
            for name, linear in layers
        ),
        activations=(4,),
        peak_activation_elements=4,
    )


@pytest.mark.parametrize("engine", build_engines())
def test_every_rung_says_what_is_real_on_every_engine(engine: Engine) -> None:
    for rung in (rung for rung in RUNGS if builds(engine, rung)):
        found = capability(engine, rung)
        assert found.summary.endswith(found.note)
        assert found.latency_real == (found.as_fast_as is None)


def test_a_rung_that_no_builder_makes_for_an_engine_is_refused_with_those_that_there_are() -> None:
    told = refusal("tvm", Lightening.parse("w4a8"), sizes(("a", False)))
    assert told == "for tvm only fp32, w8a8 is built"
    for name in ("fp32", "w8a8", "w8a8-p25"):
        assert refusal("tvm", Lightening.parse(name), sizes(("a", False))) is None


def test_half_floats_are_real_in_size_and_accuracy_and_as_fast_as_floats() -> None:
    fp16, fp32, w8a8 = map(Lightening.parse, ("fp16", "fp32", "w8a8"))
    found = capability("litert", fp16)
    assert (found.size_real, found.latency_real, found.accuracy_real) == (True, False, True)
    assert found.summary.startswith("size and accuracy real; ")
    assert not answers_latency("litert", failure=fp32, answer=fp16)
    assert answers_latency("litert", failure=fp32, answer=w8a8)
    assert answers_latency("litert", failure=w8a8, answer=fp16)
    assert answers_latency("litert", failure=fp32, answer=Lightening.parse("fp16-p25"))


def test_tflite_runtime_refuses_hidden_fully_connected_layers_of_4_bit() -> None:
    perceptron = sizes(("first", True), ("hidden", True), ("head", True))
    for name in ("w4a8", "w4a8:25", "w4a8-p25"):
        told = refusal("tflite-runtime", Lightening.parse(name), perceptron)
        assert told == "tflite-runtime has no 4-bit kernel for the fully connected layer hidden"
        assert refusal("litert", Lightening.parse(name), perceptron) is None
    assert refusal("tflite-runtime", Lightening.parse("w8a8"), perceptron) is None
    convolutions = sizes(("first", False), ("hidden", False), ("head", True))
    assert refusal("tflite-runtime", Lightening.parse("w4a8"), convolutions) is None

"""The worked example of a user's own network, and what the converter makes of our networks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgeloop.config.campaign_file import load_campaign, reference_network
from edgeloop.data import load, network_io
from edgeloop.models.build import build_network
from edgeloop.models.describe import describe

pytestmark = pytest.mark.train

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "own-network" / "campaign.toml"


def test_the_example_has_two_inputs_and_grows_with_width_and_depth() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 30
    campaign = load_campaign(EXAMPLE)
    data = load(campaign.data)
    io = network_io(data, campaign.task)
    reference = reference_network(campaign)
    signature = build_network(reference, io, 4).signature
    assert (signature.inputs, signature.outputs) == (("image", "metadata"), ("digit",))
    found = [describe(reference.in_size(width, depth), io, 4) for width, depth in ((1.0, 0), (1.41, 0), (1.41, 1))]
    assert [sizes.parameters for sizes in found] == sorted({sizes.parameters for sizes in found})
    assert [sizes.macs for sizes in found] == sorted({sizes.macs for sizes in found})
    assert all(sizes.other_parameters == 0 for sizes in found)


CONVERT = """
import litert_torch, sys, torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from edgeloop.core.network import NetworkIO, NetworkSpec, TensorShape
from edgeloop.models.build import build_network
for family, shape in (("ds_cnn", (28, 28, 1)), ("conv1d", (25, 12))):
    io = NetworkIO(kind="classification", outputs=(TensorShape(name="y", shape=(10,)),),
                   inputs=(TensorShape(name="x", shape=shape),))
    network = build_network(NetworkSpec(family=family), io, 4).eval()
    x = (torch.zeros(1, *shape),)
    litert_torch.convert(torch.export.export(network, x).module(), x).export(sys.argv[1])
    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    runtime = Interpreter(sys.argv[1], experimental_op_resolver_type=resolver)
    runtime.allocate_tensors()
    given = "x".join(str(n) for n in runtime.get_input_details()[0]["shape"])
    print("ops", family, given, *sorted({op["op_name"] for op in runtime._get_ops_details()}))
"""


def test_a_built_family_is_channel_last_without_a_transposition(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CONVERT, str(tmp_path / "model.tflite")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert [line for line in done.stdout.splitlines() if line.startswith("ops ")] == [
        "ops ds_cnn 1x28x28x1 CONV_2D DEPTHWISE_CONV_2D FULLY_CONNECTED MEAN PAD",
        "ops conv1d 1x25x12 CONV_2D FULLY_CONNECTED MEAN RESHAPE",
    ]

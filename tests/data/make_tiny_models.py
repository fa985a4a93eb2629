"""Makes the tiny .tflite files beside this script: `python tests/data/make_tiny_models.py` (needs torch, litert-torch).

tiny_float.tflite    x (1, 4, 4, 1) float32 -> (1, 3) float32
tiny_int8.tflite     the same network, w8a8, int8 input and output
tiny_two.tflite      left (1, 4), right (1, 2) float32 -> a linear layer of left, plus right (1, 2); left's mean (1, 1)
tiny_half.tflite     x (1, 8, 8, 1) float32 -> (1, 3) float32; weights float16, padding before a strided convolution
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import litert_torch
import numpy as np
import torch
from ai_edge_quantizer import qtyping, quantizer, recipe
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from torch import nn

HERE = Path(__file__).parent


class Tiny(nn.Module):
    """Convolution, ReLU, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 2, 3, padding=1)
        self.head = nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(torch.relu(self.convolution(x)).flatten(1))


class Strided(nn.Module):
    """A strided convolution, which the converter pads by itself, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(torch.relu(self.convolution(x)).mean((2, 3), keepdim=True).flatten(1))


class Two(nn.Module):
    """Two inputs of different shapes, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(4, 2)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> Any:
        return self.left(left) + right, left.mean(1, keepdim=True)


def main() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 4, 4, 1)
    network = litert_torch.to_channel_last_io(Tiny().eval(), args=[0])
    path = HERE / "tiny_float.tflite"
    litert_torch.convert(network, (image,)).export(str(path))
    two = HERE / "tiny_two.tflite"
    litert_torch.convert(Two().eval(), (torch.rand(1, 4), torch.rand(1, 2))).export(str(two))
    made = quantizer.Quantizer(str(path), recipe.static_wi8_ai8())
    samples = np.random.default_rng(0).random((16, 1, 4, 4, 1), np.float32)
    name = _inputs(path)[0]
    calibration = made.calibrate({"serving_default": [{name: sample} for sample in samples]})
    target = HERE / "tiny_int8.tflite"
    made.quantize(calibration).export_model(str(target), overwrite=True)
    target.chmod(0o644)
    strided = litert_torch.to_channel_last_io(Strided().eval(), args=[0])
    whole, half = HERE / "tiny_whole.tflite", HERE / "tiny_half.tflite"
    litert_torch.convert(strided, (torch.rand(1, 8, 8, 1),)).export(str(whole))
    halved = quantizer.Quantizer(str(whole))
    for name in (qtyping.TFLOperationName.CONV_2D, qtyping.TFLOperationName.FULLY_CONNECTED):
        halved.add_weight_only_config(".*", name, 16, algorithm_key=AlgorithmName.FLOAT_CASTING)
    halved.quantize().export_model(str(half), overwrite=True)
    half.chmod(0o644)
    whole.unlink()


def _inputs(path: Path) -> list[str]:
    from ai_edge_litert.interpreter import Interpreter

    return list(Interpreter(str(path)).get_signature_list()["serving_default"]["inputs"])


if __name__ == "__main__":
    main()

"""What each engine makes of each rung: `python tests/bench/bench_rungs.py`. The table behind `engines.capabilities`.

Builds four untrained networks under every rung, and two under 2-bit weights, and measures each file on this machine
through the agent, once with each engine, or with the engines that are named. Takes some minutes; needs the train and
tflite extras, and pip's way to the wheels that `targets provision` pushes.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from fit_bytes import built_file
from torch import nn

from edgeloop.core.lightening import LADDER
from edgeloop.core.network import NetworkIO, NetworkSpec, TensorShape

ENGINES = ("litert", "tflite-runtime")
NETWORKS = (
    ("ds_cnn", 2.0, 0, (28, 28, 1), 10),
    ("resnet", 1.0, 0, (32, 32, 3), 10),
    ("conv1d", 1.0, 1, (25, 12), 9),
    ("mlp", 2.0, 1, (64,), 10),
)
TWO_BIT = {
    "linear": (nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)), (1, 64), "FULLY_CONNECTED"),
    "convolution": (nn.Sequential(nn.Conv2d(4, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3)), (1, 4, 8, 8), "CONV_2D"),
}


def measured(model: Path, engine: str) -> str:
    """Median latency, or why there is none. This machine is a board whose runtimes are pushed."""
    board = 'schema = 1\nname = "here"\nextends = "local"\n[runtime]\nsource = "pushed"\n'
    (model.parent / "here.toml").write_text(board)
    words = ["measure", str(model), "--target", "here", "--engine", engine, "--profile", "quick", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "edgeloop", *words], capture_output=True, text=True, check=False, cwd=model.parent
    )
    try:
        return f"{json.loads(done.stdout)['latency_ns']['p50'] / 1e3:8.1f} us"
    except (ValueError, KeyError, TypeError):
        return (done.stderr.strip().splitlines() or ["nothing was said"])[-1][:160]


def two_bit(network: nn.Module, shape: tuple[int, ...], operator: str, *, static: bool) -> bytes:
    """Quantize with 2-bit weights, and activations of 8 bit or float. Raises ValueError where the quantizer won't."""
    import litert_torch
    from ai_edge_quantizer import qtyping, quantizer

    x = torch.randn(shape)
    tool = quantizer.Quantizer(bytearray(litert_torch.convert(network.eval(), (x,)).model_content()))
    kind = qtyping.TFLOperationName(operator)
    if not static:
        tool.add_dynamic_config(".*", kind, 2)
        return bytes(tool.quantize().quantized_model)
    tool.add_static_config(".*", kind, 8, 2)
    return bytes(tool.quantize(tool.calibrate({"serving_default": [{"args_0": x.numpy()}]})).quantized_model)


def finite(content: bytes) -> str:
    """Run a file in LiteRT on this machine, in a process of its own."""
    script = (
        "import sys, numpy as np; from ai_edge_litert.interpreter import Interpreter; i = Interpreter(sys.argv[1]);"
        "i.allocate_tensors(); d = i.get_input_details()[0]; i.set_tensor(d['index'], np.ones(d['shape'], d['dtype']));"
        "i.invoke(); print(np.isfinite(i.get_tensor(i.get_output_details()[0]['index'])).all())"
    )
    with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
        Path(file.name).write_bytes(content)
        done = subprocess.run([sys.executable, "-c", script, file.name], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"the process ended with {done.returncode}"
    return "runs" if done.stdout.split()[-1] == "True" else "runs, and gives values that are not numbers"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for family, width, depth, shape, classes in NETWORKS:
            spec = NetworkSpec(family=family, width=width, depth=depth)
            io_ = NetworkIO(
                kind="classification",
                inputs=(TensorShape(name="x", shape=shape),),
                outputs=(TensorShape(name="y", shape=(classes,)),),
            )
            for rung in (rung for rung in LADDER if not rung.is_mixed):
                with tempfile.TemporaryDirectory() as trained, _quiet():
                    content = built_file(spec, io_, rung, Path(trained))
                file = folder / f"{family}-{rung}.tflite"
                file.write_bytes(content)
                told = "  ".join(f"{engine} {measured(file, engine)}" for engine in sys.argv[1:] or ENGINES)
                print(f"{family:8}{rung.name:8}{len(content):8} bytes  {told}", flush=True)
    for name, (network, shape, operator) in TWO_BIT.items():
        for static in (True, False):
            what = f"2-bit {name}, activations {'of 8 bit' if static else 'float'}"
            try:
                with _quiet():
                    content = two_bit(network, shape, operator, static=static)
                print(f"{what}: litert {finite(content)}", flush=True)
            except ValueError as error:
                print(f"{what}: refused by ai-edge-quantizer: {_first_words(error)}", flush=True)


def _first_words(error: Any) -> str:
    return " ".join(str(error).split())[:80]


@contextlib.contextmanager
def _quiet() -> Any:
    """The converter reports on stdout."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


if __name__ == "__main__":
    main()

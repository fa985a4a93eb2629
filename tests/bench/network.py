"""The network that the benches measure: an untrained ds_cnn as it ships, fp32, built as any other."""

from __future__ import annotations

import contextlib
import platform
from io import StringIO
from pathlib import Path

import torch

from edgeloop.builders.tflite import float_model
from edgeloop.core.network import NetworkIO, NetworkSpec, TensorShape
from edgeloop.core.recipe import RecipeInput
from edgeloop.models.build import build_network

SPEC = NetworkSpec(family="ds_cnn", width=2.0)


def converted(folder: Path, spec: NetworkSpec, shape: tuple[int, ...]) -> bytes:
    """An untrained network for ten classes, exported and made a float .tflite as the converter writes it."""
    io = NetworkIO(
        kind="classification",
        inputs=(TensorShape(name="x", shape=shape),),
        outputs=(TensorShape(name="y", shape=(10,)),),
    )
    exported = torch.export.export(build_network(spec, io, 4).eval(), (torch.zeros(1, *shape),))
    torch.export.save(exported, folder / "network.pt2")
    with contextlib.redirect_stdout(StringIO()):  # the converter reports on it
        return float_model.convert(folder / "network.pt2", [RecipeInput(name="x", shape=(1, *shape), dtype="float32")])


def write_network(folder: Path) -> Path:
    """Write the .tflite and return its path; some seconds, and needs the tflite extra."""
    path = folder / "ds_cnn.tflite"
    path.write_bytes(converted(folder, SPEC, (28, 28, 1)))
    return path


_VECTORS = ("avx512_vnni", "avx512f", "avx_vnni", "avx2", "asimddp", "asimd")
"""What integer and float kernels are chosen by, the widest first, as the kernel names it."""


def machine() -> str:
    """This machine in words, for a page of results: kind of processor and of its vectors, cores, kernel, Python."""
    cpu = "unknown processor"
    info = Path("/proc/cpuinfo")
    told = info.read_text() if info.exists() else ""
    named = [line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("model name")]
    cpu = f"{len(named)} x {named[0]}" if named else cpu
    flags = set(told.split())
    kind = "a virtual machine, " if "hypervisor" in flags else ""
    vectors = next((f" with {name}" for name in _VECTORS if name in flags), "")
    system = f"{platform.system()} {platform.release().split('-')[0]}"
    return f"{kind}{cpu}{vectors}, {system}, Python {platform.python_version()}"


def load() -> str:
    """How busy the machine is, as its kernel says."""
    path = Path("/proc/loadavg")
    return f"load {path.read_text().split()[0]} over the last minute" if path.exists() else "load unknown"

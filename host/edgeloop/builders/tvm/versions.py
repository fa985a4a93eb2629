"""Versions of the packages that build a model.so, and the processors it is built for. Nothing heavy is imported."""

from __future__ import annotations

import platform

from edgeloop.builders.tvm.processor import this_processor
from edgeloop.builders.versions import installed_versions
from edgeloop.core.frozen import Frozen
from edgeloop.engines.registry import TVM

PACKAGES = TVM.packages
GLIBC = "2.31"
"""The oldest that a built library runs with: Debian 11, Raspberry Pi OS Bullseye."""
NATIVE = "native"
MODEL = "model.so"
FORMAT = 2
"""Raised when this builder itself changes what it writes, so that old artifacts are built anew."""


class TvmTarget(Frozen):
    """A processor to compile for."""

    machine: str
    """As an interpreter on the board reports it: aarch64 | x86_64."""
    mcpu: str
    """LLVM's name of the core, as `cortex-a72`; `native` for this very machine."""

    @property
    def triple(self) -> str:
        return f"{self.machine}-linux-gnu"

    def __str__(self) -> str:
        return f"{self.mcpu} ({self.machine})"


def host_target() -> TvmTarget:
    """The processor that is compiled for to run a network here."""
    return TvmTarget(machine=platform.machine(), mcpu=NATIVE)


def host_library_name() -> str:
    """The name of the library that lies beside a model.so for another processor and runs on this one."""
    return f"host-{this_processor()}.so"


def tool_versions() -> dict[str, str]:
    """Return installed versions by package. Raises MissingExtraError where one is absent."""
    return installed_versions(PACKAGES, str(TVM.extra), f"{TVM.purpose} ({TVM.manual})")


def onnx_versions(purpose: str) -> dict[str, str]:
    """Return versions of what reads ONNX files. Raises MissingExtraError where it is absent."""
    return installed_versions(("onnx",), "onnx", purpose)


def torch_versions(purpose: str) -> dict[str, str]:
    """Return versions of what reads archives of torch.export. Raises MissingExtraError where it is absent."""
    return installed_versions(("torch",), "train", purpose)

"""The user's own program for the engine `exec`, as its .toml declares it."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from edgeloop.core.frozen import Frozen
from edgeloop.core.tensors import TensorSpec

ProgramTiming = Literal["invoke", "copy_in_out"]
_INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64")


def _inside(path: str) -> str:
    """A file beside the declaration, or below it."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or path.endswith("/"):
        raise ValueError("name a file in the folder of this file, or below it")
    return str(PurePosixPath(path))


FileInside = Annotated[str, AfterValidator(_inside)]


class ProgramTensor(Frozen):
    """One input or output, as the program reads or writes it: raw, little-endian, in C order."""

    name: str = Field(min_length=1)
    dtype: Literal[
        "float16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "bool"
    ]
    shape: tuple[Annotated[int, Field(ge=1)], ...]
    """Of one sample; channel-last."""
    scale: float | None = Field(default=None, gt=0)
    """real = scale * (stored - zero_point); absent: stored as it is."""
    zero_point: int | None = None

    @model_validator(mode="after")
    def _scale_and_zero_point(self) -> Self:
        if (self.scale is None) != (self.zero_point is None):
            raise ValueError("scale and zero_point go together")
        if self.scale is not None and self.dtype not in _INTEGERS:
            raise ValueError(f"a {self.dtype} has no scale: only integers are quantized")
        return self

    @property
    def spec(self) -> TensorSpec:
        """The same with a batch of 1."""
        return TensorSpec(
            name=self.name, dtype=self.dtype, shape=(1, *self.shape), scale=self.scale, zero_point=self.zero_point
        )


class ProgramSpec(Frozen):
    """The program that runs on the board, the files it needs beside it, and what it can do."""

    schema_: Literal[1] = Field(alias="schema")
    program: FileInside
    """The executable file; one that ends in .py is run by the board's Python."""
    files: tuple[FileInside, ...] = ()
    """Files that it needs beside it, under the same names on the board."""
    arguments: tuple[str, ...] = ()
    timings: tuple[ProgramTiming, ...] = Field(default=("invoke",), min_length=1)
    """The timings that it can do."""
    period: bool = False
    """True where it can start one inference every so often."""
    threads_max: int = Field(default=1, ge=1)
    """Threads that it can be told to use."""
    input: tuple[ProgramTensor, ...] = Field(min_length=1)
    output: tuple[ProgramTensor, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _once(self) -> Self:
        for what, names in (
            ("inputs", [tensor.name for tensor in self.input]),
            ("outputs", [tensor.name for tensor in self.output]),
            ("files", [self.program, *self.files]),
        ):
            twice = [name for name, count in Counter(names).items() if count > 1]
            if twice:
                raise ValueError(f"two {what} are called {twice[0]!r}")
        return self

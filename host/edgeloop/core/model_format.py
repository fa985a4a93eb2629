"""The formats of ready models: one row each, read by all that opens, converts, compiles or names a model's file.

A new format is a new member with its row. What no row has yet - another reader, converter or compiler - is a member of
its enum, and an entry in the table of the room that does the work (`ready_models`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from pathlib import Path, PurePath
from typing import Self

from edgeloop.core.lightening import DYNAMIC
from edgeloop.engines.registry import DEFAULT, TVM


class Reader(StrEnum):
    """Who opens a file of a format on this host."""

    LITERT = auto()
    """A child process with the LiteRT runtime."""
    TENSORFLOW = auto()
    """The child process that converts it."""
    TORCH = auto()
    """The child process that converts or compiles it; a graph is loaded, no user code."""
    ONNX = auto()
    """The child process that compiles it."""
    DESCRIPTION = auto()
    """`artifact.json` beside it: the file itself is never loaded."""
    TOML = auto()


class Converter(StrEnum):
    """A toolchain that makes a .tflite of a file."""

    TENSORFLOW = auto()
    LITERT_TORCH = "litert-torch"


class Compiler(StrEnum):
    """A toolchain that makes a library for a board's processor."""

    TVM = auto()


@dataclass(frozen=True, slots=True)
class Package:
    """A package that a format needs on this host, and the extra that installs it."""

    name: str
    extra: str


@dataclass(frozen=True, slots=True)
class FormatRow:
    """The row of one format of model files."""

    reader: Reader
    suffixes: tuple[str, ...] = ()
    marker: str | None = None
    """Of a format that is a folder: the file in it that says so."""
    weights_suffix: str | None = None
    """Added to the file's name, it names a file beside it that may hold its weights."""
    converter: Converter | None = None
    forms: tuple[str, ...] = ()
    """Forms that its converter makes, as lightenings are called; the first one is what it makes unasked."""
    compiler: Compiler | None = None
    made_by: Compiler | None = None
    """Of a library: the compiler that made it."""
    can_be_reference: bool = False
    """True where a campaign can name it as M1."""
    packages: tuple[Package, ...] = ()
    """They read it on this host, beside what every .tflite needs."""
    runtime: tuple[Package, ...] = ()
    """They run it on this host, as it is or as what is made of it."""


_TENSORFLOW_FORMS = ("fp32", "fp16", DYNAMIC, "w8a16", "w8a8")
_LITERT = (Package(DEFAULT.wheels[0].distribution, str(DEFAULT.extra)),)
_TVM = Package(TVM.wheels[0].distribution, str(TVM.extra))


class ModelFormat(Enum):
    """A format of model files. `of` looks at a file; `from_name` reads its name alone."""

    TFLITE = FormatRow(Reader.LITERT, (".tflite",), can_be_reference=True, runtime=_LITERT)
    KERAS = FormatRow(
        Reader.TENSORFLOW,
        (".keras", ".h5"),
        converter=Converter.TENSORFLOW,
        forms=_TENSORFLOW_FORMS,
        can_be_reference=True,
        packages=(Package("tensorflow", "tensorflow"),),
        runtime=_LITERT,
    )
    SAVED_MODEL = FormatRow(
        Reader.TENSORFLOW,
        marker="saved_model.pb",
        converter=Converter.TENSORFLOW,
        forms=_TENSORFLOW_FORMS,
        can_be_reference=True,
        packages=(Package("tensorflow", "tensorflow"),),
        runtime=_LITERT,
    )
    TORCH_EXPORT = FormatRow(
        Reader.TORCH,
        (".pt2",),
        converter=Converter.LITERT_TORCH,
        forms=("fp32",),
        compiler=Compiler.TVM,
        packages=(Package("torch", "train"),),
        runtime=_LITERT,
    )
    ONNX = FormatRow(
        Reader.ONNX,
        (".onnx",),
        weights_suffix=".data",  # as torch's exporter calls it
        compiler=Compiler.TVM,
        can_be_reference=True,
        packages=(Package("onnx", "onnx"),),
        runtime=(_TVM, Package("onnx", "onnx")),
    )
    TVM_LIBRARY = FormatRow(Reader.DESCRIPTION, (".so",), made_by=Compiler.TVM, runtime=(_TVM,))
    PROGRAM = FormatRow(Reader.TOML, (".toml",))

    @classmethod
    def from_name(cls, path: PurePath | str) -> Self | None:
        """Return the format that a file's name tells; None for a name that tells none."""
        suffix = PurePath(path).suffix
        return next((one for one in cls if suffix in one.value.suffixes), None)

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """Return the format of a file or folder that is there; where nothing is there, the one that its name tells."""
        if path.is_dir():
            markers = ((one, one.value.marker) for one in cls)
            return next((one for one, marker in markers if marker is not None and (path / marker).is_file()), None)
        return cls.from_name(path)

    @property
    def row(self) -> FormatRow:
        return self.value

    @property
    def suffix(self) -> str:
        """The suffix that a new file of the format gets."""
        return self.row.suffixes[0] if self.row.suffixes else ""

    @property
    def runs_as_tflite(self) -> bool:
        """True where it is a .tflite, or one can be made of it."""
        return self is ModelFormat.TFLITE or self.row.converter is not None

    @property
    def runs_compiled(self) -> bool:
        """True where it runs as a compiled library and in no other way."""
        compiled_by = self.row.compiler or self.row.made_by
        return compiled_by is not None and not self.runs_as_tflite

"""The host's side of each engine: one entry for each row of `engines.registry`.

An entry says how a ready model is opened, what compiles it for a board's processor where that is needed, and what
makes the builder of a campaign's networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_cache_path

from edgeloop.core.artifact import Artifact
from edgeloop.core.model_format import Compiler, ModelFormat
from edgeloop.core.program import ProgramSpec
from edgeloop.engines.registry import ENGINES, EXEC, LITERT, TFLITE_RUNTIME, TVM
from edgeloop.errors import Fault, ModelError
from edgeloop.host_runtime.shapes import InputShapes
from edgeloop.host_runtime.tflite import read_library, read_tflite
from edgeloop.ports import Bench, Progress, Watch
from edgeloop.ready_models.compilation import compilation_cache, compile_model, inspect_model
from edgeloop.ready_models.conversion import ConversionOptions, conversion_cache, convert
from edgeloop.ready_models.exec_program import pack_program, read_program
from edgeloop.sentences import Argument
from edgeloop.wiring.builders import BuilderFactory, tflite_builder, tvm_builder
from edgeloop.wiring.processors import tvm_target

Shapes = Mapping[str, tuple[int, ...]]
"""Of inputs by name, batch included."""


@dataclass(frozen=True, slots=True)
class ReadyModel:
    """A file that a request names as a ready model."""

    path: Path
    shapes: Shapes = field(default_factory=dict)
    """For inputs that leave dimensions open."""
    for_delegate: bool = False
    """A delegate may know operators that this host doesn't, so it need not run here."""

    @property
    def input_shapes(self) -> InputShapes:
        return InputShapes(inputs=dict(self.shapes))


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A ready model as a board is sent it, or as it is compiled for one."""

    artifact: Artifact
    program: ProgramSpec | None = None
    """Of a program of the user's own: its declaration."""
    faults: tuple[Fault, ...] = ()
    """Parts of the request that do not go with it."""


ModelOpener = Callable[[ReadyModel], OpenModel]
"""Raises UserError and its kind, ModelError, BuildError."""
ModelCompiler = Callable[[Artifact, Bench, str, Watch], Artifact]
"""(model, board, where the request names the engine, progress) -> the model for that board. Raises as `ModelOpener`."""


@dataclass(frozen=True, slots=True)
class HostEngine:
    """The host's functions for the models of one engine."""

    open_model: ModelOpener
    make_builder: BuilderFactory | None = None
    """None where campaigns build nothing for it."""
    compile_model: ModelCompiler | None = None
    """Of files whose suffix is in the row's `compiles`."""


def open_tflite(file: ReadyModel) -> OpenModel:
    """A .tflite as it is, or one that another format is converted to."""
    model_format = ModelFormat.of(file.path)
    if model_format is not None and model_format.row.converter is not None:
        artifact = convert(file.path, ConversionOptions(shapes=file.input_shapes), conversion_cache())
    else:
        artifact = read_tflite(file.path, file.input_shapes, for_delegate=file.for_delegate)
    if not (artifact.resized and file.for_delegate):
        return OpenModel(artifact)
    raise ModelError(
        f"{file.path} leaves dimensions open, which a delegate does not take",
        next_step="give it shapes of its own when it is converted",
    )


def open_for_tvm(file: ReadyModel) -> OpenModel:
    """A library that was compiled before, or a file that is compiled once the board is known."""
    model_format = ModelFormat.from_name(file.path)
    if model_format is not None and model_format.row.compiler is Compiler.TVM:
        return OpenModel(inspect_model(file.path, file.input_shapes)[0])
    if model_format is not ModelFormat.TVM_LIBRARY:
        raise ModelError(
            f"{file.path}: {TVM.name} compiles no such file",
            next_step="give an .onnx, a .pt2 or a model.so that edgeloop built, or say another engine",
        )
    return OpenModel(read_library(file.path), faults=_shapes_of_its_own(file, "is compiled for shapes of its own"))


def compile_with_tvm(artifact: Artifact, bench: Bench, where: str, watch: Watch) -> Artifact:
    """Compile a file that was opened for the processor of a board, or find it compiled."""
    shapes = InputShapes(inputs={spec.name: spec.shape for spec in artifact.inputs})
    path, target = Path(artifact.path), tvm_target(bench, where)
    watch(Progress(f"compiling {path.name} for {target}", total=1))
    return compile_model(path, shapes, target, compilation_cache())


def open_program(file: ReadyModel) -> OpenModel:
    """A program of the user's own, packed with all that it needs."""
    program = read_program(file.path)
    artifact = pack_program(file.path, program, user_cache_path("edgeloop") / "programs")
    return OpenModel(artifact, program, _shapes_of_its_own(file, "declares the shapes of a program itself"))


def _shapes_of_its_own(file: ReadyModel, why: str) -> tuple[Fault, ...]:
    return (Fault(Argument("shapes"), f"{file.path} {why}", "leave it out"),) if file.shapes else ()


HOST_ENGINES: dict[str, HostEngine] = {
    LITERT.name: HostEngine(open_tflite, tflite_builder),
    TFLITE_RUNTIME.name: HostEngine(open_tflite, tflite_builder),
    TVM.name: HostEngine(open_for_tvm, tvm_builder, compile_with_tvm),
    EXEC.name: HostEngine(open_program),
}
"""By the engines' names."""


def model_for_board(artifact: Artifact, engine: str, bench: Bench, watch: Watch, path: str) -> Artifact:
    """Return a model as a board runs it: compiled for its processor where the engine needs that.

    `path` is that of the request's argument that named the engine.
    """
    compile_model = HOST_ENGINES[engine].compile_model
    if compile_model is None or Path(artifact.path).suffix not in ENGINES[engine].compiles:
        return artifact
    return compile_model(artifact, bench, Argument(path), watch)

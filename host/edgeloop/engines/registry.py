"""The engines that edgeloop knows: one row for each, and what follows from the rows.

A row is plain data, keyed by names, so that every room may read it. What edgeloop does with an engine stands
elsewhere, once each: the host opens and builds its models (`wiring.host_engines`), the agent runs them
(`edgeloop_agent.engines`). docs/how-to/add-an-engine.md goes through all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeloop.engines.capabilities import Capability


@dataclass(frozen=True, slots=True)
class Wheel:
    """A distribution that a board is given, at the version that the lock pins."""

    distribution: str
    version: str
    members: tuple[str, ...] = ()
    """Patterns of the files that a board needs of it; all where empty."""


@dataclass(frozen=True, slots=True)
class BadVersion:
    """A version that installs without complaint and then breaks."""

    distribution: str
    version: str
    problem: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRow:
    """All that other rooms ask of an engine."""

    name: str
    """As campaigns, commands and the wire call it."""
    title: str
    """For sentences: `TVM`, `a program of your own`."""
    model_noun: str
    """One of its models, for sentences: `a compiled network`."""
    runs: str
    """Suffix of the file that it runs on a board."""
    file_phrase: str = ""
    """A verb for such a file in sentences, where it is no model: `declares a program`."""
    compiles: tuple[str, ...] = ()
    """Suffixes of the files that are compiled for a board's processor when it measures them."""
    claims: tuple[str, ...] = ()
    """Suffixes of the files that no other engine takes: they choose it where none is named."""
    unpacks: bool = False
    """Its model is an archive, which the agent unpacks."""
    wheels: tuple[Wheel, ...] = ()
    """The wheels that it is on a board, its own first, numpy left out; empty: it needs nothing there but the agent and
    numpy."""
    numpy_below: int | None = None
    """The major version of numpy that it no longer runs beside."""
    bad_versions: tuple[BadVersion, ...] = ()
    rungs: Mapping[str, Capability] = field(default_factory=dict)
    """By the bits of a rung (`Lightening.base`), the rungs that networks are built in for it. Empty: campaigns build
    nothing for it."""
    packages: tuple[str, ...] = ()
    """Packages that building for it needs on this host; their versions are written into a run's ledger."""
    extra: str | None = None
    """The extra of edgeloop that installs them."""
    purpose: str = ""
    """Their purpose, for sentences: `building a model.so`."""
    manual: str = ""
    """Where it is written how they are installed, if pip alone can't do it."""
    cores: Mapping[str, str] = field(default_factory=dict)
    """Machines that its models are compiled for, each with the core where a board's file names none. Empty: a model
    is the same for every processor."""
    delegates: bool = False
    """It gives operators to delegates."""
    tunes: bool = False
    """Schedules of its models can be tuned on a board (`[tuning]`)."""
    cuts: bool = False
    """Its models can be cut into their operators, which are timed one by one."""
    timings: tuple[str, ...] = ("invoke", "copy_in_out", "end_to_end")
    """The most that it can time; a file that declares what it can do may say less."""
    energy: bool = True
    """Energy of its sessions can be measured."""
    runtime_memory: bool = True
    """The runtime's own part of a session's memory is known."""

    @property
    def builds(self) -> bool:
        """True where campaigns build networks for it."""
        return bool(self.rungs)

    @property
    def per_processor(self) -> bool:
        """True where a model is compiled for the processor of a board."""
        return bool(self.cores)


_FP32 = Capability(size_real=True, latency_real=True, accuracy_real=True, note="float throughout")
_FP16 = Capability(
    size_real=True,
    latency_real=False,
    accuracy_real=True,
    note="weights are made float when the model is loaded: the latency of fp32",
    as_fast_as="fp32",
)
_W8A16 = Capability(
    size_real=True,
    latency_real=True,
    accuracy_real=True,
    note="kernels of 16-bit activations are plain loops: slower than fp32",
)
_W8A8 = Capability(size_real=True, latency_real=True, accuracy_real=True, note="integer throughout")
_W4A8 = Capability(
    size_real=True,
    latency_real=True,
    accuracy_real=True,
    note="4-bit convolutions are unpacked at each invocation: slower than w8a8; fully connected ones are not",
)
_W4A8_OLD = Capability(
    size_real=True,
    latency_real=True,
    accuracy_real=True,
    note="4-bit convolutions are unpacked at each invocation: no faster than w8a8; fully connected ones are refused",
    runs_linear=False,
)
_TFLITE_PACKAGES = ("litert-torch", "ai-edge-quantizer", "ai-edge-litert")

LITERT = EngineRow(
    name="litert",
    title="LiteRT",
    model_noun="a .tflite",
    runs=".tflite",
    wheels=(Wheel("ai-edge-litert", "2.3.0"),),
    rungs={"fp32": _FP32, "fp16": _FP16, "w8a16": _W8A16, "w8a8": _W8A8, "w4a8": _W4A8},
    packages=_TFLITE_PACKAGES,
    extra="tflite",
    purpose="building .tflite files",
    delegates=True,
    cuts=True,
)
TFLITE_RUNTIME = EngineRow(
    name="tflite-runtime",
    title="TFLite's own runtime",
    model_noun="a .tflite",
    runs=".tflite",
    wheels=(Wheel("tflite-runtime", "2.14.0"),),
    numpy_below=2,
    rungs={"fp32": _FP32, "fp16": _FP16, "w8a16": _W8A16, "w8a8": _W8A8, "w4a8": _W4A8_OLD},
    packages=_TFLITE_PACKAGES,
    extra="tflite",
    purpose="building .tflite files",
    delegates=True,
    cuts=True,
)
TVM = EngineRow(
    name="tvm",
    title="TVM",
    model_noun="a compiled network",
    runs=".so",
    compiles=(".onnx", ".pt2"),
    claims=(".onnx", ".so"),
    wheels=(
        Wheel("apache-tvm", "0.27.0.post1", members=("tvm/lib/libtvm_runtime.so",)),
        Wheel(
            "apache-tvm-ffi",
            "0.1.14.post1",
            members=(
                "tvm_ffi/*.py",
                "tvm_ffi/*.so",
                "tvm_ffi/utils/*.py",
                "tvm_ffi/lib/libtvm_ffi.so",
                "*.dist-info/METADATA",
            ),
        ),
        Wheel("typing-extensions", "4.16.0"),
    ),
    bad_versions=(
        BadVersion(
            "apache-tvm-ffi",
            "0.1.15.post2",
            "segfaults in MetaSchedule with apache-tvm 0.27.0.post1",
            "pip install apache-tvm-ffi==0.1.14.post1",
        ),
    ),
    rungs={"fp32": _FP32, "w8a8": _W8A8},
    packages=("apache-tvm", "apache-tvm-ffi", "tflite", "ziglang"),
    extra="tvm",
    purpose="building for TVM",
    manual="docs/how-to/tvm.md",
    cores={"aarch64": "generic", "x86_64": "x86-64-v2"},
    tunes=True,
)
EXEC = EngineRow(
    name="exec",
    title="a program of your own",
    model_noun="a program of your own",
    runs=".toml",
    file_phrase="declares a program",
    unpacks=True,
    timings=("invoke", "copy_in_out"),
    energy=False,
    runtime_memory=False,
)

DEFAULT = LITERT
"""The engine where nothing else is said."""
ENGINES: dict[str, EngineRow] = {row.name: row for row in (LITERT, TFLITE_RUNTIME, TVM, EXEC)}
"""Every engine by its name."""


def build_engines() -> tuple[str, ...]:
    """Return the names of the engines that campaigns build for."""
    return tuple(name for name, row in ENGINES.items() if row.builds)


def wheel_engines() -> tuple[str, ...]:
    """Return the names of the engines that a board is given wheels for."""
    return tuple(name for name, row in ENGINES.items() if row.wheels)


def engine_for(suffix: str) -> EngineRow:
    """Return the engine that a file chooses by its suffix: the only one that takes it, else the default."""
    return next((row for row in ENGINES.values() if suffix in row.claims), DEFAULT)


def engines_that_run(suffix: str) -> tuple[str, ...]:
    """Return the names of the engines that run files of a suffix on a board."""
    return tuple(name for name, row in ENGINES.items() if row.runs == suffix)

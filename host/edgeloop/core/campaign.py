"""A campaign: reference, task, data, limits, search space, budget, targets, plan. One file, read once, frozen.

Paths in a loaded campaign are absolute: `config.campaign_file` resolves them against the file that names them.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from edgeloop.core.board import NO_DELEGATE
from edgeloop.core.frozen import Frozen, OneOf
from edgeloop.core.function_path import FunctionPath
from edgeloop.core.installed import BENCHES, BUILDERS, STRATEGIES, TRAINERS, installed_names
from edgeloop.core.lightening import DYNAMIC, Lightening
from edgeloop.core.limits import LimitSet
from edgeloop.core.network import Engine, Setting, Teacher
from edgeloop.core.plan import Environment, Plan
from edgeloop.engines.registry import DEFAULT, ENGINES, engine_for, engines_that_run
from edgeloop.processes.limits import ProcessLimits


def _form(name: str) -> str:
    return Lightening.parse(name).name


def _rung(name: str) -> str:
    if name == DYNAMIC:
        raise ValueError(f"{DYNAMIC} is a form that a file given as M1 is measured in, not a rung of the ladder")
    return _form(name)


Form = Annotated[str, AfterValidator(_form)]
Rung = Annotated[str, AfterValidator(_rung)]


DelegateName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""As the board's file calls it, or `none`."""


OWN_STRATEGIES = ("patent", "optuna", "grid", "random")
StrategyName = Annotated[str, OneOf(lambda: OWN_STRATEGIES, lambda: installed_names(STRATEGIES))]
"""One that edgeloop brings (`edgeloop.search.strategies`), or one that is installed."""


class Reference(Frozen):
    """M1: a family that ships with edgeloop or a user's factory, trained first or with its weights; or a ready model's
    file, which is not trained. With a file, family or factory say where M2 comes from."""

    file: str | None = None
    """A .tflite, .keras or .h5 file, or the folder of a SavedModel: a fixed baseline and teacher."""
    family: str | None = None
    factory: FunctionPath | None = None
    layout: Literal["channels_first", "channels_last"] | None = None
    """The layout that a factory's forward expects, data being channel-last on disk and on the board; None: torch's
    channels_first, and channels_last for a Keras model."""
    width: float = Field(default=1.0, gt=0)
    """M1's own; with a file that which the widths of the search multiply."""
    depth: int = Field(default=0, ge=0)
    weights: str | None = None
    larger: Literal["factory", "widen", "none"] | Annotated[tuple[FunctionPath, ...], Field(min_length=1)] = "factory"
    """Where M2 comes from: the same factory; the same, starting with M1's function; nowhere, M1 itself is lightened; or
    a list of factories, each called with width 1 and depth 0."""
    lightening: Form = "fp32"
    """The form that M1 is measured in. A .tflite is measured as it is."""
    engine: Engine = DEFAULT.name
    threads: int = Field(default=1, ge=1)
    delegate: DelegateName = NO_DELEGATE

    @property
    def setting(self) -> Setting:
        delegate = None if self.delegate == NO_DELEGATE else self.delegate
        return Setting(engine=self.engine, threads=self.threads, delegate=delegate)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if Lightening.parse(self.lightening).pruned_pct:
            raise ValueError(f"lightening {self.lightening}: M1 is measured with all its channels")
        if self.delegate != NO_DELEGATE and not ENGINES[self.engine].delegates:
            raise ValueError(f"engine {self.engine} takes no delegate: leave it out")
        if self.file is not None:
            self._check_file(self.file)
        elif (self.family is None) == (self.factory is None):
            raise ValueError("name one of family and factory, or a file")
        elif self.lightening == DYNAMIC:
            raise ValueError(f"lightening {DYNAMIC} is a form of a Keras file or a SavedModel: name it as file")
        return self

    def _check_file(self, file: str) -> None:
        """Raise ValueError for what does not go with a file."""
        is_list = isinstance(self.larger, tuple)
        own = [name for name in ("family", "factory", "width", "depth") if name in self.model_fields_set]
        if self.larger in ("widen", "none"):
            raise ValueError(
                f"larger = {self.larger!r} starts from M1's own weights, which a file does not give: name M2's family "
                "or factory, or a list of factories"
            )
        if self.weights is not None:
            raise ValueError("weights go with a family or a factory that is M1; a file has its own")
        if is_list and own:
            raise ValueError(f"with a file, larger as a list is all there is of M2: leave out {', '.join(own)}")
        if not is_list and (self.family is None) == (self.factory is None):
            raise ValueError(
                "with a file, name where M2 comes from: one of family and factory, or larger as a list of factories"
            )
        suffix = PurePath(file).suffix
        row = ENGINES[self.engine]
        compiler = row if suffix in (row.runs, *row.compiles) else engine_for(suffix)
        needs_compiler = suffix in compiler.compiles
        if needs_compiler and row is not compiler:
            raise ValueError(f'an {suffix} is compiled by {compiler.title}: say engine = "{compiler.name}"')
        if row.per_processor and not needs_compiler:
            sources = " or ".join(one for one in row.compiles if one in row.claims)
            others = " or ".join(engines_that_run(DEFAULT.runs))
            raise ValueError(f"of files engine {row.name} compiles an {sources}: this one is measured by {others}")
        if needs_compiler and self.lightening != "fp32":
            raise ValueError(f"an {suffix} is compiled in float: leave out lightening")
        if suffix == DEFAULT.runs and "lightening" in self.model_fields_set:
            raise ValueError(f"a {suffix} is measured as it is: leave out lightening")


class Task(Frozen):
    """The task of the network: how it is trained, scored, and compared with M1."""

    kind: Literal["classification", "regression", "autoencoder", "custom"] = "classification"
    loss: FunctionPath | None = None
    """`loss(outputs, targets) -> scalar tensor`; dictionaries of torch tensors by name."""
    metrics: dict[str, FunctionPath] = {}
    """`metric(outputs, targets) -> per-sample array or float`; dictionaries of numpy arrays by name."""
    agreement: FunctionPath | None = None
    """`agreement(outputs, other) -> bool array (n,)`, numpy."""
    distillation: FunctionPath | None = None
    """`distillation(outputs, teacher_outputs) -> scalar tensor`."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "custom":
            missing = [n for n in ("loss", "metrics", "agreement") if not getattr(self, n)]
            if missing:
                raise ValueError(f"a custom task brings its own {', '.join(missing)}, as file.py:name")
        return self


class Data(Frozen):
    provider: Literal["mnist5k", "digits", "fashion-mnist", "npz", "factory"] = "mnist5k"
    path: str | None = None
    """`npz`: the file; `fashion-mnist`: a folder with the four idx .gz files."""
    factory: FunctionPath | None = None
    """`splits() -> dict` with train, validation, test and optional calibration: each a dictionary of arrays."""
    board_samples_max: int = Field(default=1000, ge=1)
    """Validation samples pushed to a board and scored there; test data likewise."""

    @model_validator(mode="after")
    def _source(self) -> Self:
        if (self.provider == "factory") != (self.factory is not None):
            raise ValueError("provider 'factory' and the key factory go together")
        if self.provider == "npz" and self.path is None:
            raise ValueError("provider 'npz' needs path, the .npz file")
        if self.path is not None and self.provider not in {"npz", "fashion-mnist"}:
            raise ValueError(f"path does not go with provider {self.provider!r}")
        return self


class Search(Frozen):
    strategy: StrategyName = "patent"
    widths: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(1.19, 1.41, 1.68, 2.0, 2.83), min_length=1)
    """Width multipliers of M2 over M1."""
    depths: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0,), min_length=1)
    """Depth steps of M2 beyond M1."""
    lightenings: tuple[Rung, ...] = Field(default=("fp32", "fp16", "w8a16", "w8a8", "w4a8:50", "w4a8"), min_length=1)
    """Rungs that may be asked, pruned ones as `w8a8-p25`. Each costs a training of every network it is asked of."""
    engines: tuple[Engine, ...] = Field(default=(DEFAULT.name,), min_length=1)
    threads: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1,), min_length=1)
    delegates: tuple[DelegateName, ...] = Field(default=(NO_DELEGATE,), min_length=1)
    """By their names in the files of the boards; tvm takes none."""
    evaluation: Literal["tent", "saturating", "parity", "off"] | FunctionPath = "tent"
    """Size difference evaluation function; `file.py:name` is called as `name(delta, delta_star) -> 0 to 1`."""
    seed: int | None = Field(default=None, ge=0)
    """Of what `optuna` and `random` draw; 0 where absent."""
    storage: str | None = None
    """Where `optuna` writes its study down: a URL as `sqlite:///optuna.db`; in the run's folder where absent."""
    pareto: bool = False
    """Go on after the first pass, and return the front of what passed."""

    @property
    def settings(self) -> list[Setting]:
        """Engines, threads and delegates, each combination once."""
        return [
            Setting(engine=engine, threads=threads, delegate=None if delegate == NO_DELEGATE else delegate)
            for engine in dict.fromkeys(self.engines)
            for threads in dict.fromkeys(self.threads)
            for delegate in dict.fromkeys(self.delegates)
            if delegate == NO_DELEGATE or ENGINES[engine].delegates
        ]

    @model_validator(mode="after")
    def _run_by_each(self) -> Self:
        left_out = [engine for engine in self.engines if engine not in {setting.engine for setting in self.settings}]
        if left_out:
            raise ValueError(
                f"delegates: {left_out[0]} takes none; add {NO_DELEGATE!r} to them, or leave {left_out[0]} out"
            )
        return self

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        if self.seed is not None and self.strategy in {"patent", "grid"}:
            raise ValueError(f"seed goes with strategy 'optuna' or 'random'; {self.strategy!r} draws nothing")
        if self.storage is None:
            return self
        if self.strategy != "optuna":
            raise ValueError(f"storage goes with strategy 'optuna', not with {self.strategy!r}")
        try:
            url = urlsplit(self.storage)
            password = url.password
        except ValueError as error:
            raise ValueError(f"storage is no URL: {error}") from error
        if not url.scheme or "://" not in self.storage:
            raise ValueError("storage is a URL, such as sqlite:///optuna.db")
        if password is not None:
            raise ValueError(
                "storage holds a password, which has no place in a file; use the database's own file for it"
            )
        return self


class Training(Frozen):
    epochs: int = Field(default=20, ge=1)
    """Of a float training."""
    lightened_epochs: int | None = Field(default=None, ge=0)
    """Of a quantization-aware training; a third of epochs, at least 2, where absent; 0 only calibrates."""
    widened_epochs: int | None = Field(default=None, ge=1)
    """Of an M2 that starts with M1's function (reference.larger = 'widen'), at `lightened_learning_rate`; a third of
    epochs, at least 2, where absent."""
    fine_tune_epochs: int | None = Field(default=None, ge=1)
    """Of going on from another rung's weights (schedule patent3); half of the lightened ones where absent, and
    none where those are 0."""
    batch: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=4e-3, gt=0)
    lightened_learning_rate: float = Field(default=1e-3, gt=0)
    schedule: Literal["simple", "patent3", "qkd"] = "simple"
    """Of a lightened training; docs/explanation/training.md."""
    teacher: Teacher = "none"
    temperature: float = Field(default=2.0, ge=1, le=4)
    distillation_weight: float = Field(default=0.5, ge=0, le=0.5)
    """Share of the distillation loss at the start; falls to 0 in the last third."""
    m1_distillation_weight: float = Field(default=0.5, gt=0, le=1)
    """The same where M2 is distilled into M1; at 1 the difference of their outputs alone trains M1, to the end."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after so many epochs without a better loss on validation data, and keep the best; None: never. Where a
    schedule has several stages, counted from the last one's beginning."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the arithmetic of float trainings; weights and everything that is fake-quantized stay float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU where torch finds one."""
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _has_teacher(self) -> Self:
        if self.schedule == "qkd" and self.teacher == "none":
            raise ValueError("schedule 'qkd' trains with a teacher: set teacher to m1, m1-distilled or m2")
        return self

    @property
    def epochs_lightened(self) -> int:
        return max(2, self.epochs // 3) if self.lightened_epochs is None else self.lightened_epochs

    @property
    def epochs_widened(self) -> int:
        return max(2, self.epochs // 3) if self.widened_epochs is None else self.widened_epochs

    @property
    def epochs_fine_tuned(self) -> int:
        # At least one, but none where a lightened training only calibrates.
        return self.fine_tune_epochs or min(self.epochs_lightened, max(1, self.epochs_lightened // 2))


class Budget(Frozen):
    trials: int = Field(default=20, ge=1)
    """Candidates; M1 is not counted."""
    wall_minutes: float = Field(default=480, gt=0)


class Tuning(Frozen):
    """Of the schedules that TVM compiles with; what is on is said by `trials`."""

    trials: int = Field(default=0, ge=0)
    """Schedules that are measured for a network, over all its functions; 0: a rule chooses them all."""
    minutes: float = Field(default=10, gt=0)
    """No measurement of schedules is begun later than this after a network's first."""


class Toolchain(Frozen):
    """Bounds of the processes of this host that train, build, and run what was built."""

    training_minutes_max: float | None = Field(default=None, gt=0)
    """Of one training; the budget's wall_minutes where absent."""
    build_deadline_s: float = Field(default=900, gt=0)
    """Of a build, a conversion, a look at a network, and a run of a built network over the validation data."""
    memory_max_mib: int | None = Field(default=None, gt=0)
    """Of one process, its private memory (RLIMIT_DATA); None: what there is."""

    @property
    def build_limits(self) -> ProcessLimits:
        return ProcessLimits(self.build_deadline_s, self._memory_max_bytes)

    def training_limits(self, deadline_s: float) -> ProcessLimits:
        return ProcessLimits(deadline_s, self._memory_max_bytes)

    @property
    def _memory_max_bytes(self) -> int | None:
        return None if self.memory_max_mib is None else self.memory_max_mib * 1024 * 1024


def _installed_in(group: str) -> OneOf:
    return OneOf(tuple, lambda: installed_names(group))


class Plugins(Frozen):
    """Installed adapters of third parties that a run uses in place of edgeloop's own, by the names of their entry
    points; docs/how-to/adapters-of-your-own.md."""

    builders: dict[Engine, Annotated[str, _installed_in(BUILDERS)]] = {}
    """By engine."""
    bench: Annotated[str, _installed_in(BENCHES)] | None = None
    trainer: Annotated[str, _installed_in(TRAINERS)] | None = None


class Campaign(Frozen):
    schema_: Literal[1] = Field(alias="schema")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    targets: tuple[str, ...] = Field(min_length=1)
    limits: LimitSet
    reference: Reference
    task: Task = Task()
    data: Data = Data()
    search: Search = Search()
    training: Training = Training()
    budget: Budget = Budget()
    tuning: Tuning = Tuning()
    toolchain: Toolchain = Toolchain()
    plugins: Plugins = Plugins()
    plan: Plan = Plan.of("quick")
    """Of every candidate while searching; a quick plan's winner is confirmed at `standard`."""
    environment: Environment = Environment()
    allow_emulated: bool = False
    """True where absolute limits on time may be judged on an emulated board, where they mean nothing as times."""

    @model_validator(mode="after")
    def _larger(self) -> Self:
        larger, search = self.reference.larger, self.search
        if larger == "widen" and search.depths != (0,):
            raise ValueError("search.depths: widening changes widths alone; leave depths out where larger = 'widen'")
        if isinstance(larger, tuple) and (search.widths, search.depths) != (Search().widths, (0,)):
            raise ValueError("search.widths, search.depths: networks of a list have sizes of their own; leave both out")
        if self.reference.file is not None:
            self._check_untrained_m1()
        engines = search.engines if self.reference.file is not None else (self.reference.engine, *search.engines)
        if "tuning" in self.model_fields_set and not any(ENGINES[engine].tunes for engine in engines):
            row = next(row for row in ENGINES.values() if row.tunes)
            raise ValueError(
                f"tuning is of trained networks that {row.title} compiles: add {row.name} to search.engines, "
                "or leave [tuning] out"
            )
        if larger != "widen" and self.training.widened_epochs is not None:
            raise ValueError("training.widened_epochs goes with reference.larger = 'widen'")
        return self

    @model_validator(mode="after")
    def _teachable(self) -> Self:
        if self.task.kind == "custom" and self.training.teacher != "none" and self.task.distillation is None:
            raise ValueError(
                "task.distillation: a custom task with a teacher brings its own, as file.py:name; "
                "or set training.teacher to none"
            )
        return self

    def _check_untrained_m1(self) -> None:
        """Raise ValueError where M1 would be trained, and is a file."""
        if self.training.teacher == "m1-distilled":
            raise ValueError("training.teacher: M2 is distilled into M1 there, and a file can't be trained")
        if self.training.teacher == "m1" and self.training.schedule == "qkd":
            raise ValueError("training.schedule: qkd trains the teacher too, and a file can't be trained")

    @property
    def engines(self) -> tuple[Engine, ...]:
        """Every engine that it builds for, M1's first."""
        return tuple(dict.fromkeys((self.reference.engine, *self.search.engines)))

    @property
    def prunes(self) -> bool:
        """True where a rung of the search removes channels."""
        return any(Lightening.parse(name).pruned_pct for name in self.search.lightenings)

    @property
    def training_limits(self) -> ProcessLimits:
        minutes = self.toolchain.training_minutes_max
        return self.toolchain.training_limits(60 * (self.budget.wall_minutes if minutes is None else minutes))

    @property
    def confirmation(self) -> Plan:
        """The plan that a pass is confirmed at: the search's own, unless that is quick."""
        if self.plan.may_pass:
            return self.plan
        overrides: dict[str, object] = {
            name: getattr(self.plan, name)
            for name in (
                "timing",
                "pipeline",
                "period_ms",
                "seed",
                "confidence",
                "deadline_s",
                "warmup_s_min",
                "warmup_s_max",
            )
        }
        return Plan.of("standard", **overrides)

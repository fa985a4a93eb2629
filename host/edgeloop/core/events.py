"""The ledger's events, and the trial as the fold of its events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field

from edgeloop.core.artifact import Artifact
from edgeloop.core.conditions import ConditionsDigest
from edgeloop.core.frozen import Frozen
from edgeloop.core.lightening import Lightening
from edgeloop.core.measurement import Summary, Trust
from edgeloop.core.mixed_precision import LayerChoice
from edgeloop.core.network import Candidate, NetworkSizes
from edgeloop.core.plan import Environment, Plan
from edgeloop.core.verdict import Direction, Outcome, Verdict
from edgeloop.errors import Owner

Split = Literal["validation", "test"]
Role = Literal["reference", "candidate"]


class RunStarted(Frozen):
    kind: Literal["started"] = "started"
    run_id: str
    """Drawn once: another run of the same campaign measures anew, a resumed one finds its own jobs again."""
    campaign_name: str
    campaign_key: str
    """Digest of the campaign and of every file it names; A run is not resumed with another one."""
    versions: dict[str, str]
    targets: tuple[str, ...]


class TrialAsked(Frozen):
    kind: Literal["asked"] = "asked"
    trial: int
    """0 is M1."""
    role: Role
    candidate: Candidate
    sizes: NetworkSizes
    degree: float
    """Degree of lightening G; of a mixed rung what its share asks for."""
    evaluation: float | None
    """Size difference evaluation function E; None for M1."""
    predicted_bytes: int | None
    why: str


class PhaseDone(Frozen):
    """One training of a candidate, in the order of the method's phases."""

    what: str
    """`M2 trained on labels`, `M2 distilled into M1`, `M3 as w4a8, taught by M2`."""
    key: str
    parent: str | None
    teacher: str | None
    goes_on_from: str | None
    epochs: int
    validation: dict[str, float]
    """Metrics on validation data, of the fake-quantized network where it was lightened."""
    note: str | None = None
    """A remark on it."""


class NetworkTrained(Frozen):
    kind: Literal["trained"] = "trained"
    trial: int
    key: str
    parent: str | None
    seconds: float
    epochs: int
    validation: dict[str, float]
    """Float metrics on validation data."""
    lightened: dict[str, float] | None
    """Fake-quantized metrics on validation data; None for float networks."""
    ahead: bool = False
    """Found done when it was asked: trained while a board measured, or before an interruption."""
    layers: tuple[LayerChoice, ...] = ()
    """Of a lightened network, in forward order: the bits of each, and how sensitive it was where that chose them."""
    degree: float | None = None
    """G of what was trained; None where it is what was asked."""
    phases: tuple[PhaseDone, ...] = ()
    """Every training that led here, this one last."""


class ArtifactBuilt(Frozen):
    kind: Literal["built"] = "built"
    trial: int
    key: str
    artifact: Artifact
    """The first target's."""
    seconds: float
    converted: dict[str, float] | None = None
    """Metrics on validation data of the built model on the host."""
    elsewhere: dict[str, Artifact] = {}
    """By target, where it is another file than the first one's: compiled for another processor."""

    def on(self, target: str) -> Artifact:
        """Return the file that is measured on a target."""
        return self.elsewhere.get(target, self.artifact)

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """Every file once, the first target's first."""
        return tuple({a.sha256: a for a in (self.artifact, *self.elsewhere.values())}.values())


class JobIntended(Frozen):
    kind: Literal["job_intended"] = "job_intended"
    trial: int
    job_key: str
    target: str
    plan: Plan
    split: Split
    look: int
    """1; 2 is the extension of an inconclusive measurement."""


class SessionSeen(Frozen):
    kind: Literal["session"] = "session"
    trial: int
    job_key: str
    index: int
    label: str
    outcome: str
    detail: str = ""


class Judgement(Frozen):
    kind: Literal["judged"] = "judged"
    trial: int
    job_key: str
    target: str
    split: Split
    plan: Plan
    environment: Environment | None = None
    """As declared, with what the board's file adds; None in records of before it was kept."""
    look: int
    summary: Summary | None
    reference: Summary | None
    trust: Trust | None
    verdict: Verdict
    conditions: ConditionsDigest = ConditionsDigest()
    """The whole is with the samples."""
    emulated: bool = False
    """Measured on an emulated board: its times mean nothing as times."""
    seconds: float


class TrialErrored(Frozen):
    """A trial that could not be carried to a measurement. Never a move."""

    kind: Literal["errored"] = "errored"
    trial: int
    stage: Literal["describe", "train", "build", "parity", "push", "measure"]
    owner: Owner
    message: str


class SearchMoved(Frozen):
    kind: Literal["moved"] = "moved"
    trial: int
    """The trial that was left."""
    direction: Direction
    sentence: str


class FrontAxis(Frozen):
    """One measure that the members of a front are compared by."""

    name: str
    unit: str
    better: Literal["higher", "lower"]


class FrontMember(Frozen):
    trial: int
    values: tuple[float, ...]
    """On validation data, one for each axis; the worst over targets."""
    outcome: Outcome
    """Of its one look at test data; only PASS is output."""


class FrontRecord(Frozen):
    """The candidates that passed on validation data and that no other one beats on every axis."""

    axes: tuple[FrontAxis, ...]
    members: tuple[FrontMember, ...]


class RunFinished(Frozen):
    kind: Literal["finished"] = "finished"
    exit_code: int
    best: int | None
    """The trial that was output, or the nearest miss."""
    sentence: str
    front: FrontRecord | None = None
    """Where `search.pareto` asked for one, and something passed."""


Event = Annotated[
    RunStarted
    | TrialAsked
    | NetworkTrained
    | ArtifactBuilt
    | JobIntended
    | SessionSeen
    | Judgement
    | TrialErrored
    | SearchMoved
    | RunFinished,
    Field(discriminator="kind"),
]


class Entry(Frozen):
    """One line of ledger.jsonl."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    seq: int
    utc: str
    trials_spent: int
    wall_s_spent: float
    event: Event


class Trial(Frozen):
    """A candidate, as the fold of its events."""

    number: int
    role: Role
    candidate: Candidate
    sizes: NetworkSizes
    degree: float
    evaluation: float | None
    predicted_bytes: int | None
    why: str
    training: NetworkTrained | None = None
    build: ArtifactBuilt | None = None
    judgements: tuple[Judgement, ...] = ()
    error: TrialErrored | None = None
    move: SearchMoved | None = None

    @property
    def peak_activation_bytes(self) -> int:
        """The most that activations take at once, as they are lightened."""
        return self.sizes.peak_activation_bytes(Lightening.parse(self.candidate.lightening))

    @property
    def last_validation(self) -> Judgement | None:
        """The measurement that says most: the last one on validation data."""
        return next((j for j in reversed(self.judgements) if j.split == "validation"), None)

    @property
    def outcome(self) -> Outcome:
        if self.error is not None:
            return Outcome.ERROR
        return self.judgements[-1].verdict.outcome if self.judgements else Outcome.ERROR

    @property
    def passed(self) -> bool:
        """Confirmed on validation data under a plan that may pass, and passed its one look at test data."""
        final = [j.verdict.outcome for j in self.judgements if j.split == "test"]
        is_confirmed = any(
            j.split == "validation" and j.plan.may_pass and j.verdict.outcome is Outcome.PASS for j in self.judgements
        )
        return is_confirmed and bool(final) and set(final) == {Outcome.PASS}


def fold(events: Iterable[Event]) -> list[Trial]:
    """Return the trials in the order they were asked."""
    trials: dict[int, Trial] = {}

    def update(number: int, **fields: Any) -> None:
        if number in trials:
            trials[number] = trials[number].model_copy(update=fields)

    for event in events:
        match event:
            case TrialAsked():
                trials[event.trial] = Trial(
                    number=event.trial,
                    role=event.role,
                    candidate=event.candidate,
                    sizes=event.sizes,
                    degree=event.degree,
                    evaluation=event.evaluation,
                    predicted_bytes=event.predicted_bytes,
                    why=event.why,
                )
            case NetworkTrained():
                update(event.trial, training=event, **({} if event.degree is None else {"degree": event.degree}))
            case ArtifactBuilt():
                update(event.trial, build=event)
            case Judgement() if event.trial in trials:
                update(event.trial, judgements=(*trials[event.trial].judgements, event))
            case TrialErrored():
                update(event.trial, error=event)
            case SearchMoved():
                update(event.trial, move=event)
            case _:
                pass
    return list(trials.values())

"""The loop (S701 to S706): obtain M1, measure it, then candidate after candidate until one is proven.

One controller decides and appends to the ledger. It is driven by `ask`, `carry_out` and `tell`, so that whoever holds
it owns the loop (app.study). What can fail for reasons outside the network (a board, the converter) never
becomes a move: see `Controller._confirm`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgeloop.core.artifact import Artifact
from edgeloop.core.campaign import Campaign
from edgeloop.core.events import RunFinished, RunStarted, SearchMoved, Split, Trial, TrialAsked, TrialErrored
from edgeloop.core.lightening import Lightening
from edgeloop.core.network import Candidate, NetworkSpec
from edgeloop.core.verdict import Outcome
from edgeloop.errors import BuildError, EdgeloopError, HarnessError, ModelError, ParityError, UserError
from edgeloop.loop.external_measurements import ExternalMeasurement, measured_by_owner
from edgeloop.loop.measure_and_judge import Contender, ReferenceOnBoard, RunOn
from edgeloop.loop.run_outcome import (
    SPACE_EXHAUSTED,
    Proof,
    confirmed,
    front_found,
    none_passed,
    passed,
    proof_of,
    refuted,
    test_outcome,
    unproven,
)
from edgeloop.loop.train_and_build import Adapters, TrainAndBuild
from edgeloop.ports import Bench, Strategy
from edgeloop.search.pareto import Front, front
from edgeloop.search.size_model import degree, predicted_bytes
from edgeloop.sentences import Argument, Sentence


class Controller:
    """Runs one campaign. A second controller over the same ledger goes on where the first one stopped."""

    def __init__(self, campaign: Campaign, reference: NetworkSpec, means: Adapters) -> None:
        self._campaign = campaign
        self._m1 = reference
        self._means = means
        self._memo = means.memo
        self._references: dict[str, ReferenceOnBoard] = {}
        self._making = TrainAndBuild(campaign, reference, means)
        self._strategy: Strategy | None = None
        self._open: Trial | None = None
        self._told_m1 = False
        self._own_m1: Mapping[Split, ExternalMeasurement] = {}
        self._number = 0
        self._end: str | None = None
        """Why nothing more is asked."""

    def ask(self) -> Trial | None:
        """The next trial to carry out, M1 first (as trial 0); None where the run has come to its end.

        A trial that is asked and not told yet is asked again. Trials that an earlier controller finished are told to
        the strategy from the ledger, and not asked; M1 alone is, where it was measured on boards: carried out again,
        its measurement is read from disk. Raises UserError where the ledger is of another campaign.
        """
        self._begin()
        if self._open is None and self._end is None and self._memo.find(RunFinished, "") is None:
            self._recall_own_m1()
            self._open = self._next() if self._told_m1 else self._ask_m1()
        return self._open

    def carry_out(self, trial: Trial) -> Trial:
        """Train, build, measure and judge the trial that was asked; return it as it then is.

        Raises UserError; BoardError and LabError leave the run resumable.
        """
        self._is_open(trial)
        if trial.role == "reference":
            self._measure_m1(trial.candidate)
        else:
            self._confirm(trial)
        return self._trial(trial.number)

    def make(self, trial: Trial) -> Artifact:
        """Train and build the trial that was asked, and measure nothing; the first target's. Raises as `carry_out`."""
        self._is_open(trial)
        return self._making.make(trial.number, trial.candidate).artifact

    def judge_own(self, trial: Trial, figures: ExternalMeasurement, test: ExternalMeasurement | None) -> Trial:
        """In place of `carry_out`: judge what the caller measured on validation data, and where a candidate is
        confirmed by that, on `test` data.

        Raises UserError for figures that can't be judged.
        """
        self._is_open(trial)
        given: dict[Split, ExternalMeasurement] = {"validation": figures}
        if test is not None:
            given["test"] = test
        judged, *looks = [
            self._means.measuring.judged_own(trial, self._beside_m1(one, split), split) for split, one in given.items()
        ]
        if trial.role == "reference":
            self._means.keep_own_m1(given)
        self._memo.append(judged)
        if trial.role == "reference" or confirmed(self._trial(trial.number)):
            for look in looks:
                self._memo.append(look)
        if trial.role == "reference":
            self._own_m1 = given
            self._strategy_beside(figures.deployed_bytes)
        return self._trial(trial.number)

    def tell(self, trial: Trial) -> None:
        """Take in a trial that was carried out: the strategy learns it, and its move is written down."""
        self._is_open(trial)
        trial = self._trial(trial.number)
        if not trial.judgements and trial.error is None:
            raise UserError(f"trial {trial.number} has nothing to tell", next_step="carry it out first")
        if trial.role == "reference" and self._strategy is None:
            raise UserError("M1 was not made by this study", next_step="carry it out, or tell figures of your own")
        self._open = None
        if trial.role == "reference":
            self._told_m1 = True
        else:
            self._learn(trial)

    def finish(self) -> RunFinished:
        """End the run, in Pareto mode after one look at test data for each network of the front.

        Raises UserError where a trial is still to be carried out.
        """
        if self.ask() is not None:
            raise UserError("the run has not come to its end", next_step="carry out and tell what `ask` returns")
        return self._memo.once(RunFinished, "", self._finished)

    def close(self) -> None:
        """Let go of builds that were started ahead."""
        self._making.close()

    def _beside_m1(self, figures: ExternalMeasurement, split: Split) -> ExternalMeasurement:
        """Figures with what was told of M1: its times of another hour are no pairs, its scores and bytes are."""
        m1 = self._own_m1.get(split)
        if m1 is None or figures.beside is not None:
            return figures
        return replace(figures, beside=replace(m1, sessions=()))

    def _recall_own_m1(self) -> None:
        """Go on from figures of the caller's own that an earlier controller was told of M1: it is not asked again."""
        own = self._means.own_m1.get("validation")
        if self._told_m1 or own is None or not measured_by_owner(self._ask_m1()):
            return
        self._own_m1 = self._means.own_m1
        self._strategy_beside(own.deployed_bytes)
        self._told_m1 = True

    def _begin(self) -> None:
        started = self._memo.once(RunStarted, "", self._start)
        if started.campaign_key != self._means.campaign_key:
            raise UserError(
                "the campaign, or a file it names, is not the one this run was started with",
                next_step=Sentence("start another run with {}, or put the files back", Argument("out", "DIR")),
            )

    def _is_open(self, trial: Trial) -> None:
        if self._open is None or trial.number != self._open.number:
            raise UserError(
                f"trial {trial.number} is not the one that was asked"
                + (f", which is trial {self._open.number}" if self._open is not None else "")
            )

    def _start(self) -> RunStarted:
        return RunStarted(
            run_id=secrets.token_hex(8),
            campaign_name=self._campaign.name,
            campaign_key=self._means.campaign_key,
            versions=self._means.versions,
            targets=tuple(bench.board.name for bench in self._means.benches),
        )

    # S701: the reference network, as an artifact that is measured like every other

    def _ask_m1(self) -> Trial:
        reference = self._campaign.reference
        candidate = Candidate(network=self._m1, lightening=reference.lightening, **reference.setting.model_dump())
        return self._ask(0, candidate, "the reference network M1, measured as it would be deployed", None, None)

    def _measure_m1(self, candidate: Candidate) -> None:
        """Make and measure M1; what will be asked first is trained meanwhile."""
        if self._means.first_larger is not None:
            self._making.describe(self._means.first_larger)
        built = self._making.make(0, candidate)
        strategy = self._strategy_beside(built.artifact.deployed_bytes)
        for bench in self._means.benches:
            self._references[bench.board.name] = self._means.measuring.reference(
                bench,
                candidate,
                built.on(bench.board.name),
                lambda bench, work: self._making.run_on(bench, work, strategy),
            )

    def _strategy_beside(self, m1_bytes: int) -> Strategy:
        """The strategy, made once M1's own file is known."""
        if self._strategy is None:
            self._strategy = self._means.strategy(
                self._m1, self._making.describe(self._m1), m1_bytes, self._making.describe
            )
        return self._strategy

    # from candidate to candidate

    def _next(self) -> Trial | None:
        strategy = self._asking
        while self._end is None:
            ended = self._budget_ended(self._number)
            if ended is not None and self._memo.find(TrialAsked, str(self._number + 1)) is None:
                self._end = ended
                break
            asked = strategy.ask()
            if asked is None:
                self._end = SPACE_EXHAUSTED
                break
            candidate, why = asked
            trial = self._ask(self._number + 1, candidate, why, *strategy.rating(candidate))
            if self._memo.find(SearchMoved, str(trial.number)) is None:
                return trial
            self._learn(trial)
        return None

    @property
    def _asking(self) -> Strategy:
        assert self._strategy is not None, "M1 goes before every candidate"
        return self._strategy

    def _learn(self, trial: Trial) -> None:
        direction, sentence = self._asking.tell(trial)
        self._memo.append(SearchMoved(trial=trial.number, direction=direction, sentence=sentence))
        self._number = trial.number
        if confirmed(trial) and not self._campaign.search.pareto:
            self._end = f"trial {trial.number} was confirmed"

    def _budget_ended(self, trials: int) -> str | None:
        budget = self._campaign.budget
        if trials >= budget.trials:
            return f"the budget of {budget.trials} trials is used up"
        if self._memo.wall_s >= budget.wall_minutes * 60:
            return f"the budget of {budget.wall_minutes:g} minutes is used up"
        return None

    def _ask(
        self, number: int, candidate: Candidate, why: str, evaluation: float | None, predicted: int | None
    ) -> Trial:
        def make() -> TrialAsked:
            rung = Lightening.parse(candidate.lightening)
            sizes, before = self._making.sizes(candidate), self._making.describe(candidate.network)
            return TrialAsked(
                trial=number,
                role="candidate" if number else "reference",
                candidate=candidate,
                sizes=sizes,
                degree=degree(sizes, rung, before=before),
                evaluation=evaluation,
                predicted_bytes=predicted_bytes(sizes, rung) if predicted is None else predicted,
                why=why,
            )

        asked = self._memo.once(TrialAsked, number, make)
        if asked.candidate != candidate:
            raise HarnessError(
                f"ledger: trial {number} was {asked.candidate}, this version would ask {candidate}",
                next_step=Sentence(
                    "resume with the version that began the run, or start another with {}", Argument("out", "DIR")
                ),
            )
        return self._trial(number)

    def _confirm(self, trial: Trial) -> None:
        """Train, build, measure, judge; without a front to wait for, the look at test data too.

        An error of the harness or the model closes the trial, not the run. What closed a trial stands: a resumed run
        does not try it again.
        """
        number, candidate = trial.number, trial.candidate
        if any(bench.board.name not in self._references for bench in self._means.benches):
            raise UserError(
                "M1 was not measured on the boards", next_step="carry out trial 0, or tell figures of your own"
            )
        if self._memo.find(TrialErrored, str(number)) is not None:
            return
        try:
            contender = Contender(number, candidate, self._making.make(number, candidate))
            outcome = self._means.measuring.confirm(contender, *self._where())
            if outcome is Outcome.PASS and not self._campaign.search.pareto:
                self._means.measuring.prove(contender, *self._where())
        except (HarnessError, ModelError) as error:
            stage = "parity" if isinstance(error, ParityError) else "build" if isinstance(error, BuildError) else None
            self._errored(number, error, stage)

    def _where(self) -> tuple[Mapping[str, ReferenceOnBoard], Sequence[Bench], RunOn]:
        """M1 on each board, the boards, and how a measurement is carried out on one."""
        return self._references, self._means.benches, lambda bench, work: self._making.run_on(bench, work, self._asking)

    def _errored(self, number: int, error: EdgeloopError, stage: str | None) -> None:
        trial = self._trial(number)
        reached = stage or ("train" if trial.training is None else "build" if trial.build is None else "measure")
        self._memo.append(
            TrialErrored.model_validate(
                {"trial": number, "stage": reached, "owner": error.owner, "message": "; ".join(error.lines())}
            )
        )

    # S706: the end

    def _trial(self, number: int) -> Trial:
        return next(trial for trial in self._memo.trials() if trial.number == number)

    def _finished(self) -> RunFinished:
        trials, why = self._memo.trials(), self._end or SPACE_EXHAUSTED
        if self._campaign.search.pareto:
            found = front([t for t in trials if t.role == "candidate" and confirmed(t)], *self._means.compared_by)
            return self._front_proven(found, why) if found.places else none_passed(trials, why)
        last = self._trial(self._number)
        match proof_of(last):
            case Proof.PROVEN:
                return passed(last, ", ".join(bench.board.name for bench in self._means.benches))
            case Proof.REFUTED:
                return refuted(last)
            case Proof.OPEN:
                return unproven(last) if confirmed(last) else none_passed(trials, why)

    def _front_proven(self, found: Front, why: str) -> RunFinished:
        """Look at test data once for every network of the front; no look changes what is on it."""
        for number in found.places:
            trial = self._trial(number)
            if trial.error is not None or measured_by_owner(trial):
                continue
            assert trial.build is not None, "what was confirmed on a board was built"
            contender = Contender(number, trial.candidate, trial.build)
            try:
                self._means.measuring.prove(contender, *self._where(), among=len(found.places))
            except (HarnessError, ModelError) as error:
                self._errored(number, error, "measure")
        trials = self._memo.trials()
        return front_found(found, {number: test_outcome(self._trial(number)) for number in found.places}, trials, why)

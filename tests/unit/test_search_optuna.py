"""The optuna strategy: what it is told, and the storage that others look at."""

from __future__ import annotations

import importlib.util
import json
import warnings
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import campaigns
import optuna
import optuna_dashboard
import pytest

from edgeloop.config.campaign_file import campaign_key, load_campaign
from edgeloop.core.campaign import Campaign
from edgeloop.core.limits import LimitSet, parse_limits
from edgeloop.core.verdict import Outcome
from edgeloop.errors import MissingExtraError, StationError
from edgeloop.ports import Strategy
from edgeloop.search.strategies import StudyStorage, strategy_for
from edgeloop.search.strategies.optuna import STARTUP_TRIALS, OptunaStrategy, objectives_of
from edgeloop.search.strategies.optuna_storage import Publisher, check_storage
from edgeloop.testing.contracts.strategy import LIMITS, contract_space, contract_truth
from edgeloop.testing.fakes.simulated_board import SimulatedBoard


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'optuna.db'}"


def play(strategy: Strategy, trials: int, faults: dict[int, Outcome] | None = None) -> list[str]:
    """Ask, measure and tell; `faults` by the number of the trial. Returns the candidates."""
    board, names = SimulatedBoard(LIMITS, contract_truth), []
    for number in range(1, trials + 1):
        asked = strategy.ask()
        assert asked is not None
        fault = (faults or {}).get(number)
        board.faults = {asked[0].key: fault} if fault else {}
        strategy.tell(board.measure(number, *asked, strategy))
        names.append(str(asked[0]))
    return names


def publishing(folder: Path) -> OptunaStrategy:
    return OptunaStrategy(contract_space(), LIMITS, publisher=Publisher(url(folder), "a-run"))


def stored(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="a-run", storage=url(folder))


def test_each_family_of_limits_is_an_objective_with_the_direction_of_its_bound() -> None:
    limits = parse_limits(["latency.p90_ms=5", "latency.p50_ms=4", "size_bytes=9", "mae=3"], frozenset({"mae"}))
    found = objectives_of(limits, frozenset({"mae"}))
    assert [(o.name, o.maximise) for o in found] == [
        ("mae", False),
        ("latency p90, ms", False),
        ("deployed_size, bytes", False),
    ]
    drops = LimitSet.model_validate({"limit": [{"metric": "top1", "max_drop_from_reference": 0.1}]})
    assert objectives_of(drops, frozenset({"mae"}))[0].maximise
    errors = LimitSet.model_validate({"limit": [{"metric": "mae", "max_drop_from_reference": 0.1}]})
    assert not objectives_of(errors, frozenset({"mae"}))[0].maximise


def test_the_storage_holds_parameters_values_and_how_far_outside_each_limit_a_trial_was(tmp_path: Path) -> None:
    names = play(publishing(tmp_path), 3)
    study = stored(tmp_path)
    assert study.metric_names == ["top1", "latency p90, ms", "deployed_size, bytes"]
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
    for name, trial in zip(names, study.trials, strict=True):
        assert set(trial.params) == {"width", "depth", "lightening", "engine", "threads"}
        assert trial.user_attrs["candidate"] == name
        assert trial.values is not None
        inside = trial.user_attrs["outcome"] == "PASS"
        assert all(value <= 0 for value in trial.constraints.values()) == inside
        latency, bound = trial.values[1], 2.5
        assert trial.user_attrs["limits"] == "L1, L2, L3"
        assert trial.constraints["1"] == pytest.approx((latency - bound) / bound)


def test_optuna_dashboard_shows_a_run_with_its_values_and_what_is_outside_its_limits(tmp_path: Path) -> None:
    names = play(publishing(tmp_path), 3)

    def shown(path: str) -> Any:
        asked: dict[str, Any] = {"PATH_INFO": path}
        setup_testing_defaults(asked)
        told: list[str] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what Optuna calls experimental
            serve = optuna_dashboard.wsgi(url(tmp_path))
            answer = b"".join(serve(asked, lambda status, *_: told.append(status)))
        assert told == ["200 OK"]
        return json.loads(answer)

    (study,) = shown("/api/studies")["study_summaries"]
    assert study["study_name"] == "a-run"
    trials = shown(f"/api/studies/{study['study_id']}")["trials"]
    assert [trial["values"] for trial in trials] == [trial.values for trial in stored(tmp_path).trials]
    for name, trial in zip(names, trials, strict=True):
        attributes = {one["key"]: one["value"] for one in trial["user_attrs"]}
        assert attributes["candidate"] == name
        assert len(trial["constraints"]) == 3
        assert all(value <= 0 for value in trial["constraints"]) == (attributes["outcome"] == "PASS")


def test_what_was_not_measured_is_a_failed_trial_without_values(tmp_path: Path) -> None:
    play(publishing(tmp_path), 3, faults={1: Outcome.ERROR, 2: Outcome.INVALID})
    trials = stored(tmp_path).trials
    assert [trial.state.name for trial in trials] == ["FAIL", "FAIL", "COMPLETE"]
    assert [trial.values for trial in trials[:2]] == [None, None]
    assert "throttled at 85 C" in trials[1].user_attrs["reason"]


def test_what_could_not_be_decided_is_told_with_its_values_and_as_no_pass(tmp_path: Path) -> None:
    play(publishing(tmp_path), 1, faults={1: Outcome.INCONCLUSIVE})
    (trial,) = stored(tmp_path).trials
    assert trial.state.name == "COMPLETE"
    assert all(value > 0 for value in trial.constraints.values())


@pytest.mark.parametrize("happened", ["kept", "lost", "foreign", "shorter", "longer"])
def test_a_storage_is_made_to_hold_what_the_ledger_tells_and_nothing_is_asked_twice(
    tmp_path: Path, happened: str
) -> None:
    expected = play(OptunaStrategy(contract_space(), LIMITS), 9)
    play(publishing(tmp_path), 6)
    storage = tmp_path / "optuna.db"
    study = stored(tmp_path)
    if happened == "lost":
        storage.unlink()
    if happened == "foreign":
        optuna.delete_study(study_name="a-run", storage=url(tmp_path))
        other = optuna.create_study(study_name="a-run", storage=url(tmp_path), directions=["minimize"])
        other.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    if happened == "shorter":
        optuna.delete_study(study_name="a-run", storage=url(tmp_path))
        play(publishing(tmp_path), 2)
    if happened == "longer":
        study.enqueue_trial({"width": 2.0})
    assert play(publishing(tmp_path), 9) == expected
    assert [trial.user_attrs["candidate"] for trial in stored(tmp_path).trials] == expected
    assert len(set(expected)) == 9


def test_a_storage_in_memory_serves_whoever_holds_it() -> None:
    publisher = Publisher("sqlite://", "a-run")
    assert len(play(OptunaStrategy(contract_space(), LIMITS, publisher=publisher), 3)) == 3
    play(OptunaStrategy(contract_space(), parse_limits(["top1=0.9"]), publisher=publisher), 2)


def test_two_runs_share_a_storage_without_touching_each_other(tmp_path: Path) -> None:
    play(publishing(tmp_path), 2)
    play(OptunaStrategy(contract_space(), LIMITS, publisher=Publisher(url(tmp_path), "another-run")), 3)
    assert len(stored(tmp_path).trials) == 2


def test_another_seed_is_another_path_and_the_same_seed_the_same() -> None:
    def path(seed: int) -> list[str]:
        space = contract_space()
        space.search = space.search.model_copy(update={"strategy": "optuna", "seed": seed})
        return play(OptunaStrategy(space, LIMITS), 8)

    assert path(1) == path(1)
    assert path(1) != path(2)


def test_while_points_are_drawn_at_random_what_is_likely_is_what_comes() -> None:
    strategy = OptunaStrategy(contract_space(), LIMITS)
    board = SimulatedBoard(LIMITS, contract_truth)
    for number in range(1, STARTUP_TRIALS):
        likely = strategy.likely() if number > 1 else []
        asked = strategy.ask()
        assert asked is not None
        assert [asked[0]] == likely or number == 1
        foreseen = strategy.likely()
        strategy.tell(board.measure(number, *asked, strategy))
        assert strategy.likely() == foreseen


def test_callers_keep_their_own_log_level_of_optuna(tmp_path: Path) -> None:
    before = optuna.logging.get_verbosity()
    play(publishing(tmp_path), 1)
    assert optuna.logging.get_verbosity() == before


@pytest.mark.parametrize(
    "storage",
    ["nonsense://x", "sqlite:////no/such/folder/optuna.db", "postgresql+nodriver://host/db"],
)
def test_a_storage_that_cant_be_used_is_one_line_before_anything_is_trained(storage: str) -> None:
    with pytest.raises(StationError, match="can't be used") as caught:
        check_storage(storage)
    (line,) = caught.value.lines()
    assert storage in line
    assert "\n" not in line


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "optuna" else find(name))
    space = contract_space()
    space.search = space.search.model_copy(update={"strategy": "optuna"})
    with pytest.raises(MissingExtraError) as caught:
        strategy_for(space, LIMITS, storage=StudyStorage("sqlite://", "s"))
    assert "pip install 'edgeloop[search]'" in caught.value.lines()[0]


def campaign(**search: object) -> Campaign:
    return Campaign.model_validate(
        {
            "schema": 1,
            "name": "c",
            "targets": ["b"],
            "limits": {"limit": [{"metric": "deployed_size", "max_bytes": 9}]},
            "reference": {"family": "ds_cnn"},
            "search": search,
        }
    )


@pytest.mark.parametrize(
    ("search", "says"),
    [
        ({"storage": "sqlite:///a.db"}, "storage goes with strategy 'optuna', not with 'patent'"),
        ({"strategy": "optuna", "storage": "a.db"}, "storage is a URL, such as sqlite:///optuna.db"),
        ({"strategy": "optuna", "storage": "mysql://me:secret@host/db"}, "storage holds a password"),
        ({"strategy": "grid", "seed": 3}, "seed goes with strategy 'optuna' or 'random'"),
        ({"strategy": "annealing"}, "Input should be 'patent', 'optuna', 'grid' or 'random'"),
    ],
)
def test_search_keys_that_would_do_nothing_are_faults(search: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        campaign(**search)
    assert "secret" not in str(caught.value).split("input_value")[0]


def test_a_storage_file_is_taken_from_the_campaigns_folder_and_may_move(tmp_path: Path) -> None:
    def loaded(storage: str) -> Campaign:
        path = campaigns.write_campaign(tmp_path / "campaign", target="local")
        text = path.read_text().replace("[search]", f'[search]\nstrategy = "optuna"\nstorage = "{storage}"')
        path.write_text(text)
        return load_campaign(path)

    one, other = loaded("sqlite:///studies/all.db"), loaded("postgresql://host/studies")
    assert one.search.storage == f"sqlite:///{tmp_path}/campaign/studies/all.db"
    assert other.search.storage == "postgresql://host/studies"
    assert campaign_key(one) == campaign_key(other), "where a study is written down decides nothing"

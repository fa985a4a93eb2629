"""Delegates as a dimension of the search: what is asked, how it is keyed, counted, judged and told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from condition_faults import faults
from factories import make_artifact, make_session

from edgeloop.analysis.delegation import least_taken, short_of_share
from edgeloop.app.delegate_checks import delegate_compilers
from edgeloop.board.job import job_id_of, wire_job
from edgeloop.config.board_models import load_model
from edgeloop.core.artifact import Artifact
from edgeloop.core.board import Board, Delegate
from edgeloop.core.campaign import Campaign, Reference, Search
from edgeloop.core.conditions import read_conditions
from edgeloop.core.limits import LimitSet
from edgeloop.core.measurement import MeasureRequest, ScheduleStep, Session, Subject
from edgeloop.core.network import Candidate, NetworkSpec, Setting
from edgeloop.core.plan import Environment, Plan
from edgeloop.errors import ConfigError
from edgeloop.search.space import SearchSpace
from edgeloop.search.strategies.grid_random import random_order
from edgeloop.search.strategies.optuna import OptunaStrategy
from edgeloop.testing.fakes.simulated_board import simulated_sizes
from edgeloop_agent.engines.delegation import count_operators
from edgeloop_agent.wire import Job, decode, encode

CORAL = Delegate(name="coral", library="libedgetpu.so.1", options={"device": "usb"}, ops_delegated_min_pct=95)
M1 = NetworkSpec(family="ds_cnn")
LIMITS = LimitSet.model_validate({"limit": [{"metric": "latency", "statistic": "p90", "max_ms": 3}]})


def artifact(**changes: Any) -> Artifact:
    return make_artifact(deployed_bytes=10, **changes)


def session(told: dict[str, Any] | None, label: str = "candidate", outcome: Any = "ok") -> Session:
    return make_session(label=label, outcome=outcome, conditions=read_conditions({"delegate": told}))


def board(*delegates: Delegate, name: str = "pi") -> Board:
    return Board(name=name, model=load_model("raspberry-pi-4"), delegate=delegates)


def node(kind: str, inputs: Sequence[int], outputs: Sequence[int]) -> dict[str, Any]:
    return {"op_name": kind, "inputs": inputs, "outputs": outputs}


# counting


def test_a_delegate_took_what_lies_between_the_tensors_that_its_node_reads_and_writes() -> None:
    chain = [
        node("CONV_2D", [0, 10, -1], [1]),
        node("RELU", [1], [2]),
        node("ADD", [2, 1], [3]),
        node("MEAN", [3], [4]),
    ]
    assert count_operators(chain) == {"operators": 4, "taken": 0, "pieces": 0}
    assert count_operators([*chain, node("DELEGATE", [1], [3])]) == {"operators": 4, "taken": 2, "pieces": 1}
    assert count_operators([*chain, node("DELEGATE", [0, 10], [1, 3])]) == {"operators": 4, "taken": 3, "pieces": 1}
    two = [*chain, node("DELEGATE", [0, 10], [1]), node("DELEGATE", [3], [4])]
    assert count_operators(two) == {"operators": 4, "taken": 2, "pieces": 2}


# judging


def test_a_delegate_that_did_not_take_its_share_is_a_reason_once() -> None:
    subject = Subject("candidate", artifact(), delegate=CORAL)
    few = {"name": "coral", "operators": 4, "taken": 1, "pieces": 1}
    assert short_of_share([session(few), session(few)], [subject]) == [
        "candidate: the delegate coral took 1 of 4 operators in 1 piece (25 %), at least 95 % is declared"
    ]
    enough = {"name": "coral", "operators": 20, "taken": 19, "pieces": 2}
    assert short_of_share([session(enough)], [subject]) == []
    found = least_taken([session(enough), session(few)], subject)
    assert found is not None
    assert found.taken_pct == 25


def test_a_board_that_does_not_tell_the_share_is_not_believed() -> None:
    subject = Subject("candidate", artifact(), delegate=CORAL)
    assert short_of_share([session(None)], [subject]) == [
        "candidate: the board does not tell what the delegate coral took"
    ]
    assert short_of_share([session(None, outcome="crashed")], [subject]) == []
    assert short_of_share([session(None, label="reference")], [subject]) == []
    assert short_of_share([session(None)], [Subject("candidate", artifact())]) == []


def test_of_a_compiled_file_the_share_is_that_of_the_network_before() -> None:
    subject = Subject("candidate", artifact(compiled_operators=40), delegate=CORAL)
    one_left = {"name": "coral", "operators": 2, "taken": 1, "pieces": 1}
    found = least_taken([session(one_left)], subject)
    assert found is not None
    assert (found.operators, found.taken, found.taken_pct) == (40, 39, 97.5)
    assert short_of_share([session(one_left)], [subject]) == []


@pytest.mark.parametrize(
    "told",
    [
        7,
        {"name": "coral"},
        {"name": "coral", "operators": 4, "taken": 5, "pieces": 1},
        {"name": "coral", "operators": 4, "taken": True, "pieces": 1},
        {"name": "coral", "operators": 4, "taken": -1, "pieces": 1},
        {"name": "co\nral", "operators": 4, "taken": 1, "pieces": 1},
    ],
)
def test_what_a_board_tells_of_a_delegate_is_checked(told: Any) -> None:
    assert list(faults({"delegate": told})) == ["delegate"]
    assert list(faults({"delegate": None})) == []


# keys


def request(*, delegate: Delegate | None) -> MeasureRequest:
    subject = Subject("candidate", artifact(), delegate=delegate)
    step = ScheduleStep(0, "candidate", "latency")
    return MeasureRequest("k", (subject,), (step,), Plan.of("quick"), Environment(), Path("/f"))


def test_another_delegate_is_another_job_and_none_is_the_job_it_always_was() -> None:
    plain = Subject("candidate", artifact())
    assert plain.words == ["candidate", "a" * 64, "litert", 1]
    other = CORAL.model_copy(update={"options": {"device": "pci"}})
    ids = {job_id_of(request(delegate=delegate), None) for delegate in (None, CORAL, other)}
    assert len(ids) == 3


def test_a_job_carries_library_and_options_as_text() -> None:
    job = wire_job(
        request(delegate=CORAL),
        board(CORAL),
        job_id="1" * 32,
        agent_sha256="b" * 64,
        token="t",
        owner="o",
        data_sha256=None,
        python_path=[],
        deadline_s=60.0,
    )
    read = decode(Job, encode(job)).subjects[0].delegate
    assert read is not None
    assert (read.name, read.library, read.options) == ("coral", "libedgetpu.so.1", {"device": "usb"})


def test_a_candidate_of_before_there_were_delegates_reads_and_says_none() -> None:
    plain = Candidate.model_validate({"network": M1.model_dump(), "lightening": "w8a8"})
    assert plain.delegate is None
    assert plain.key != plain.model_copy(update={"delegate": "coral"}).key
    assert str(plain.model_copy(update={"delegate": "coral", "threads": 4})) == "width 1 w8a8 with coral x4"


# the search


def test_delegates_are_combined_with_the_engines_that_take_one() -> None:
    search = Search(engines=("litert", "tvm"), threads=(1, 2), delegates=("none", "coral"))
    assert [str(setting) for setting in search.settings] == [
        "litert with 1 thread",
        "litert with 1 thread and the delegate coral",
        "litert with 2 threads",
        "litert with 2 threads and the delegate coral",
        "tvm with 1 thread",
        "tvm with 2 threads",
    ]


def test_a_delegate_that_its_engine_does_not_take_is_one_line() -> None:
    with pytest.raises(ValueError, match="delegates: tvm takes none; add 'none' to them, or leave tvm out"):
        Search(engines=("litert", "tvm"), delegates=("coral",))
    with pytest.raises(ValueError, match="engine tvm takes no delegate: leave it out"):
        Reference(family="ds_cnn", engine="tvm", delegate="coral")


def space(compiling: Sequence[str] = (), **search: Any) -> SearchSpace:
    sizes = simulated_sizes(M1)
    return SearchSpace(
        search=Search(widths=(1.41, 2.0), lightenings=("fp32", "w8a8"), **search),
        m1=M1,
        m1_sizes=sizes,
        m1_lightening="fp32",
        m1_bytes=4 * sizes.parameters,
        larger="factory",
        teacher="none",
        limits=LIMITS,
        sizes_of=simulated_sizes,
        compiling=compiling,
    )


def test_every_network_and_rung_is_offered_with_and_without_a_delegate() -> None:
    found = space(delegates=("none", "coral"))
    assert len(found.points) == 2 * 2 * 2
    assert {found.candidate(point).delegate for point in found.points} == {None, "coral"}
    assert len(random_order(found)) == 8
    assert all(found.same_file(found.points[0], point) for point in found.points)
    plain = [
        found.label(p) + found.rungs[p.rung].name for p in random_order(found) if not found.settings[p.setting].delegate
    ]
    without = space()
    assert plain == [without.label(p) + without.rungs[p.rung].name for p in random_order(without)]


def test_the_sampler_draws_delegates_too() -> None:
    pytest.importorskip("optuna")
    strategy = OptunaStrategy(space(delegates=("none", "coral")), LIMITS)
    seen = set()
    while (asked := strategy.ask()) is not None:
        seen.add(asked[0].delegate)
    assert seen == {None, "coral"}


def test_a_compiled_file_teaches_nothing_of_other_files() -> None:
    found = space(compiling=("coral",), delegates=("none", "coral"))
    plain = next(p for p in found.points if found.settings[p.setting] == Setting())
    compiled = next(p for p in found.points if found.settings[p.setting].delegate and p.network == plain.network)
    assert not found.same_file(plain, compiled)
    before = found.predicted_bytes(plain)
    found.learn_file(compiled, 10 * found.predicted_bytes(compiled))
    assert found.predicted_bytes(plain) == before


# before a run


def campaign(**search: Any) -> Campaign:
    plain = {"schema": 1, "name": "c", "targets": ["pi"], "limits": LIMITS, "reference": {"family": "ds_cnn"}}
    return Campaign.model_validate({**plain, "search": search})


def test_a_delegate_that_a_board_does_not_declare_is_one_line_before_the_run() -> None:
    asked = campaign(delegates=("none", "coral"))
    assert delegate_compilers(asked, [board(CORAL)]) == {}
    with pytest.raises(ConfigError) as caught:
        delegate_compilers(asked, [board(CORAL), board(name="other")])
    (line,) = caught.value.lines()
    step = "add [[delegate]] to its file, or leave it out"
    assert line == f"search.delegates: other declares no delegate 'coral'; it has none; {step}"


def test_what_compiles_has_to_be_on_this_host_and_the_same_for_all_boards() -> None:
    asked = campaign(delegates=("coral",))
    compiled = CORAL.model_copy(update={"compile_command": ("no-such-compiler", "{model}")})
    with pytest.raises(ConfigError, match="pi: no-such-compiler, which compiles for coral, is not on this host"):
        delegate_compilers(asked, [board(compiled)])
    with pytest.raises(ConfigError, match="pi and other have other compilers for coral"):
        delegate_compilers(asked, [board(CORAL), board(compiled, name="other")])
    here = CORAL.model_copy(update={"compile_command": ("true", "{model}")})
    assert delegate_compilers(asked, [board(here)]) == {"coral": ("true", "{model}")}

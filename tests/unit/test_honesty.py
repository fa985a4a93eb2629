"""A small copy of the proof that verdicts are honest; the whole table is docs/results/honesty.md, by `make honesty`."""

from __future__ import annotations

import math

import numpy as np
import pytest
from factories import make_artifact
from honesty.noise import NOISES, Noise
from honesty.page import page
from honesty.rates import Rate
from honesty.scores import score_cells
from honesty.times import SETTINGS, TRUE_NS, Setting, is_promised, simulate

from edgeloop.analysis.decision import decide_timing
from edgeloop.analysis.spread import RULES, spread_of
from edgeloop.analysis.subject_data import subject_data
from edgeloop.analysis.verdict import judge
from edgeloop.core.conditions import SessionConditions
from edgeloop.core.limits import parse_limits
from edgeloop.core.measurement import Session, Subject
from edgeloop.core.plan import Plan

NOW, BEFORE = RULES["t-log-sessions/2"], RULES["t-log-sessions/1"]
STANDARD = SETTINGS[1]
TRIALS = 300
AT_MOST = 0.05 + 3.3 * math.sqrt(0.05 * 0.95 / TRIALS)
"""One in two thousand rates of exactly 5 % lies above."""


def noise(name: str) -> Noise:
    return next(noise for noise in NOISES if noise.name == name)


@pytest.mark.parametrize("name", ["plain", "drift", "autocorrelation", "rare spikes", "modes within"])
def test_at_the_limit_a_network_passes_and_fails_at_most_at_the_nominal_rate(name: str) -> None:
    for cell in simulate(noise(name), STANDARD, TRIALS, 1, NOW):
        assert is_promised(cell)
        assert cell.passes.share <= AT_MOST, cell
        assert cell.fails.share <= AT_MOST, cell


def test_the_table_sees_a_dishonest_rule() -> None:
    """The first version of the rule let the p99 of samples that come in bursts pass, which is why there is a second."""
    cells = {(c.kind, c.statistic): c for c in simulate(noise("long autocorrelation"), STANDARD, TRIALS, 1, BEFORE)}
    assert cells["one look", "p99"].passes.is_over
    assert cells["two looks", "p99"].passes.share > 0.1
    assert not cells["one look", "p50"].passes.is_over


def test_equal_seeds_give_equal_tables() -> None:
    short = Setting("quick", 3, {"p50": 20, "p90": 30, "p99": 30})
    first, second, other = (simulate(noise("heavy tail"), short, 40, seed, NOW) for seed in (5, 5, 6))
    assert first == second
    assert first != other


@pytest.mark.parametrize("name", ["heavy tail", "spikes", "modes within", "modes of sessions", "skewed sessions"])
def test_the_truth_of_a_noise_is_where_its_samples_say(name: str) -> None:
    model, rng = noise(name), np.random.default_rng(2)
    samples = model.samples(rng, (1, 2000, 200)).ravel()
    sessions = model.session(rng, (1, 20_000))
    assert sessions.mean() == pytest.approx(model.session_mean, abs=0.003)
    for percent in (50, 90, 99):
        true = model.truth(percent) - model.session_mean
        assert np.mean(samples <= true) == pytest.approx(percent / 100, abs=0.012)


def test_the_simulation_decides_as_a_verdict_on_the_same_samples_does() -> None:
    rng = np.random.default_rng(3)
    artifact = make_artifact()
    limits = parse_limits(["latency.p90_ms=4.16"])
    found = []
    for _ in range(25):
        latencies = TRUE_NS * np.exp(rng.normal(0, 0.02, (8, 1)) + rng.normal(0, 0.03, (8, 200)))
        sessions = [
            Session(
                index=k,
                label="candidate",
                kind="latency",
                outcome="ok",
                detail="",
                latencies_ns=values.astype(np.int64),
                warmups_ns=np.array([], dtype=np.int64),
                load_ns=1,
                first_ns=1,
                peak_rss_bytes=None,
                runtime_rss_bytes=None,
                conditions=SessionConditions(),
                boot_id="b",
            )
            for k, values in enumerate(latencies)
        ]
        spread = spread_of(sessions, "p90", NOW)
        assert spread is not None
        outcome = decide_timing(spread, 4.16e6, "p90", 0.95, 0.95)
        observed = subject_data(Subject("candidate", artifact), "litert", sessions)
        assert judge(limits, observed, None, Plan(), looks=1).outcome is outcome
        found.append(outcome)
    assert len(set(found)) > 1


def test_shares_and_drops_at_the_limit_keep_the_nominal_rate_and_long_tails_are_told_not_to() -> None:
    cells = score_cells(60, 4, NOW, lambda _: None)
    for cell in cells:
        if cell.kind in {"share", "paired share"}:
            assert not cell.passes.is_over, cell
            assert not cell.fails.is_over, cell
    assert any(cell.note for cell in cells)


def test_the_page_names_rule_seed_versions_and_what_is_over() -> None:
    cells = simulate(noise("long autocorrelation"), STANDARD, 60, 1, BEFORE)
    told = page(cells, [], trials=60, seed=1, rule=BEFORE)
    assert "rule **t-log-sessions/1**" in told
    assert "--trials 60 --seed 1" in told
    assert "Over 5 % where they must not be" in told
    assert "- standard, long autocorrelation, two looks, p99: **" in told
    assert "- `slower than the job`, absolute limits" in told


def test_a_rate_tells_its_interval_and_is_bold_where_it_is_over() -> None:
    assert str(Rate(50, 1000)) == "5.0 [3.8, 6.5]"
    assert str(Rate(80, 1000)).startswith("**8.0 [6.5")

"""Adapters of third parties: the page's examples, entry points, and what is said of a name that is not installed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from edgeloop.config.campaign_file import campaign_key, checked_campaign
from edgeloop.core.campaign import OWN_STRATEGIES, Campaign
from edgeloop.core.installed import BENCHES, installed_names
from edgeloop.core.limits import parse_limits
from edgeloop.core.parse import parse_as
from edgeloop.errors import ConfigError, UserError
from edgeloop.search.strategies import STRATEGIES, SearchProblem, find_strategy
from edgeloop.testing.contracts.strategy import Make, StrategyContract, contract_space
from edgeloop.user_code.entry_points import load_installed
from edgeloop.wiring.third_parties import ThirdParties, plugin_versions

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "adapters-of-your-own.md"
STRATEGY, _RUN, BENCH = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
LIMITS = parse_limits(["top1=0.9"])
PLAIN: dict[str, Any] = {
    "schema": 1,
    "name": "c",
    "targets": ["b"],
    "limits": LIMITS,
    "reference": {"family": "mlp"},
}
KEY_BEFORE = "3e2b4bcd89f28c4b7acfa30dbd160559aeeb553be2c615ba8ef933f1ac640960"
"""Of the campaign below, by the version that had no plugins."""


def names_of(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    return names


class TestStrategyOfThePage(StrategyContract):
    @pytest.fixture
    def make(self) -> Make:
        make_strategy = names_of(STRATEGY)["make_strategy"]
        return lambda space, limits: make_strategy(SearchProblem(space, limits))


def test_the_strategy_of_the_page_asks_the_cheapest_network_first() -> None:
    space = contract_space()
    asked = names_of(STRATEGY)["make_strategy"](SearchProblem(space, LIMITS)).ask()
    assert asked is not None
    cheapest = min(space.sizes(point).macs for point in space.points)
    assert space.sizes(space.by_key[asked[0].key]).macs == cheapest


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that is installed and gives the adapters of the page, as it says."""
    (tmp_path / "acme_adapters.py").write_text(STRATEGY + BENCH.replace("from __future__", "#"))
    info = tmp_path / "acme_adapters-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-adapters\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        "[edgeloop.strategies]\ncheapest = acme_adapters:make_strategy\nbroken = acme_adapters:nothing\n"
        "[edgeloop.benches]\nrelay = acme_adapters:RelayBench\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def campaign(**tables: Any) -> Campaign:
    return Campaign.model_validate(PLAIN | tables)


def test_a_campaign_names_what_is_installed(acme: Path) -> None:
    whole = checked_campaign(campaign(search={"strategy": "cheapest"}, plugins={"bench": "relay"}))
    assert find_strategy("cheapest")(SearchProblem(contract_space(), LIMITS)).ask() is not None
    others = ThirdParties().completed_by(whole)
    assert others.bench is load_installed(BENCHES, "relay")
    assert others.trainer is None
    assert plugin_versions(whole) == {
        "edgeloop.strategies cheapest": "acme-adapters 1.2",
        "edgeloop.benches relay": "acme-adapters 1.2",
    }


def test_what_is_given_goes_before_what_the_campaign_names(acme: Path) -> None:
    bench: Any = object()
    others = ThirdParties(bench=bench).completed_by(campaign(plugins={"bench": "relay"}))
    assert others.bench is bench


def test_names_that_are_not_installed_come_all_at_once_with_those_that_are(acme: Path) -> None:
    plugins = {"bench": "relais", "trainer": "gpu", "builders": {"litert": "fast"}}
    with pytest.raises(ConfigError) as caught:
        parse_as(Campaign, PLAIN | {"search": {"strategy": "cheap"}, "plugins": plugins}, "c.toml")
    known = "'patent', 'optuna', 'grid', 'random', 'broken' or 'cheapest'"
    assert caught.value.lines() == [
        f"c.toml: search.strategy: Input should be {known}; found 'cheap'",
        "c.toml: plugins.builders.litert: None is installed; found 'fast'",
        "c.toml: plugins.bench: Input should be 'relay'; found 'relais'",
        "c.toml: plugins.trainer: None is installed; found 'gpu'",
    ]


def test_the_names_that_a_campaign_may_always_have_are_those_of_the_table() -> None:
    assert tuple(STRATEGIES) == OWN_STRATEGIES


def test_one_that_can_not_be_loaded_is_told_in_a_line(acme: Path) -> None:
    with pytest.raises(UserError, match=r"edgeloop\.strategies: broken \(acme_adapters:nothing\) can't be loaded"):
        find_strategy("broken")
    with pytest.raises(UserError, match=r"nothing is installed as 'none' in edgeloop\.benches") as caught:
        load_installed(BENCHES, "none")
    assert caught.value.next_step == "installed are: relay"
    assert installed_names(BENCHES) == ("relay",)


def test_a_campaign_without_plugins_has_the_key_that_it_had_before_there_were_any(acme: Path) -> None:
    plain = campaign()
    assert campaign_key(plain) == KEY_BEFORE
    assert campaign_key(campaign(plugins={"bench": "relay"})) != campaign_key(plain)

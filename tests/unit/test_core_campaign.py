"""What a campaign refuses by itself."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from edgeloop.app.run_checks import check_toolchain
from edgeloop.core.campaign import Campaign, Training
from edgeloop.errors import ConfigError


def campaign(**tables: Any) -> Campaign:
    plain = {"schema": 1, "name": "c", "targets": ["b"], "limits": {"limit": []}}
    return Campaign.model_validate(plain | {"reference": {"family": "ds_cnn"}} | tables)


def test_a_training_may_take_the_runs_own_time_unless_the_toolchain_says_less() -> None:
    assert campaign(budget={"wall_minutes": 30}).training_limits.deadline_s == 1800
    assert (
        campaign(budget={"wall_minutes": 30}, toolchain={"training_minutes_max": 2}).training_limits.deadline_s == 120
    )
    assert campaign(toolchain={"memory_max_mib": 2}).toolchain.build_limits.memory_max_bytes == 2 << 20


@pytest.mark.skipif(importlib.util.find_spec("litert_torch") is None, reason="asks for extras first")
def test_a_bound_on_memory_is_refused_where_the_system_keeps_none(monkeypatch: pytest.MonkeyPatch) -> None:
    bounded = campaign(toolchain={"memory_max_mib": 4096})
    check_toolchain(bounded)
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ConfigError, match=r"toolchain\.memory_max_mib: Linux alone holds a process to it"):
        check_toolchain(bounded)


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        (
            {"reference": {"family": "mlp", "larger": "widen"}, "search": {"depths": [0, 1]}},
            "widening changes widths alone",
        ),
        (
            {"reference": {"family": "mlp", "larger": ["/a.py:b"]}, "search": {"widths": [2.0]}},
            "networks of a list have sizes of their own",
        ),
        ({"training": {"widened_epochs": 3}}, "widened_epochs goes with reference.larger = 'widen'"),
        ({"reference": {"family": "mlp", "larger": []}}, "at least 1 item"),
        ({"reference": {"family": "mlp", "larger": ["big"]}}, "should match pattern"),
        ({"reference": {"family": "mlp", "lightening": "w8a8-p25"}}, "M1 is measured with all its channels"),
        ({"search": {"lightenings": ["w4a8:0"]}}, "a share of 1 to 99 percent"),
        (
            {
                "task": {"kind": "custom", "loss": "/t.py:a", "agreement": "/t.py:b", "metrics": {"m": "/t.py:c"}},
                "training": {"teacher": "m2"},
            },
            "task.distillation: a custom task with a teacher brings its own",
        ),
        ({"tuning": {"trials": 20}}, "add tvm to search.engines, or leave \\[tuning\\] out"),
        (
            {"reference": {"file": "/m1.onnx", "engine": "tvm", "family": "mlp"}, "tuning": {"trials": 20}},
            "tuning is of trained networks",
        ),
    ],
)
def test_keys_that_do_not_go_together_are_refused(tables: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        campaign(**tables)


def test_a_widened_network_trains_for_a_third_of_the_epochs_unless_said() -> None:
    widen = {"family": "mlp", "larger": "widen"}
    assert campaign(reference=widen, training={"epochs": 30}).training.epochs_widened == 10
    assert campaign(reference=widen, training={"epochs": 30, "widened_epochs": 4}).training.epochs_widened == 4
    assert campaign(search={"lightenings": ["w4a8+dw8"]}).search.lightenings == ("w4a8",)


@pytest.mark.parametrize(("lightened", "tuned"), [(0, 0), (1, 1), (2, 1), (3, 1), (8, 4), (None, 3)])
def test_a_fine_tune_takes_half_of_the_lightened_epochs_and_none_where_those_only_calibrate(
    lightened: int | None, tuned: int
) -> None:
    assert Training(schedule="patent3", lightened_epochs=lightened).epochs_fine_tuned == tuned
    assert Training(schedule="patent3", lightened_epochs=lightened, fine_tune_epochs=5).epochs_fine_tuned == 5

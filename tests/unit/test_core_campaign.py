"""What a campaign refuses by itself."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from edgeloop.core.campaign import Campaign


def campaign(**tables: Any) -> Campaign:
    plain = {"schema": 1, "name": "c", "targets": ["b"], "limits": {"limit": []}}
    return Campaign.model_validate(plain | {"reference": {"family": "ds_cnn"}} | tables)


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
        ({"tuning": {"trials": 20}}, "add tvm to search.engines, or leave \\[tuning\\] out"),
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

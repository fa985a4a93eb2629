"""What TVM can't be compiled for is told by the boards' files, before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest

from edgeloop.config.board_models import load_model
from edgeloop.core.board import Board
from edgeloop.core.campaign import Campaign
from edgeloop.core.limits import LimitSet
from edgeloop.errors import ConfigError
from edgeloop.wiring.processors import check_processors


def campaign(*engines: str) -> Campaign:
    plain = {"schema": 1, "name": "c", "targets": ["pi"], "limits": LimitSet(), "reference": {"family": "ds_cnn"}}
    return Campaign.model_validate({**plain, "search": {"engines": engines}})


def board(kind: Any = "ssh", **model: Any) -> Board:
    return Board(name="pi", model=load_model("raspberry-pi-4").model_copy(update=model), kind=kind)


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (board(mcpu="native"), "pi is another machine, and mcpu of raspberry-pi-4 is native, which is this one"),
        (board(architectures=("armv7l",)), "pi is armv7l, which TVM's runtime has no wheel for"),
    ],
)
def test_a_board_that_can_not_be_compiled_for_is_one_line_where_tvm_is_asked_for(there: Board, said: str) -> None:
    check_processors(campaign("litert"), [there])
    with pytest.raises(ConfigError) as caught:
        check_processors(campaign("litert", "tvm"), [board(), there])
    (line,) = caught.value.lines()
    assert line.startswith(f"search.engines: {said}")


def test_native_is_this_machine_and_an_architecture_of_two_may_do() -> None:
    check_processors(campaign("tvm"), [board("local", mcpu="native"), board(architectures=("armv7l", "aarch64"))])

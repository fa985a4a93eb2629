"""A real agent that the tests of its jobs share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from agent_board import AgentBoard

from edgeloop_agent import wire


@pytest.fixture(scope="module")
def shared_agent(tmp_path_factory: pytest.TempPathFactory) -> AgentBoard:
    return AgentBoard(tmp_path_factory.mktemp("board") / "state")


@pytest.fixture
def board(shared_agent: AgentBoard) -> Iterator[AgentBoard]:
    """The module's board, free and without a running job before and after each test."""
    yield shared_agent
    for place in (shared_agent.state / wire.JOBS_DIR).glob("*"):
        if not (place / wire.DONE_FILE).exists():
            shared_agent.call("cancel", "--job", place.name)
    (shared_agent.state / wire.LEASE_FILE).write_text("{}")

"""Fixtures that several rooms share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgeloop.testing.sshd import LoopbackSshd, why_no_sshd


@pytest.fixture(scope="session")
def _sshd_or_skip() -> None:
    reason = why_no_sshd()
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def sshd_session(_sshd_or_skip: None) -> Iterator[LoopbackSshd]:
    """One sshd for all tests that leave it as they found it; see `sshd` for one of a test's own."""
    with LoopbackSshd() as sshd:
        yield sshd


@pytest.fixture
def sshd(_sshd_or_skip: None) -> Iterator[LoopbackSshd]:
    """A real sshd of this test's own, which it may freeze, cut and stop; state folder and keys are fresh."""
    with LoopbackSshd() as sshd:
        yield sshd

"""Both links pass the contract that ships with edgeloop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgeloop.board.local import LocalLink
from edgeloop.board.ssh import SshLink
from edgeloop.testing.contracts.link import LinkContract
from edgeloop.testing.sshd import LoopbackSshd


class TestLocalLink(LinkContract):
    @pytest.fixture
    def link(self) -> LocalLink:
        return LocalLink()


@pytest.mark.sshd
class TestSshLink(LinkContract):
    @pytest.fixture
    def link(self, sshd_session: LoopbackSshd) -> Iterator[SshLink]:
        link = SshLink(sshd_session.ssh)
        yield link
        link.close()

"""The board's lease: who has it, until when, and which tokens still count. Clock and boot id are the test's."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeloop_agent.errors import AgentError
from edgeloop_agent.lease import KEPT_S, LeaseFile


class Clock:
    def __init__(self) -> None:
        self.ns = 10**12

    def __call__(self) -> int:
        return self.ns

    def advance(self, seconds: float) -> None:
        self.ns += int(seconds * 1e9)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lease(tmp_path: Path, clock: Clock) -> LeaseFile:
    return LeaseFile(tmp_path, clock, "boot-1")


def test_a_free_board_is_given_with_a_token(lease: LeaseFile) -> None:
    answer = lease.acquire("anna@desk", 60)
    assert answer["acquired"] is True
    assert len(answer["token"]) == 32
    assert lease.keep(answer["token"]) is None
    assert lease.show() == {"held": True, "holder": "anna@desk", "remaining_s": 60.0, "boot_id": "boot-1"}


def test_a_held_board_says_who_has_it_and_for_how_long(lease: LeaseFile, clock: Clock) -> None:
    lease.acquire("anna@desk", 60)
    clock.advance(20)
    answer = lease.acquire("ben@rack", 60)
    assert answer == {"acquired": False, "holder": "anna@desk", "remaining_s": 40.0, "boot_id": "boot-1"}


def test_an_expired_lease_is_void_and_its_token_stale(lease: LeaseFile, clock: Clock) -> None:
    old = lease.acquire("anna@desk", 60)["token"]
    clock.advance(60.001)
    assert lease.keep(old) == "the lease has expired, was released, or is from before a reboot"
    new = lease.acquire("ben@rack", 30)["token"]
    assert lease.keep(old) == "the lease was taken over by ben@rack for another 30 s"
    assert lease.keep(new) is None
    with pytest.raises(AgentError, match="taken over by ben@rack"):
        lease.renew(old, 60)
    assert lease.release(old) == {"released": False}
    assert lease.show()["holder"] == "ben@rack"


def test_a_lease_of_another_boot_is_void(tmp_path: Path, clock: Clock, lease: LeaseFile) -> None:
    token = lease.acquire("anna@desk", 3600)["token"]
    after = LeaseFile(tmp_path, clock, "boot-2")
    assert after.keep(token) is not None
    assert after.acquire("ben@rack", 60)["acquired"] is True


def test_a_lease_that_is_kept_outlives_what_was_asked_and_ends_soon_after(lease: LeaseFile, clock: Clock) -> None:
    token = lease.acquire("anna@desk", 30)["token"]
    for _ in range(100):
        assert lease.keep(token) is None
        clock.advance(25)
    assert 0 < lease.show()["remaining_s"] <= KEPT_S
    assert lease.acquire("ben@rack", 60)["acquired"] is False
    clock.advance(KEPT_S)
    assert lease.keep(token) == "the lease has expired, was released, or is from before a reboot"
    assert lease.acquire("ben@rack", 60)["acquired"] is True


def test_keeping_never_shortens_a_lease(lease: LeaseFile) -> None:
    token = lease.acquire("anna@desk", 3600)["token"]
    assert lease.keep(token) is None
    assert lease.show()["remaining_s"] == 3600.0


def test_the_same_token_acquires_again_and_renews(lease: LeaseFile, clock: Clock) -> None:
    lease.acquire("anna@desk", 60, "a-token-of-anna")
    clock.advance(50)
    assert lease.acquire("anna@desk", 60, "a-token-of-anna")["acquired"] is True
    assert lease.show()["remaining_s"] == 60.0
    assert lease.renew("a-token-of-anna", 90)["remaining_s"] == 90
    assert lease.show()["holder"] == "anna@desk"


def test_a_released_board_is_free(lease: LeaseFile) -> None:
    token = lease.acquire("anna@desk", 60)["token"]
    assert lease.release(token) == {"released": True}
    assert lease.show()["held"] is False
    assert lease.acquire("ben@rack", 60)["acquired"] is True


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b'{"token": 1}', b"\xff\xfe", b'{"token": "x", "owner": 3, "expires_boottime_ns": "n"}']
)
def test_a_damaged_lease_file_is_no_lease(tmp_path: Path, lease: LeaseFile, raw: bytes) -> None:
    (tmp_path / "lease.json").write_bytes(raw)
    assert lease.current() is None
    assert lease.acquire("anna@desk", 60)["acquired"] is True


@pytest.mark.parametrize(
    ("owner", "seconds", "token"),
    [
        ("", 60, None),
        ("a\nb", 60, None),
        ("anna", 0, None),
        ("anna", 1e9, None),
        ("anna", float("nan"), None),
        ("anna", 60, "../x"),
    ],
)
def test_senseless_requests_are_refused(lease: LeaseFile, owner: str, seconds: float, token: str | None) -> None:
    with pytest.raises(AgentError):
        lease.acquire(owner, seconds, token)
    assert lease.show()["held"] is False


def test_the_file_is_for_every_user_of_the_board(tmp_path: Path, lease: LeaseFile) -> None:
    lease.acquire("anna@desk", 60)
    inode = (tmp_path / "lease.json").stat()
    lease.acquire("anna@desk", 60)
    assert inode.st_mode & 0o777 == 0o666
    assert (tmp_path / "lease.json").stat().st_ino == inode.st_ino  # in place: a sticky folder refuses a rename

"""The rules for every Link. Subclass LinkContract, give it a `link` fixture, and run it with pytest.

class TestMyLink(LinkContract):
    @pytest.fixture
    def link(self):
        ...
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from edgeloop.errors import BoardError, HarnessError, UnreachableError
from edgeloop.ports import Link

_FIVE_MB = 5_000_000


class LinkContract:
    """Rules of the Link port; the board behind it has a POSIX shell and `cat`."""

    def test_exit_status_and_both_outputs_come_back_apart(self, link: Link) -> None:
        answer = link.run(["sh", "-c", "echo out; echo err >&2; exit 7"])
        assert (answer.exit_status, answer.stdout, answer.stderr) == (7, b"out\n", b"err\n")

    def test_arguments_reach_the_command_as_they_are(self, link: Link) -> None:
        words = ["a b", "$HOME", "*", "it's", '"', "", "back\\slash", "new\nline"]
        assert link.run(["printf", "%s|", *words]).stdout == "".join(f"{word}|" for word in words).encode()

    def test_bytes_go_in_as_stdin(self, link: Link) -> None:
        content = bytes(range(256)) * 4000
        assert link.run(["cat"], stdin=content).stdout == content

    def test_a_file_is_streamed_as_stdin(self, link: Link, tmp_path: Path) -> None:
        content = tmp_path / "sent"
        content.write_bytes(b"0123456789abcdef" * 200_000)
        digest = link.run(["sha256sum"], stdin=content).stdout.split()[0].decode()
        assert digest == hashlib.sha256(content.read_bytes()).hexdigest()

    def test_no_stdin_is_an_empty_stdin(self, link: Link) -> None:
        assert link.run(["cat"], deadline_s=10).stdout == b""

    def test_both_outputs_may_be_large_at_once(self, link: Link) -> None:
        script = f"head -c {_FIVE_MB} /dev/zero >&2 & head -c {_FIVE_MB} /dev/zero; wait; exit 3"
        answer = link.run(["sh", "-c", script], deadline_s=30)
        assert (answer.exit_status, len(answer.stdout), len(answer.stderr)) == (3, _FIVE_MB, _FIVE_MB)

    def test_outputs_are_drained_while_stdin_is_fed(self, link: Link) -> None:
        content = b"x" * _FIVE_MB
        answer = link.run(["sh", "-c", "tee /dev/stderr"], stdin=content, deadline_s=30)
        assert (len(answer.stdout), len(answer.stderr)) == (_FIVE_MB, _FIVE_MB)

    def test_a_command_may_end_without_reading_its_stdin(self, link: Link) -> None:
        answer = link.run(["sh", "-c", "exit 5"], stdin=b"x" * 50_000_000, deadline_s=30)
        assert answer.exit_status == 5

    def test_a_command_that_is_not_there_is_exit_status_127(self, link: Link) -> None:
        answer = link.run(["edgeloop-no-such-command", "x"])
        assert answer.exit_status == 127
        assert b"edgeloop-no-such-command" in answer.stderr

    def test_a_command_that_kills_itself_is_no_success(self, link: Link) -> None:
        assert link.run(["sh", "-c", "kill -9 $$"]).exit_status < 0

    def test_the_deadline_of_a_hanging_command_fires_and_the_next_command_works(self, link: Link) -> None:
        link.run(["true"])
        began = time.monotonic()
        with pytest.raises(UnreachableError, match=r"no answer to `sleep 60` within 0\.5 s"):
            link.run(["sleep", "60"], deadline_s=0.5)
        assert time.monotonic() - began < 3
        assert link.run(["echo", "again"]).stdout == b"again\n"

    def test_the_deadline_holds_for_a_command_that_never_stops_talking(self, link: Link) -> None:
        began = time.monotonic()
        with pytest.raises(UnreachableError):
            link.run(["sh", "-c", "while :; do echo x; sleep 0.05; done"], deadline_s=0.5)
        assert time.monotonic() - began < 3

    def test_more_output_than_is_wanted_stops_the_command(self, link: Link) -> None:
        with pytest.raises(BoardError, match="more than 1000 bytes"):
            link.run(["cat", "/dev/zero"], output_max=1000, deadline_s=30)
        assert link.run(["echo", "again"]).stdout == b"again\n"

    def test_a_file_to_send_that_is_missing_here_is_our_own_fault(self, link: Link, tmp_path: Path) -> None:
        with pytest.raises(HarnessError, match="absent"):
            link.run(["cat"], stdin=tmp_path / "absent")

    def test_fetch_copies_a_file(self, link: Link, tmp_path: Path) -> None:
        link.fetch("/etc/passwd", tmp_path / "here")
        assert (tmp_path / "here").read_bytes() == link.run(["cat", "/etc/passwd"]).stdout

    @pytest.mark.parametrize("remote", ["/no/such/file", "-n"])
    def test_a_fetch_that_fails_leaves_nothing_and_keeps_what_was_there(
        self, link: Link, tmp_path: Path, remote: str
    ) -> None:
        (tmp_path / "here").write_text("before")
        with pytest.raises(BoardError, match="can't be read"):
            link.fetch(remote, tmp_path / "here")
        assert [path.name for path in tmp_path.iterdir()] == ["here"]
        assert (tmp_path / "here").read_text() == "before"

    def test_a_fetched_file_is_bounded(self, link: Link, tmp_path: Path) -> None:
        with pytest.raises(BoardError, match="more than 100000 bytes"):
            link.fetch("/dev/zero", tmp_path / "here", size_max=100_000, deadline_s=30)
        assert list(tmp_path.iterdir()) == []

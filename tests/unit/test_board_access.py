"""The way to a board: its own file joined with ~/.ssh/config, hop by hop."""

from __future__ import annotations

import getpass
from pathlib import Path

import pytest

from edgeloop.board.access import parse_place, route_to
from edgeloop.core.board import Ssh
from edgeloop.errors import LabError


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    return tmp_path / ".ssh" / "config"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("pi4", (None, "pi4", None)),
        ("pi@pi4", ("pi", "pi4", None)),
        ("pi@pi4:2222", ("pi", "pi4", 2222)),
        ("pi@[fe80::1]:22", ("pi", "fe80::1", 22)),
        ("ssh://pi@pi4:2222/", ("pi", "pi4", 2222)),
    ],
)
def test_a_place_is_user_host_and_port(text: str, place: tuple[str | None, str, int | None]) -> None:
    assert parse_place(text) == place


@pytest.mark.parametrize("text", ["", "pi@", "pi4:0", "pi4:70000", "a@b@c:x", "fe80::1"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not user@host"):
        parse_place(text)


def test_without_a_config_the_defaults_of_ssh_hold(tmp_path: Path) -> None:
    (hop,) = route_to(Ssh(host="pi4"))
    assert (hop.hostname, hop.port, hop.user, hop.label) == ("pi4", 22, getpass.getuser(), "pi4")
    assert hop.identity_files[0] == tmp_path / ".ssh/id_ed25519"
    assert not hop.named_identities
    assert hop.known_hosts[0] == tmp_path / ".ssh/known_hosts"


def test_the_config_fills_in_and_the_boards_file_wins(config: Path) -> None:
    config.write_text(
        "Host pi*\n HostName %h.lab\n User edge\n Port 2200\n IdentityFile ~/k\n"
        " IdentitiesOnly yes\n HostKeyAlias thePi\n"
    )
    (hop,) = route_to(Ssh(host="pi4", user="root", identity_file="~/mine"))
    assert (hop.hostname, hop.port, hop.user, hop.label) == ("pi4.lab", 2200, "root", "thepi")
    assert [path.name for path in hop.identity_files] == ["mine", "k"]
    assert hop.named_identities
    assert hop.identities_only


def test_a_chain_of_jump_hosts_comes_in_order_each_with_its_own_config(config: Path) -> None:
    config.write_text(
        "Host gate\n User guard\n ProxyJump outer\nHost inner\n ProxyJump elsewhere\n"
        "Host pi4\n ProxyJump gate,inner:23\n"
    )
    hops = route_to(Ssh(host="pi4", user="pi", host_key="SHA256:x"))
    me = getpass.getuser()
    assert [str(hop) for hop in hops] == [f"{me}@outer:22", "guard@gate:22", f"{me}@inner:23", "pi@pi4:22"]
    assert [hop.pinned_key for hop in hops] == [None, None, None, "SHA256:x"]


def test_the_boards_file_may_switch_a_jump_off(config: Path) -> None:
    config.write_text("Host *\n ProxyJump gate\n")
    assert len(route_to(Ssh(host="pi4", jump="none"))) == 1


def test_a_circle_of_jump_hosts_is_said(config: Path) -> None:
    config.write_text("Host a\n ProxyJump b\nHost b\n ProxyJump a\n")
    with pytest.raises(LabError, match="more than 8 jump hosts"):
        route_to(Ssh(host="a"))


def test_a_config_that_can_not_be_parsed_is_named(config: Path) -> None:
    config.write_text("Host a\n Port\n")
    with pytest.raises(LabError, match=r"\.ssh/config: Unparsable line"):
        route_to(Ssh(host="a"))


@pytest.mark.parametrize("line", ["Port ssh", 'UserKnownHostsFile "open'])
def test_a_value_in_the_config_that_can_not_be_used_is_said(config: Path, line: str) -> None:
    config.write_text(f"Host a\n {line}\n")
    with pytest.raises(LabError, match="a: what its configuration says can't be used"):
        route_to(Ssh(host="a"))


def test_a_jump_that_is_no_place_is_named() -> None:
    with pytest.raises(LabError, match="ProxyJump: 'x:y' is not user@host"):
        route_to(Ssh(host="pi4", jump="x:y"))


def test_includes_are_followed_but_not_in_circles(config: Path) -> None:
    (config.parent / "more.conf").write_text("Host pi4\n User edge\n")
    config.write_text("Include *.conf\n")
    assert route_to(Ssh(host="pi4"))[0].user == "edge"
    config.write_text("Include config\n")
    with pytest.raises(LabError, match="Include goes deeper"):
        route_to(Ssh(host="pi4"))

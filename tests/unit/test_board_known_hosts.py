"""known_hosts as OpenSSH writes it: names, ports, hashes, patterns, markers."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path

import pytest

from edgeloop.board.known_hosts import host_key, key_types_first, known_keys, label_of, write_known_host

KEY = base64.b64encode(b"one key").decode()
OTHER = base64.b64encode(b"another key").decode()


def fingerprints(file: Path, label: str) -> list[str]:
    return [key.base64 for key in known_keys([file], label).keys]


def test_a_fingerprint_is_the_digest_that_ssh_keygen_prints() -> None:
    digest = base64.b64encode(hashlib.sha256(b"one key").digest()).decode().rstrip("=")
    assert host_key("ssh-ed25519", KEY).fingerprint == f"SHA256:{digest}"


@pytest.mark.parametrize(("host", "port", "label"), [("Pi4", 22, "pi4"), ("pi4", 2222, "[pi4]:2222")])
def test_a_port_other_than_22_is_part_of_the_name(host: str, port: int, label: str) -> None:
    assert label_of(host, port) == label


def hashed(label: str) -> str:
    salt = b"0123456789abcdefghij"
    mac = hmac.new(salt, label.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(mac).decode()}"


@pytest.mark.parametrize(
    ("names", "label", "found"),
    [
        ("pi4", "pi4", True),
        ("pi4,10.0.0.4", "10.0.0.4", True),
        ("pi4", "pi40", False),
        ("pi*", "pi40", True),
        ("*.lab,!bad.lab", "bad.lab", False),
        ("*.lab,!bad.lab", "good.lab", True),
        ("[pi4]:2222", "[pi4]:2222", True),
        ("[pi4]:2222", "p", False),
        (hashed("pi4"), "pi4", True),
        (hashed("pi4"), "pi5", False),
        ("|1|not base64|x", "pi4", False),
    ],
)
def test_names_match_as_openssh_matches_them(tmp_path: Path, names: str, label: str, found: bool) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"{names} ssh-ed25519 {KEY} a comment\n")
    assert fingerprints(file, label) == ([KEY] if found else [])


def test_comments_rubbish_and_absent_files_hold_nothing(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"# pi4 ssh-ed25519 {KEY}\n\npi4\npi4 ssh-ed25519 not-base64\n@cert-authority pi4 ssh-rsa {KEY}\n")
    assert known_keys([file, tmp_path / "absent"], "pi4").keys == ()


def test_a_revoked_key_is_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"@revoked * ssh-ed25519 {KEY}\npi4 ssh-ed25519 {KEY}\n")
    assert known_keys([file], "pi4").revoked_keys == {KEY}


def test_trusting_a_key_replaces_the_hosts_own_line_and_keeps_the_others(tmp_path: Path) -> None:
    file = tmp_path / ".ssh" / "known_hosts"
    write_known_host(file, "pi4", host_key("ssh-ed25519", OTHER))
    file.write_text(
        file.read_text() + f"# mine\npi5 ssh-rsa {OTHER}\n{hashed('pi4')} ssh-rsa {OTHER}\n*.lab ssh-rsa {KEY}\n"
    )
    write_known_host(file, "pi4", host_key("ssh-ed25519", KEY))
    assert file.read_text() == f"# mine\npi5 ssh-rsa {OTHER}\n*.lab ssh-rsa {KEY}\npi4 ssh-ed25519 {KEY}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_key_types_that_are_known_of_a_host_are_asked_for_first() -> None:
    supported = ["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "ssh-rsa"]
    ordered = list(key_types_first([host_key("ssh-rsa", KEY)], supported))
    assert ordered == ["rsa-sha2-512", "ssh-rsa", "ssh-ed25519", "ecdsa-sha2-nistp256"]

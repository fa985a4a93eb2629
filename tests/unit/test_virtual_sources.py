"""Where a virtual board's packages come from: the host's own apt sources, or Debian's default mirror."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeloop.board.virtual import needs
from edgeloop.board.virtual.mirror import DEFAULT_MIRROR, checked_mirror, mirror_of_host
from edgeloop.errors import ConfigError, UserError

DEBIAN = 'ID=debian\nVERSION_CODENAME="bookworm"\n'


def host(folder: Path, release: str, **files: str) -> Path:
    (folder / "etc/apt/sources.list.d").mkdir(parents=True)
    (folder / "etc/os-release").write_text(release)
    for name, text in files.items():
        place = "etc/apt/sources.list" if name == "main" else f"etc/apt/sources.list.d/{name.replace('_', '.')}"
        (folder / place).write_text(text)
    return folder


def test_a_debian_hosts_own_mirror_is_used_and_other_peoples_archives_are_not(tmp_path: Path) -> None:
    root = host(
        tmp_path,
        DEBIAN,
        cloud_list="deb https://packages.example.com/apt cloud-bookworm main\n",
        debian_sources="Types: deb\nURIs: http://mirror.example.com/debian/\nSuites: bookworm\n bookworm-updates\n"
        "Components: main\n\nTypes: deb\nURIs: http://security.example.com\nSuites: bookworm-security\n"
        "Components: main\n",
    )
    assert mirror_of_host(root) == "http://mirror.example.com/debian"


def test_one_line_sources_with_options_are_read(tmp_path: Path) -> None:
    text = (
        "# deb http://old/debian bookworm main\ndeb [arch=amd64 signed-by=/k] http://m/debian bookworm main contrib\n"
    )
    assert mirror_of_host(host(tmp_path, DEBIAN, main=text)) == "http://m/debian"


@pytest.mark.parametrize(
    ("release", "sources"),
    [
        ("ID=ubuntu\nVERSION_CODENAME=noble\n", "deb http://ubuntu.example.com/ubuntu noble main\n"),
        (DEBIAN, "deb http://security.example.com bookworm-security main\n"),
        (DEBIAN, "deb cdrom:[Debian]/ bookworm main\n"),
        (DEBIAN, ""),
    ],
)
def test_without_a_source_of_debians_own_release_its_default_mirror_is_used(
    tmp_path: Path, release: str, sources: str
) -> None:
    assert mirror_of_host(host(tmp_path, release, main=sources)) == DEFAULT_MIRROR


def test_a_disabled_source_is_not_used(tmp_path: Path) -> None:
    text = "Enabled: no\nTypes: deb\nURIs: http://m/debian\nSuites: bookworm\nComponents: main\n"
    assert mirror_of_host(host(tmp_path, DEBIAN, off_sources=text)) == DEFAULT_MIRROR


def test_a_mirror_that_is_no_address_is_refused() -> None:
    with pytest.raises(UserError, match="not a mirror"):
        checked_mirror("deb.example.com; rm -rf /")
    assert checked_mirror("https://m.example.com/debian/") == "https://m.example.com/debian"


def test_every_missing_program_is_named_at_once_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "find", lambda program: "/usr/bin/fakeroot" if program == "fakeroot" else None)
    with pytest.raises(ConfigError) as caught:
        needs.require(needs.ALL)
    lines = caught.value.lines()
    assert len(lines) == 3
    assert any("qemu-system-aarch64 is not installed" in line and "install qemu-system-arm" in line for line in lines)
    assert caught.value.exit_code == 2

"""The agent's bundle: the same bytes everywhere, small, and a program that runs."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import edgeloop_agent
from edgeloop.board.bundle import BUNDLE_BYTES_MAX, agent_bundle, bundle_of
from edgeloop.board.reproducible_zip import deflate
from edgeloop.errors import HarnessError

PACKAGE = Path(edgeloop_agent.__file__).parent


def test_two_processes_make_equal_bytes() -> None:
    script = "from edgeloop.board.bundle import agent_bundle; print(agent_bundle().sha256)"
    env = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "SOURCE_DATE_EPOCH": "1"}
    other = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=env)
    assert other.stdout.strip() == agent_bundle().sha256


def test_where_and_when_the_sources_were_installed_does_not_matter(tmp_path: Path) -> None:
    copy = tmp_path / "edgeloop_agent"
    shutil.copytree(PACKAGE, copy)
    for path in copy.rglob("*.py"):
        os.utime(path, (0, 1_000_000_000))
        path.chmod(0o600)
    (copy / "__pycache__").mkdir(exist_ok=True)
    (copy / "__pycache__" / "wire.cpython-311.pyc").write_bytes(b"compiled")
    assert bundle_of(copy).data == bundle_of(PACKAGE).data


def test_it_is_named_by_its_content_and_small() -> None:
    bundle = agent_bundle()
    assert bundle.sha256 == hashlib.sha256(bundle.data).hexdigest()
    assert len(bundle.data) < BUNDLE_BYTES_MAX


def test_it_holds_every_module_of_the_agent_and_nothing_else() -> None:
    with zipfile.ZipFile(BytesIO(agent_bundle().data)) as bundle:
        names = set(bundle.namelist())
    expected = {f"edgeloop_agent/{path.relative_to(PACKAGE).as_posix()}" for path in PACKAGE.rglob("*.py")}
    assert names == {"__main__.py", *expected}


@given(st.one_of(st.binary(max_size=600), st.text("ab\n", max_size=3000).map(str.encode)))
@example(b"")
@example(b"a" * 70_000)
@example(bytes(range(256)) * 300)
def test_what_is_deflated_inflates_to_the_same(data: bytes) -> None:
    assert zlib.decompress(deflate(data), -15) == data


def test_matches_reach_over_the_whole_window() -> None:
    noise = random.Random(2).randbytes(32_768)
    packed = deflate(noise + noise)
    assert zlib.decompress(packed, -15) == noise + noise
    assert len(packed) < 1.1 * len(noise)


def test_a_bundle_that_grew_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "big.py").write_bytes(random.Random(0).randbytes(BUNDLE_BYTES_MAX + 1))  # noise can't be packed
    with pytest.raises(HarnessError, match=f"at most {BUNDLE_BYTES_MAX}"):
        bundle_of(tmp_path)

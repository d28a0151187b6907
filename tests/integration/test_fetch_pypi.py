"""Wheels by pip from a package index on loopback: pins, faults and what is said of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandkube.build.lock import File
from sandkube.build.sources import Source, blobs, pypi
from sandkube.errors import HashMismatch, UserError
from tests.servers import Other, Reset, Served, Status, file_server, only_loopback, wheel

NAME, CONTENT = wheel("demo", "1.0")
FILE = File(NAME, hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
SOURCE = Source("pypi", "demo", "1.0")
PATH = f"/files/{NAME}"


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Served]:
    only_loopback(monkeypatch, tmp_path / "home")
    other, content = wheel("demo", "0.9")
    links = "".join(f'<a href="/files/{each}">{each}</a>' for each in (NAME, other))
    page = f"<!DOCTYPE html><html><body>{links}</body></html>".encode()
    with file_server({PATH: CONTENT, f"/files/{other}": content, "/simple/demo/": page}) as served:
        monkeypatch.setenv("PIP_INDEX_URL", f"{served.address}/simple/")
        yield served


def test_resolve_then_fetch(index: Served, tmp_path: Path) -> None:
    assert pypi.resolve(SOURCE, tmp_path) == (FILE,)
    asked = len(index.seen)
    pypi.fetch("demo", SOURCE, (FILE,), tmp_path)
    assert len(index.seen) == asked, "what the cache holds is not asked for again"
    blobs.path_of(tmp_path, FILE.sha256).write_bytes(b"EVIL")
    pypi.fetch("demo", SOURCE, (FILE,), tmp_path)
    assert blobs.path_of(tmp_path, FILE.sha256).read_bytes() == CONTENT


def test_wrong_bytes_are_never_used(index: Served, tmp_path: Path) -> None:
    _, evil = wheel("demo", "1.0.0")
    index.faults[PATH] = [Other(evil)]
    with pytest.raises(HashMismatch) as caught:
        pypi.fetch("recipe", SOURCE, (FILE,), tmp_path)
    assert caught.value.message == (
        f"recipe: demo==1.0: the bytes do not match their pin: expected {FILE.sha256}, "
        f"got {hashlib.sha256(evil).hexdigest()}, from pip's index"
    )
    assert not list(tmp_path.glob("blobs/**/*"))
    pypi.fetch("recipe", SOURCE, (FILE,), tmp_path)
    assert blobs.sound(tmp_path, FILE, "recipe")


@pytest.mark.parametrize("fault", [Reset(200), Status(503)], ids=["reset", "503"])
def test_passing_faults(fault: Reset | Status, index: Served, tmp_path: Path) -> None:
    index.faults[PATH] = [fault]
    pypi.fetch("recipe", SOURCE, (FILE,), tmp_path)
    assert len(index.ranges(PATH)) == 2


@pytest.mark.usefixtures("index")
def test_versions_are_oldest_first() -> None:
    assert pypi.versions(SOURCE) == ["0.9", "1.0"]


def test_no_such_version(index: Served, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        pypi.resolve(Source("pypi", "demo", "9"), tmp_path)
    assert str(caught.value) == (
        "pypi:demo@9: pip could not fetch demo==9:\n"
        f"  Looking in indexes: {index.address}/simple/\n"
        "  ERROR: Could not find a version that satisfies the requirement demo==9 (from versions: 0.9, 1.0)\n"
        "  ERROR: No matching distribution found for demo==9\n"
        "  hint: is a package index reachable? PIP_INDEX_URL, PIP_CERT and proxy variables are honoured"
    )


@pytest.mark.usefixtures("index")
def test_no_such_project() -> None:
    with pytest.raises(UserError, match=r"^pip knows no versions of other:\n  ERROR: No matching distribution"):
        pypi.versions(Source("pypi", "other", "1"))


def test_pip_settings_of_the_user_are_honoured(index: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_INDEX_URL")
    monkeypatch.delenv("PIP_CONFIG_FILE")
    config = tmp_path / "home/.config/pip/pip.conf"
    config.parent.mkdir(parents=True)
    config.write_text(f"[global]\nindex-url = {index.address}/simple/\n")
    pypi.fetch("recipe", SOURCE, (FILE,), tmp_path)
    assert blobs.sound(tmp_path, FILE, "recipe")

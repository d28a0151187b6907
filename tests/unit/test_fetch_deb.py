"""Debian packages without apt: reading sources and indexes, and pinned files from a mirror's pool."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandkube.errors import HashMismatch, UserError
from sandkube.fetch import blobs, deb
from sandkube.lock import File
from sandkube.recipe import Source
from tests.servers import Other, Served, file_server, only_loopback

CONTENT = b"a package\n"
SOURCE = Source("deb", "demo", "1:1.0-1+b1")
FILE = File(
    "demo_1.0-1+b1_amd64.deb",
    hashlib.sha256(CONTENT).hexdigest(),
    len(CONTENT),
    "pool/main/d/demo/demo_1.0-1+b1_amd64.deb",
)


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Served]:
    only_loopback(monkeypatch, tmp_path / "home")
    with file_server({f"/debian/{FILE.pool}": CONTENT}) as served:
        monkeypatch.setenv(deb.MIRROR, f"{served.address}/debian/")
        yield served


@pytest.fixture
def no_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deb.shutil, "which", lambda name, path=None: None)


def test_mirror_serves_the_pool(mirror: Served, tmp_path: Path) -> None:
    deb.fetch("recipe", SOURCE, (FILE,), tmp_path)
    deb.fetch("recipe", SOURCE, (FILE,), tmp_path)
    assert mirror.seen == [(f"/debian/{FILE.pool}", "")]
    assert blobs.sound(tmp_path, FILE, "recipe")


def test_mirror_with_wrong_bytes(mirror: Served, tmp_path: Path) -> None:
    path = f"/debian/{FILE.pool}"
    mirror.faults[path] = [Other(b"A package\n")]
    with pytest.raises(HashMismatch) as caught:
        deb.fetch("recipe", SOURCE, (FILE,), tmp_path)
    assert caught.value.message == (
        f"recipe: {FILE.name}: the bytes do not match their pin: expected {FILE.sha256} of 10 bytes, "
        f"got {hashlib.sha256(b'A package' + bytes([10])).hexdigest()}, from {mirror.address}/debian/"
        "pool/main/d/demo/demo_1.0-1%2Bb1_amd64.deb"
    )


def test_mirror_without_the_file(mirror: Served, tmp_path: Path) -> None:
    mirror.files.clear()
    with pytest.raises(UserError, match=r"demo_1\.0-1%2Bb1_amd64\.deb: status 404\n"):
        deb.fetch("recipe", SOURCE, (FILE,), tmp_path)


def test_neither_apt_nor_mirror(no_apt: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(deb.MIRROR, raising=False)
    with pytest.raises(UserError) as caught:
        deb.fetch("recipe", SOURCE, (FILE,), tmp_path)
    assert str(caught.value) == (
        "deb:demo@1:1.0-1+b1: this machine has no apt\n"
        "  hint: set SANDKUBE_DEB_MIRROR to the address of a Debian mirror, the folder that holds pool/"
    )


def test_pins_are_made_with_apt(no_apt: None, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        deb.resolve("recipe", SOURCE, tmp_path)
    assert str(caught.value) == (
        "deb:demo@1:1.0-1+b1: apt is needed to pin a Debian package, and this machine has none\n"
        "  hint: run ./do lock on a Debian machine; building from lock.json needs no apt, only SANDKUBE_DEB_MIRROR"
    )


def test_one_line_entries_get_their_source_packages() -> None:
    text = (
        "# deb http://commented/debian x main\n"
        "deb [signed-by=/k.gpg] http://h/debian bookworm main\n"
        "deb-src http://h/debian bookworm main\n"
        "deb http://security/debian-security bookworm-security main\n"
        "deb https://third.party/apt stable main\n"
    )
    assert deb._with_sources(text, one_line=True) == (
        "deb [signed-by=/k.gpg] http://h/debian bookworm main\n"
        "deb-src [signed-by=/k.gpg] http://h/debian bookworm main\n"
        "deb http://security/debian-security bookworm-security main\n"
        "deb-src http://security/debian-security bookworm-security main\n"
    )


def test_deb822_entries_get_their_source_packages() -> None:
    text = (
        "Types: deb\n# a remark\nURIs: http://h/debian\nSuites: bookworm\nComponents: main\n\n"
        "Types: deb\nURIs: https://third.party/apt\nSuites: stable\nComponents: main\n"
    )
    assert deb._with_sources(text, one_line=False) == (
        "Types: deb deb-src\n# a remark\nURIs: http://h/debian\nSuites: bookworm\nComponents: main\n"
    )


def test_stanzas_join_continued_lines() -> None:
    text = "Package: a\nChecksums-Sha256:\n 00 1 a.dsc\n 11 2 a.orig.tar.xz\n\n\nPackage: b\nVersion: 1\n\n"
    assert deb._stanzas(text) == [
        {"Package": "a", "Checksums-Sha256": "\n00 1 a.dsc\n11 2 a.orig.tar.xz"},
        {"Package": "b", "Version": "1"},
    ]


def test_upstream_archives_of_a_source_package() -> None:
    """Several components each have an archive of their own; signatures and Debian's changes are left out."""
    stanza = {
        "Directory": "pool/main/d/demo",
        "Checksums-Sha256": "\n00 1 d_1-1.dsc\n11 2 d_1.orig.tar.xz\n22 3 d_1.orig.tar.xz.asc\n33 4 d.debian.tar.xz",
    }
    assert deb._files(stanza, is_source=True) == (File("d_1.orig.tar.xz", "11", 2, "pool/main/d/demo/d_1.orig.tar.xz"),)

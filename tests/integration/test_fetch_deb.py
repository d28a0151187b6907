"""Debian packages by apt itself from an archive on loopback: what changes in an archive, and what breaks."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from sandkube.errors import HashMismatch, UserError
from sandkube.fetch import blobs, deb
from sandkube.lock import File
from sandkube.recipe import Source
from tests.servers import Other, Reset, Served, file_server, only_loopback

pytestmark = pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt-get is a part of Debian")

BINARY = Source("deb", "demo", "1:1.0-1")
UPSTREAM = Source("deb", "src:demo", "1:1.0-1")
RELEASE = "/debian/dists/stable/Release"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def archive(packages: Mapping[str, bytes]) -> dict[str, bytes]:
    """What a Debian mirror serves that has these versions of the package demo, each with its source package."""
    files: dict[str, bytes] = {}
    binaries, sources = [], []
    for version, content in packages.items():
        plain = version.partition(":")[2] or version
        pool = f"pool/main/d/demo/demo_{plain}_amd64.deb"
        files[f"/debian/{pool}"] = content
        binaries.append(
            f"Package: demo\nVersion: {version}\nArchitecture: amd64\nMaintainer: A <a@b>\nFilename: {pool}\n"
            f"Size: {len(content)}\nSHA256: {sha256(content)}\nDescription: demo\n"
        )
        rows = []
        for name in (f"demo_{plain}.dsc", f"demo_{plain.partition('-')[0]}.orig.tar.gz", f"demo_{plain}.debian.tar.xz"):
            files[f"/debian/pool/main/d/demo/{name}"] = part = f"{name} ".encode() + content
            rows.append(f" {sha256(part)} {len(part)} {name}\n")
        sources.append(
            f"Package: demo\nBinary: demo\nVersion: {version}\nArchitecture: any\nFormat: 3.0 (quilt)\n"
            f"Directory: pool/main/d/demo\nChecksums-Sha256:\n{''.join(rows)}"
        )
    indexes = {
        "main/binary-amd64/Packages": "\n".join(binaries).encode(),
        "main/source/Sources": "\n".join(sources).encode(),
    }
    rows = [f" {sha256(content)} {len(content)} {name}\n" for name, content in indexes.items()]
    release = (
        "Origin: Test\nSuite: stable\nCodename: stable\nDate: Wed, 01 Jan 2020 00:00:00 UTC\n"
        f"Architectures: amd64\nComponents: main\nSHA256:\n{''.join(rows)}"
    )
    files[RELEASE] = release.encode()
    return files | {f"/debian/dists/stable/{name}": content for name, content in indexes.items()}


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Served]:
    only_loopback(monkeypatch, tmp_path / "home")
    with file_server(archive({"1:1.0-1": b"one"})) as served:
        etc = tmp_path / "etc"
        etc.mkdir()
        (etc / "sources.list").write_text(f"deb [trusted=yes] {served.address}/debian stable main\n")
        monkeypatch.setattr(deb, "_SOURCES", etc)
        monkeypatch.setattr(deb, "_updated", set())
        yield served


def next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a new process sees it: lists are there, and were not updated in this run."""
    monkeypatch.setattr(deb, "_updated", set())


def forget(cache: Path) -> None:
    shutil.rmtree(cache / "blobs")


def test_binary_package(mirror: Served, tmp_path: Path) -> None:
    files = deb.resolve("recipe", BINARY, tmp_path)
    assert files == (File("demo_1.0-1_amd64.deb", sha256(b"one"), 3, "pool/main/d/demo/demo_1.0-1_amd64.deb"),)
    asked = len(mirror.seen)
    deb.fetch("recipe", BINARY, files, tmp_path)
    assert len(mirror.seen) == asked, "what the cache holds is not asked for again"
    assert blobs.path_of(tmp_path, files[0].sha256).read_bytes() == b"one"


def test_source_package(mirror: Served, tmp_path: Path) -> None:
    (file,) = deb.resolve("recipe", UPSTREAM, tmp_path)
    assert (file.name, file.pool) == ("demo_1.0.orig.tar.gz", "pool/main/d/demo/demo_1.0.orig.tar.gz")
    assert blobs.path_of(tmp_path, file.sha256).read_bytes() == b"demo_1.0.orig.tar.gz one"


def test_nothing_of_the_machine_is_touched(mirror: Served, tmp_path: Path) -> None:
    places = [Path("/var/lib/apt"), Path("/var/lib/apt/lists"), Path("/var/cache/apt"), Path("/etc/apt")]
    before = [path.stat().st_mtime_ns for path in places if path.exists()]
    deb.resolve("recipe", BINARY, tmp_path)
    assert [path.stat().st_mtime_ns for path in places if path.exists()] == before


def test_several_at_once_update_once(mirror: Served, tmp_path: Path) -> None:
    faults: list[BaseException] = []

    def one(source: Source) -> None:
        try:
            deb.resolve("recipe", source, tmp_path)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=one, args=(source,)) for source in (BINARY, UPSTREAM) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(mirror.ranges(RELEASE)) == 1


def test_a_broken_entry_leaves_the_others_usable(
    mirror: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "etc/sources.list").open("a") as sink:
        sink.write(f"deb {mirror.address}/debian-gone stable main\n")
    deb.resolve("recipe", BINARY, tmp_path)
    said = capsys.readouterr().out
    assert f"E: The repository '{mirror.address}/debian-gone stable Release' does not have a Release file." in said


def test_other_bytes_under_the_same_version(mirror: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = deb.resolve("recipe", BINARY, tmp_path)
    forget(tmp_path)
    shutil.rmtree(tmp_path / "apt")
    next_run(monkeypatch)
    mirror.files = archive({"1:1.0-1": b"two"})
    with pytest.raises(HashMismatch) as caught:
        deb.fetch("recipe", BINARY, files, tmp_path)
    assert caught.value.message == (
        f"demo_1.0-1_amd64.deb: the bytes do not match their pin: expected {sha256(b'one')}, "
        f"got {sha256(b'two')}, from the Debian archive"
    )
    assert not blobs.path_of(tmp_path, files[0].sha256).exists()


def test_a_file_that_does_not_match_the_index(mirror: Served, tmp_path: Path) -> None:
    mirror.faults["/debian/pool/main/d/demo/demo_1.0-1_amd64.deb"] = [Other(b"bad")] * 9
    with pytest.raises(UserError, match=r"^apt-get download: E: .*Hash Sum mismatch"):
        deb.resolve("recipe", BINARY, tmp_path)


def test_a_cut_is_tried_again(mirror: Served, tmp_path: Path) -> None:
    mirror.faults["/debian/pool/main/d/demo/demo_1.0-1_amd64.deb"] = [Reset(1)]
    (file,) = deb.resolve("recipe", BINARY, tmp_path)
    assert blobs.sound(tmp_path, file, "recipe")


@pytest.mark.parametrize("source", [BINARY, UPSTREAM], ids=["binary", "source"])
def test_a_version_that_has_vanished(
    source: Source, mirror: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A point release: the lists of an earlier run still name the old version, the archive no longer has it."""
    files = deb.resolve("recipe", source, tmp_path)
    forget(tmp_path)
    next_run(monkeypatch)
    mirror.files = archive({"1:1.0-2": b"two"})
    with pytest.raises(UserError) as caught:
        deb.fetch("recipe", source, files, tmp_path)
    assert str(caught.value) == (
        f"{source}: this machine's Debian archives do not have it (versions there: 1:1.0-2)\n"
        "  hint: ./do lock --upgrade NAME moves to the newest; "
        "a mirror that keeps old versions can be set in SANDKUBE_DEB_MIRROR"
    )


def test_no_such_package(mirror: Served, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^deb:other@1: this machine's Debian archives do not have it \(versions there: none\)\n"
    ):
        deb.resolve("recipe", Source("deb", "other", "1"), tmp_path)


@pytest.mark.parametrize("name", ["demo", "src:demo"])
def test_versions_in_debian_order(name: str, mirror: Served, tmp_path: Path) -> None:
    mirror.files = archive({"1.0-10": b"a", "1.0-9": b"b", "1:0.1-1": b"c", "1.0~rc1-1": b"d"})
    assert deb.versions(Source("deb", name, "0"), tmp_path) == ["1.0~rc1-1", "1.0-9", "1.0-10", "1:0.1-1"]

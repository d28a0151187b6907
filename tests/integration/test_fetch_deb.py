"""Debian packages by apt itself from an archive on loopback: what changes in an archive, and what breaks."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandkube.build.lock import File
from sandkube.build.sources import Source, blobs, deb, deb_apt, deb_places
from sandkube.errors import HashMismatch, UserError
from tests.debian import archive, sha256
from tests.servers import Fault, Other, Reset, Served, Status, file_server, only_loopback

pytestmark = pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt-get is a part of Debian")

BINARY = Source("deb", "demo", "1:1.0-1")
UPSTREAM = Source("deb", "src:demo", "1:1.0-1")
RELEASE = "/debian/dists/stable/Release"
POOL = "pool/main/d/demo/demo_1.0-1_amd64.deb"
PINNED = File("demo_1.0-1_amd64.deb", sha256(b"one"), 3, POOL, "stable", "main", hashlib.sha1(b"one").hexdigest())
SIGNED = Path(__file__).parents[1] / "unit/debian"


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Served]:
    only_loopback(monkeypatch, tmp_path / "home")
    with file_server(archive({"1:1.0-1": b"one"})) as served:
        etc = tmp_path / "etc"
        etc.mkdir()
        (etc / "sources.list").write_text(f"deb [trusted=yes] {served.address}/debian stable main\n")
        monkeypatch.setattr(deb_apt, "_SOURCES", etc)
        monkeypatch.setattr(deb_apt, "_updated", set())
        monkeypatch.setenv(deb_places.DEFAULT_MIRROR, f"{served.address}/default")
        monkeypatch.setenv(deb_places.SNAPSHOT, f"{served.address}/snapshot")
        yield served


def forget(cache: Path) -> None:
    shutil.rmtree(cache / "blobs")


def test_binary_package(mirror: Served, tmp_path: Path) -> None:
    files = deb.resolve("recipe", BINARY, tmp_path)
    sha1 = hashlib.sha1(b"one").hexdigest()
    assert files == (File("demo_1.0-1_amd64.deb", sha256(b"one"), 3, POOL, "stable", "main", sha1),)
    asked = len(mirror.seen)
    deb.fetch("recipe", BINARY, files, tmp_path)
    assert len(mirror.seen) == asked, "what the cache holds is not asked for again"
    assert blobs.path_of(tmp_path, files[0].sha256).read_bytes() == b"one"


@pytest.mark.usefixtures("mirror")
def test_source_package(tmp_path: Path) -> None:
    (file,) = deb.resolve("recipe", UPSTREAM, tmp_path)
    assert (file.name, file.pool) == ("demo_1.0.orig.tar.gz", "pool/main/d/demo/demo_1.0.orig.tar.gz")
    assert blobs.path_of(tmp_path, file.sha256).read_bytes() == b"demo_1.0.orig.tar.gz one"


@pytest.mark.usefixtures("mirror")
def test_nothing_of_the_machine_is_touched(tmp_path: Path) -> None:
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
    said = capsys.readouterr().err
    assert f"E: The repository '{mirror.address}/debian-gone stable Release' does not have a Release file." in said


def test_a_pinned_file_takes_no_list(mirror: Served, tmp_path: Path) -> None:
    """A machine of another release: its mirror has the file, its lists do not, and no key is needed."""
    (tmp_path / "etc/sources.list").write_text(f"deb {mirror.address}/debian elsewhere main\n")
    deb.fetch("recipe", BINARY, (PINNED,), tmp_path)
    assert [path for path, _ in mirror.seen] == [f"/debian/{POOL}"]


def test_a_machine_whose_apt_knows_no_debian(mirror: Served, tmp_path: Path) -> None:
    (tmp_path / "etc/sources.list").write_text(f"deb {mirror.address}/ubuntu noble main\n")
    mirror.files = archive({"1:1.0-1": b"one"}, top="/default")
    deb.fetch("recipe", BINARY, (PINNED,), tmp_path)
    assert [path for path, _ in mirror.seen] == [f"/default/{POOL}"], "by apt, from the default mirror"


def test_the_mirror_that_is_set_comes_before_apt(
    mirror: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(deb_places.MIRROR, f"{mirror.address}/own")
    mirror.files[f"/own/{POOL}"] = b"one"
    deb.fetch("recipe", BINARY, (PINNED,), tmp_path)
    assert [path for path, _ in mirror.seen] == [f"/own/{POOL}"]


@pytest.mark.parametrize("fault", [Other(b"two"), Status(404)], ids=["wrong bytes", "missing"])
def test_from_the_mirror_that_is_set_to_apt(
    fault: Fault, mirror: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(deb_places.MIRROR, f"{mirror.address}/own")
    mirror.files[f"/own/{POOL}"] = b"one"
    mirror.faults[f"/own/{POOL}"] = [fault]
    deb.fetch("recipe", BINARY, (PINNED,), tmp_path)
    assert [path for path, _ in mirror.seen] == [f"/own/{POOL}", f"/debian/{POOL}"]


@pytest.mark.parametrize("fault", [Other(b"two"), Status(404)], ids=["wrong bytes", "missing"])
def test_from_apt_to_the_default_mirror(
    fault: Fault, mirror: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror.files[f"/default/{POOL}"] = b"one"
    mirror.faults[f"/debian/{POOL}"] = [fault]
    deb.fetch("recipe", BINARY, (PINNED,), tmp_path)
    assert [path for path, _ in mirror.seen] == [f"/debian/{POOL}", f"/default/{POOL}"]
    said = sha256(b"two") if isinstance(fault, Other) else f"404 Not Found [IP: 127.0.0.1 {mirror.port}]"
    assert f"recipe: {mirror.address}/debian/{POOL} by apt: {said}\n" in capsys.readouterr().err


def test_other_bytes_under_the_same_version(mirror: Served, tmp_path: Path) -> None:
    files = deb.resolve("recipe", BINARY, tmp_path)
    forget(tmp_path)
    mirror.files = archive({"1:1.0-1": b"two"})
    with pytest.raises(HashMismatch) as caught:
        deb.fetch("recipe", BINARY, files, tmp_path)
    assert caught.value.message == (
        f"recipe: demo_1.0-1_amd64.deb: the bytes do not match their pin: expected {sha256(b'one')} of 3 bytes, "
        f"got {sha256(b'two')}, from {mirror.address}/debian/{POOL} by apt; also tried: SANDKUBE_DEB_MIRROR "
        "(not set; it may be the address of a Debian mirror, the folder that holds pool/), "
        f"{mirror.address}/default/{POOL} (status 404), {mirror.address}/snapshot/file/{files[0].sha1} (status 404)"
    )
    assert not blobs.path_of(tmp_path, files[0].sha256).exists()


def test_a_file_that_does_not_match_the_index(mirror: Served, tmp_path: Path) -> None:
    mirror.faults[f"/debian/{POOL}"] = [Other(b"bad")] * 9
    with pytest.raises(HashMismatch):
        deb.resolve("recipe", BINARY, tmp_path)


def test_a_cut_is_tried_again(mirror: Served, tmp_path: Path) -> None:
    mirror.faults[f"/debian/{POOL}"] = [Reset(1)]
    (file,) = deb.resolve("recipe", BINARY, tmp_path)
    assert blobs.sound(tmp_path, file, "recipe")


def test_a_version_that_mirrors_have_dropped(mirror: Served, tmp_path: Path) -> None:
    """A point release: only the snapshot archive still has it."""
    (file,) = deb.resolve("recipe", BINARY, tmp_path)
    forget(tmp_path)
    mirror.files = archive({"1:1.0-2": b"two"}) | {f"/snapshot/file/{file.sha1}": b"one"}
    deb.fetch("recipe", BINARY, (file,), tmp_path)
    assert blobs.sound(tmp_path, file, "recipe")


def test_a_version_that_has_vanished(mirror: Served, tmp_path: Path) -> None:
    (file,) = deb.resolve("recipe", BINARY, tmp_path)
    forget(tmp_path)
    mirror.files = archive({"1:1.0-2": b"two"})
    with pytest.raises(UserError) as caught:
        deb.fetch("recipe", BINARY, (file,), tmp_path)
    gone = "it does not have this version, or no longer"
    assert caught.value.message == (
        "recipe: deb:demo@1:1.0-1: no place has demo_1.0-1_amd64.deb:\n"
        "  SANDKUBE_DEB_MIRROR: not set; it may be the address of a Debian mirror, the folder that holds pool/\n"
        f"  {mirror.address}/debian/{POOL} by apt: 404 Not Found [IP: 127.0.0.1 {mirror.port}]: {gone}\n"
        f"  {mirror.address}/default/{POOL}: status 404: {gone}\n"
        f"  {mirror.address}/snapshot/file/{file.sha1}: status 404: {gone}"
    )


@pytest.mark.usefixtures("mirror")
def test_no_such_package(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        deb.resolve("recipe", Source("deb", "other", "1"), tmp_path)
    assert caught.value.message.startswith(
        "deb:other@1: no Debian archive has it:\n  apt, the suites of this machine: versions there: none\n"
    )


@pytest.mark.parametrize("name", ["demo", "src:demo"])
def test_versions_in_debian_order(name: str, mirror: Served, tmp_path: Path) -> None:
    mirror.files = archive({"1.0-10": b"a", "1.0-9": b"b", "1:0.1-1": b"c", "1.0~rc1-1": b"d"})
    assert deb.versions("recipe", Source("deb", name, "0"), tmp_path) == ["1.0~rc1-1", "1.0-9", "1.0-10", "1:0.1-1"]


def test_a_suite_that_is_not_the_machines(mirror: Served, tmp_path: Path) -> None:
    """Lists of our own name the suite of the earlier pin; a named version of the machine's own is found too."""
    mirror.files |= archive({"0.9-1": b"a", "0.9-2": b"b"}, suite="bookworm")
    near = [replace(PINNED, suite="bookworm")]
    assert deb.versions("recipe", BINARY, tmp_path, near) == ["0.9-1", "0.9-2"]
    (file,) = deb.resolve("recipe", Source("deb", "demo", "0.9-2"), tmp_path, near)
    assert (file.suite, file.sha256) == ("bookworm", sha256(b"b"))
    (file,) = deb.resolve("recipe", BINARY, tmp_path, near)
    assert (file.suite, file.sha256) == ("stable", sha256(b"one"))


def signed(mirror: Served, tmp_path: Path) -> None:
    """An archive that a key has signed, in a suite that the machine's entry, which names this key, does not name."""
    for path in SIGNED.iterdir():
        mirror.files[f"/debian/dists/trixie/{path.name}"] = path.read_bytes()
    mirror.files["/debian/dists/trixie/main/binary-amd64/Packages"] = (SIGNED / "Packages").read_bytes()
    entry = f"deb [signed-by={SIGNED}/keyring.gpg] {mirror.address}/debian bookworm main\n"
    (tmp_path / "etc/sources.list").write_text(entry)


def test_the_machines_key_checks_the_other_suite(mirror: Served, tmp_path: Path) -> None:
    signed(mirror, tmp_path)
    near = [replace(PINNED, suite="trixie")]
    assert deb.resolve("recipe", BINARY, tmp_path, near)[0].suite == "trixie"


def test_a_suite_that_no_key_of_the_machine_has_signed(
    mirror: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signed(mirror, tmp_path)
    path = "/debian/dists/trixie/InRelease"
    mirror.files[path] = mirror.files[path].replace(b"Origin: Test", b"Origin: Fest")
    with pytest.raises(UserError) as caught:
        deb.resolve("recipe", BINARY, tmp_path, [replace(PINNED, suite="trixie")])
    assert "\n  apt, trixie: no list could be had\n" in caught.value.message
    said = f"E: The repository '{mirror.address}/debian trixie InRelease' is not signed."
    assert said in capsys.readouterr().err


def test_where_no_key_can_check_it_is_said(
    mirror: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "etc/sources.list").write_text("")
    monkeypatch.setattr(deb_places, "_KEYRINGS", ())
    mirror.files = archive({"1:1.0-1": b"one"}, top="/default")
    assert deb.resolve("recipe", BINARY, tmp_path)[0].sha256 == sha256(b"one")
    assert (
        f"recipe: the signature of {mirror.address}/default is not checked, for this machine has no Debian keyring"
        in (capsys.readouterr().err)
    )

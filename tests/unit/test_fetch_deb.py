"""Debian's files without apt: each place in its order, and what is said when none has a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from sandkube import run
from sandkube.build import lock, spec
from sandkube.build.builders.tree import Tree
from sandkube.build.lock import File, Pin
from sandkube.build.recipe import Recipe
from sandkube.build.sources import Source, blobs, deb, deb_apt, deb_places
from sandkube.build.sources.settings import Patience
from sandkube.errors import HashMismatch, UserError
from sandkube.files import locked
from tests.servers import Reset, Served, file_server, only_loopback

CONTENT = b"a package\n"
OTHER = b"A package\n"
SOURCE = Source("deb", "demo", "1:1.0-1+b1")
FILE = File(
    "demo_1.0-1+b1_amd64.deb",
    hashlib.sha256(CONTENT).hexdigest(),
    len(CONTENT),
    "pool/main/d/demo/demo_1.0-1+b1_amd64.deb",
    "bookworm",
    "main",
    hashlib.sha1(CONTENT).hexdigest(),
)
POOL = FILE.pool
MIRROR, DEFAULT, SNAPSHOT = f"/mirror/{POOL}", f"/default/{POOL}", f"/snapshot/file/{FILE.sha1}"
QUOTED = "pool/main/d/demo/demo_1.0-1%2Bb1_amd64.deb"
ONCE = Patience(attempts=1)
WRONG = hashlib.sha256(OTHER).hexdigest()


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Served]:
    """One server that is every place, each below a folder of its own; a machine without apt."""
    only_loopback(monkeypatch, tmp_path / "home")
    monkeypatch.setattr("shutil.which", lambda _name, **_: None)
    with file_server() as served:
        monkeypatch.setenv(deb_places.DEFAULT_MIRROR, f"{served.address}/default/")
        monkeypatch.setenv(deb_places.SNAPSHOT, f"{served.address}/snapshot/")
        monkeypatch.setenv(deb_places.MIRROR, f"{served.address}/mirror/")
        yield served


def asked(served: Served) -> list[str]:
    return [path for path, _ in served.seen]


@pytest.mark.parametrize(
    "there",
    [(MIRROR, DEFAULT, SNAPSHOT), (DEFAULT, SNAPSHOT), (SNAPSHOT,)],
    ids=["the user's mirror", "the default mirror", "the snapshot archive"],
)
def test_the_first_place_that_has_the_file(there: tuple[str, ...], places: Served, tmp_path: Path) -> None:
    places.files |= dict.fromkeys(there, CONTENT)
    deb.fetch("recipe", SOURCE, (FILE,), tmp_path)
    deb.fetch("recipe", SOURCE, (FILE,), tmp_path)
    order = [MIRROR, DEFAULT, SNAPSHOT]
    assert asked(places) == order[: order.index(there[0]) + 1], "in this order, and nothing after it has come"
    assert blobs.sound(tmp_path, FILE, "recipe")


def test_what_the_cache_holds_is_asked_for_nowhere(places: Served, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    blobs.put(tmp_path, tmp_path / "file")
    deb.fetch("recipe", SOURCE, (FILE,), tmp_path)
    assert asked(places) == []


def test_a_damaged_file_in_the_cache_comes_again(places: Served, tmp_path: Path) -> None:
    path = blobs.path_of(tmp_path, FILE.sha256)
    path.parent.mkdir(parents=True)
    path.write_bytes(OTHER)
    places.files[MIRROR] = CONTENT
    deb.fetch("recipe", SOURCE, (FILE,), tmp_path)
    assert path.read_bytes() == CONTENT


def test_the_second_that_found_it_damaged_drops_no_mended_file(tmp_path: Path) -> None:
    path = blobs.path_of(tmp_path, FILE.sha256)
    path.parent.mkdir(parents=True)
    path.write_bytes(OTHER)
    with ThreadPoolExecutor() as pool:
        with locked(path.parent):  # as the first has it
            second = pool.submit(blobs.sound, tmp_path, FILE, "recipe")
            with pytest.raises(TimeoutError):
                second.result(0.2)
            path.write_bytes(CONTENT)
        assert second.result(10)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("bad", "good"), [(MIRROR, DEFAULT), (DEFAULT, SNAPSHOT)], ids=["the user's mirror", "the default mirror"]
)
def test_wrong_bytes_are_named_and_the_next_place_is_asked(
    bad: str, good: str, places: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places.files |= {bad: OTHER, good: CONTENT}
    deb.fetch("recipe", SOURCE, (FILE,), tmp_path)
    assert blobs.path_of(tmp_path, FILE.sha256).read_bytes() == CONTENT
    bad_address = places.address + bad.replace("+", "%2B")
    assert f"recipe: {bad_address}: {WRONG}\n" in capsys.readouterr().err


def test_a_place_that_breaks_off_is_left_for_the_next(places: Served, tmp_path: Path) -> None:
    places.files |= {MIRROR: CONTENT, DEFAULT: CONTENT}
    places.faults[MIRROR] = [Reset(3)]
    deb.fetch("recipe", SOURCE, (FILE,), tmp_path, ONCE)
    assert places.seen == [(MIRROR, ""), (DEFAULT, "bytes=3-")], "what came from the first is kept"


def test_an_apt_that_is_broken_is_left_for_the_next(
    places: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real programs of these names: the machine's apt-config ends as for a configuration that it cannot read."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("apt-get", "apt-config"):
        (programs / name).write_text("#!/bin/sh\nexit 100\n")
        (programs / name).chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda name, **_: str(programs / name))
    monkeypatch.setattr(deb_apt, "_HELPER", str(programs / "apt-get"))
    monkeypatch.setattr(run, "base_environment", lambda home: {"PATH": str(programs), "HOME": str(home)})
    places.files[DEFAULT] = CONTENT
    deb.fetch("recipe", SOURCE, (FILE,), tmp_path)
    assert asked(places) == [MIRROR, DEFAULT]


def test_no_place_has_it(places: Served, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        deb.fetch("recipe", SOURCE, (FILE,), tmp_path)
    assert not isinstance(caught.value, HashMismatch)
    missing = "status 404: it does not have this version, or no longer"
    assert str(caught.value) == (
        "recipe: deb:demo@1:1.0-1+b1: no place has demo_1.0-1+b1_amd64.deb:\n"
        f"  {places.address}/mirror/{QUOTED}: {missing}\n"
        "  apt: this machine has none, and needs none where another place answers\n"
        f"  {places.address}/default/{QUOTED}: {missing}\n"
        f"  {places.address}{SNAPSHOT}: {missing}\n"
        "  hint: set SANDKUBE_DEB_MIRROR to a mirror that has this version, "
        "or move to one that mirrors have with ./do lock --upgrade recipe"
    )


@pytest.mark.usefixtures("places")
def test_no_place_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(deb_places.MIRROR)
    closed = "http://127.0.0.1:9"
    monkeypatch.setenv(deb_places.DEFAULT_MIRROR, closed)
    monkeypatch.setenv(deb_places.SNAPSHOT, closed)
    with pytest.raises(UserError) as caught:
        deb.fetch("recipe", SOURCE, (replace(FILE, sha1=""),), tmp_path, ONCE)
    assert caught.value.message == (
        "recipe: deb:demo@1:1.0-1+b1: no place has demo_1.0-1+b1_amd64.deb:\n"
        "  SANDKUBE_DEB_MIRROR: not set; it may be the address of a Debian mirror, the folder that holds pool/\n"
        "  apt: this machine has none, and needs none where another place answers\n"
        f"  {closed}/{QUOTED}: [Errno 111] Connection refused (1 attempts): "
        "is it the right address, and reachable? Proxy variables are honoured\n"
        "  the snapshot archive: the pin has no SHA-1 to ask for; ./do lock completes it"
    )


def test_wrong_bytes_and_no_right_ones(places: Served, tmp_path: Path) -> None:
    places.files[DEFAULT] = OTHER
    with pytest.raises(HashMismatch) as caught:
        deb.fetch("recipe", SOURCE, (FILE,), tmp_path)
    assert caught.value.message == (
        f"recipe: {FILE.name}: the bytes do not match their pin: expected {FILE.sha256} of 10 bytes, got {WRONG}, "
        f"from {places.address}/default/{QUOTED}; also tried: {places.address}/mirror/{QUOTED} (status 404), "
        "apt (this machine has none, and needs none where another place answers), "
        f"{places.address}{SNAPSHOT} (status 404)"
    )
    assert not blobs.path_of(tmp_path, FILE.sha256).exists()


def test_security_updates_are_in_an_archive_beside(places: Served, tmp_path: Path) -> None:
    """A file of a release was often first in its security updates: both archives are asked, the likelier first."""
    file = replace(FILE, suite="bookworm-security")
    places.files[DEFAULT] = CONTENT
    deb.fetch("recipe", SOURCE, (file,), tmp_path)
    assert asked(places) == [f"/mirror-security/{POOL}", MIRROR, f"/default-security/{POOL}", DEFAULT]


def test_addresses_without_any_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    only_loopback(monkeypatch, tmp_path)
    domain = ".".join(("debian", "org"))
    assert deb_places.mirror() == ""
    assert deb_places.default_mirror() == f"https://deb.{domain}/debian"
    assert deb_places.snapshot("0123") == f"https://snapshot.{domain}/file/0123"
    assert deb_places.archives(f"https://deb.{domain}/debian", "sid-security")[0] == (
        f"https://deb.{domain}/debian-security"
    )


def test_an_older_pin_is_refused_by_a_build_and_names_the_command(tmp_path: Path) -> None:
    recipe = Recipe("demo", SOURCE, "tree", Tree())
    digest = spec.spec_digest(recipe, tmp_path)
    old = File(FILE.name, FILE.sha256, FILE.size, FILE.pool)
    assert spec.check({"demo": recipe}, {"demo": Pin(digest, files=(old,))}, tmp_path) == [
        "lock.json: the pin of demo is of an older form, which says neither suite nor component"
    ]
    assert spec.check({"demo": recipe}, {"demo": Pin(digest, files=(FILE,))}, tmp_path) == []


def test_the_lock_keeps_where_a_file_is(tmp_path: Path) -> None:
    pins = {"demo": Pin("0" * 64, files=(FILE,)), "old": Pin("1" * 64, files=(File("a.whl", "2" * 64, 3),))}
    (tmp_path / "lock.json").write_text(lock.encode(pins))
    assert lock.load(tmp_path / "lock.json") == pins
    assert '"old"' in (tmp_path / "lock.json").read_text()
    assert f'"suite": "bookworm", "component": "main", "sha1": "{FILE.sha1}"' in (tmp_path / "lock.json").read_text()

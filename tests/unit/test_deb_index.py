"""Pins of Debian packages without apt: indexes of a mirror by HTTP, their sums, their signature, their order."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from sandkube.build import recipe, resolve, spec
from sandkube.build.lock import File, Pin
from sandkube.build.recipe import Recipe
from sandkube.build.sources import Source, blobs, deb, deb_apt, deb_control, deb_mirror, deb_places
from sandkube.errors import HashMismatch, UserError
from tests.debian import archive, sha256
from tests.servers import Other, Served, file_server, only_loopback

BINARY = Source("deb", "demo", "1:1.0-1")
UPSTREAM = Source("deb", "src:demo", "1:1.0-1")
WHICH = shutil.which
SIGNED = Path(__file__).with_name("debian")


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Served]:
    """A default mirror on loopback; a machine of another distribution, without apt and without Debian's keys."""
    only_loopback(monkeypatch, tmp_path / "home")
    monkeypatch.setattr("shutil.which", lambda _name, **_: None)
    monkeypatch.setattr(deb_places, "_KEYRINGS", ())
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"ID": "elsewhere"})
    with file_server() as served:
        monkeypatch.setenv(deb_places.DEFAULT_MIRROR, f"{served.address}/debian")
        monkeypatch.setenv(deb_places.SNAPSHOT, f"{served.address}/snapshot")
        yield served


@pytest.fixture
def keyring(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The key that signed the files of `debian/` beside this one."""
    request.getfixturevalue("mirror")  # which takes all keys away
    monkeypatch.setattr("shutil.which", WHICH)
    monkeypatch.setattr(deb_places, "_KEYRINGS", (SIGNED / "keyring.gpg",))
    assert shutil.which("gpgv"), "gpgv is a part of Debian"
    return SIGNED / "keyring.gpg"


def pinned(name: str, content: bytes, suite: str) -> File:
    sha1 = hashlib.sha1(content).hexdigest()
    return File(name, sha256(content), len(content), f"pool/main/d/demo/{name}", suite, "main", sha1)


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "xz"])
@pytest.mark.parametrize("by_hash", [True, False], ids=["by hash", "by name"])
def test_a_pin_of_a_new_recipe_is_of_stable(plain: bool, by_hash: bool, mirror: Served, tmp_path: Path) -> None:
    mirror.files |= archive({"1:1.0-1": b"one"}, code_name="trixie", plain=plain, by_hash=by_hash)
    assert deb.resolve("recipe", BINARY, tmp_path) == (pinned("demo_1.0-1_amd64.deb", b"one", "trixie"),)
    assert deb.resolve("recipe", UPSTREAM, tmp_path) == (
        pinned("demo_1.0.orig.tar.gz", b"demo_1.0.orig.tar.gz one", "trixie"),
    )
    asked = [path for path, _ in mirror.seen]
    assert any("/by-hash/" in path for path in asked) == by_hash
    assert any(path.endswith(("/Packages", "/Packages.xz")) for path in asked) != by_hash


def test_the_suite_of_the_earlier_pin_comes_first(mirror: Served, tmp_path: Path) -> None:
    mirror.files |= archive({"1:1.0-1": b"new"}, code_name="trixie")
    mirror.files |= archive({"1:1.0-1": b"old"}, suite="bookworm")
    (file,) = deb.resolve("recipe", BINARY, tmp_path, [pinned("demo_0.9_amd64.deb", b"before", "bookworm")])
    assert (file.suite, file.sha256) == ("bookworm", sha256(b"old"))


def test_upgrades_stay_in_the_suite_with_its_updates(mirror: Served, tmp_path: Path) -> None:
    near = [pinned("demo_1.0_amd64.deb", b"before", "bookworm-security")]
    mirror.files |= archive({"2.0-1": b"new"}, code_name="trixie")
    mirror.files |= archive({"1.0-1": b"a"}, suite="bookworm")
    mirror.files |= archive({"1.0-1+deb12u2": b"b"}, suite="bookworm-security", top="/debian-security")
    assert deb.versions("recipe", BINARY, tmp_path, near) == ["1.0-1", "1.0-1+deb12u2"]
    named = Source("deb", "demo", "1.0-1+deb12u2")
    mirror.files |= archive({"1.0-1+deb12u2": b"b"}, suite="bookworm-security", top="/debian-security")
    assert deb.resolve("recipe", named, tmp_path, near)[0].suite == "bookworm-security"


def test_a_named_version_of_a_newer_suite_is_found(mirror: Served, tmp_path: Path) -> None:
    mirror.files |= archive({"2.0-1": b"new"}, code_name="trixie")
    mirror.files |= archive({"1.0-1": b"a"}, suite="bookworm")
    near = [pinned("demo_1.0-1_amd64.deb", b"a", "bookworm")]
    (file,) = deb.resolve("recipe", Source("deb", "demo", "2.0-1"), tmp_path, near)
    assert file.suite == "trixie"


def test_the_mirror_that_is_set_comes_before_the_default_one(
    mirror: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(deb_places.MIRROR, f"{mirror.address}/own")
    mirror.files |= archive({"1:1.0-1": b"own"}, top="/own", code_name="trixie")
    deb.resolve("recipe", BINARY, tmp_path)
    assert {path.split("/")[1] for path, _ in mirror.seen} == {"own", "own-security"}


def test_a_mirror_without_the_package_is_left_for_the_default_one(
    mirror: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(deb_places.MIRROR, f"{mirror.address}/own")
    mirror.files |= archive({"1:1.0-1": b"one"}, code_name="trixie")
    assert deb.resolve("recipe", BINARY, tmp_path)[0].sha256 == sha256(b"one")


def test_no_archive_has_the_version(mirror: Served, tmp_path: Path) -> None:
    mirror.files |= archive({"1.0-10": b"a", "1.0-9": b"b"}, code_name="trixie")
    with pytest.raises(UserError) as caught:
        deb.resolve("recipe", BINARY, tmp_path)
    folder = f"{mirror.address}/debian/dists"
    assert str(caught.value) == (
        "deb:demo@1:1.0-1: no Debian archive has it:\n"
        "  apt: this machine has none\n"
        f"  {folder}/stable: versions there: 1.0-9, 1.0-10\n"
        f"  {folder}/oldstable/Release: status 404\n"
        "  hint: ./do lock --upgrade recipe moves to the newest; "
        "a mirror that keeps old versions can be set in SANDKUBE_DEB_MIRROR"
    )


def test_an_index_that_is_not_the_one_that_the_release_names(mirror: Served, tmp_path: Path) -> None:
    mirror.files |= archive({"1:1.0-1": b"one"})
    mirror.files["/debian/dists/stable/main/binary-amd64/Packages"] += b"\nPackage: demo\nVersion: 2\n"
    with pytest.raises(
        UserError,
        match=r"dists/stable/main/binary-amd64/Packages: not the index that the release file names: 244 bytes\n",
    ):
        deb.resolve("recipe", BINARY, tmp_path)


def test_a_release_file_of_another_suite(mirror: Served, tmp_path: Path) -> None:
    mirror.files |= archive({"1:1.0-1": b"one"}, suite="bookworm")
    mirror.files["/debian/dists/stable/Release"] = mirror.files["/debian/dists/bookworm/Release"]
    with pytest.raises(UserError) as caught:
        deb.resolve("recipe", BINARY, tmp_path)
    assert f"  {mirror.address}/debian/dists/stable/Release: is of bookworm and bookworm, not of stable\n" in str(
        caught.value
    )


def test_that_no_key_has_checked_is_said(mirror: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mirror.files |= archive({"1:1.0-1": b"one"})
    deb.resolve("recipe", BINARY, tmp_path)
    assert (
        f"recipe: the signature of {mirror.address}/debian/dists/stable is not checked, for this machine has no Debian "
        "keyring: the pin is as good as the connection (the packages gpgv and debian-archive-keyring have it checked)\n"
    ) in capsys.readouterr().err


def signed(names: tuple[str, ...]) -> dict[str, bytes]:
    """A mirror with an archive that the key of `debian/` has signed, with these of its files."""
    folder = "/debian/dists/stable"
    found = {f"{folder}/{name}": (SIGNED / name).read_bytes() for name in names}
    found[f"{folder}/main/binary-amd64/Packages"] = (SIGNED / "Packages").read_bytes()
    return found


@pytest.mark.parametrize("names", [("InRelease",), ("Release", "Release.gpg")], ids=["inline", "detached"])
def test_a_signature_by_a_key_of_the_keyring(
    names: tuple[str, ...], mirror: Served, keyring: Path, tmp_path: Path
) -> None:
    mirror.files |= signed(names)
    assert deb_mirror.can_check() == keyring
    base = f"{mirror.address}/debian"
    (index, *_) = deb_mirror.indexes("recipe", base, "stable", "main", "Packages", tmp_path)
    assert (index.suite, index.text) == ("trixie", (SIGNED / "Packages").read_bytes())


@pytest.mark.parametrize("names", [("InRelease",), ("Release", "Release.gpg")], ids=["inline", "detached"])
def test_a_release_file_that_was_changed(names: tuple[str, ...], mirror: Served, keyring: Path, tmp_path: Path) -> None:
    mirror.files |= signed(names)
    path = f"/debian/dists/stable/{names[0]}"
    mirror.files[path] = mirror.files[path].replace(b"Origin: Test", b"Origin: Fest")
    with pytest.raises(UserError) as caught:
        list(deb_mirror.indexes("recipe", f"{mirror.address}/debian", "stable", "main", "Packages", tmp_path))
    assert caught.value.message.startswith(
        f"{mirror.address}{path}: no key of {keyring} has signed it: Signature made "
    )
    assert "BAD signature from" in caught.value.message


@pytest.mark.usefixtures("keyring")
def test_a_release_file_without_a_signature_where_there_is_a_key(mirror: Served, tmp_path: Path) -> None:
    mirror.files |= archive({"1:1.0-1": b"one"})
    with pytest.raises(UserError, match=r"^http://127\.0\.0\.1:\d+/debian/dists/stable/Release\.gpg: status 404$"):
        list(deb_mirror.indexes("recipe", f"{mirror.address}/debian", "stable", "main", "Packages", tmp_path))


def test_an_older_pin_is_completed(mirror: Served, tmp_path: Path) -> None:
    mirror.files |= archive({"1:1.0-1": b"one"}, code_name="trixie")
    old = File("demo_1.0-1_amd64.deb", sha256(b"one"), 3, "pool/main/d/demo/demo_1.0-1_amd64.deb")
    assert deb.completed("recipe", BINARY, [old], tmp_path) == (pinned("demo_1.0-1_amd64.deb", b"one", "trixie"),)


def test_an_older_pin_is_completed_with_its_own_bytes_only(mirror: Served, tmp_path: Path) -> None:
    mirror.files |= archive({"1:1.0-1": b"two"}, code_name="trixie")
    old = File("demo_1.0-1_amd64.deb", sha256(b"one"), 3, "pool/main/d/demo/demo_1.0-1_amd64.deb")
    with pytest.raises(HashMismatch) as caught:
        deb.completed("recipe", BINARY, [old], tmp_path)
    assert caught.value.message == (
        f"recipe: deb:demo@1:1.0-1: the bytes do not match their pin: expected {sha256(b'one')}, "
        f"got {sha256(b'two')}, from the archive"
    )


def test_a_file_that_does_not_match_the_index(mirror: Served, tmp_path: Path) -> None:
    mirror.files |= archive({"1:1.0-1": b"one"})
    mirror.faults["/debian/pool/main/d/demo/demo_1.0-1_amd64.deb"] = [Other(b"bad")] * 9
    with pytest.raises(HashMismatch):
        deb.resolve("recipe", BINARY, tmp_path)
    assert not blobs.path_of(tmp_path, sha256(b"one")).exists()


@pytest.mark.parametrize("name", ["demo", "src:demo"])
def test_versions_in_debian_order(name: str, mirror: Served, tmp_path: Path) -> None:
    mirror.files |= archive({"1.0-10": b"a", "1.0-9": b"b", "1:0.1-1": b"c", "1.0~rc1-1": b"d"})
    assert deb.versions("recipe", Source("deb", name, "0"), tmp_path) == ["1.0~rc1-1", "1.0-9", "1.0-10", "1:0.1-1"]


def test_one_line_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's archives only: another vendor's, one for Debian by another vendor, and comments are left out."""
    (tmp_path / "sources.list").write_text(
        "# deb http://commented/debian x main\n"
        "deb [signed-by=/k.gpg arch=amd64,i386] http://h/debian bookworm main contrib # why\n"
        "deb-src http://h/debian bookworm main\n"
        "deb http://security/debian-security bookworm-security main\n"
        "deb https://third.party/apt stable main\n"
        "deb https://third.party/linux/debian bookworm stable\n"
    )
    monkeypatch.setattr(deb_apt, "_SOURCES", tmp_path)
    plain = {"Types": "deb", "URIs": "http://h/debian", "Suites": "bookworm", "Components": "main contrib"}
    assert deb_apt._entries() == [
        plain | {"signed-by": "/k.gpg", "Architectures": "amd64 i386"},
        plain | {"URIs": "http://security/debian-security", "Suites": "bookworm-security", "Components": "main"},
    ]


def deb822(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/debian.sources").write_text(text)
    monkeypatch.setattr(deb_apt, "_SOURCES", tmp_path)


STANZAS = """\
Types: deb
# a remark
URIs: http://h/debian
Suites: trixie trixie-updates trixie-backports
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

Types: deb
URIs: http://h/debian-security
Suites: trixie-security
Components: main

Types: deb
URIs: http://h/debian
Suites: sid
Components: main
Enabled: no

Types: deb
URIs: https://third.party/apt
Suites: stable
Components: main
"""


def test_entries_of_another_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine's own mirrors and keys, with the suite of a pin; updates stay updates."""
    deb822(tmp_path, STANZAS, monkeypatch)
    first, second = deb_apt._wanted("bookworm-security", "main")
    assert (first["URIs"], first["Suites"]) == (
        "http://h/debian",
        "bookworm bookworm-updates",
    )
    assert first["Components"] == "main"
    assert "abc" in first["Signed-By"]
    assert (second["URIs"], second["Suites"]) == ("http://h/debian-security", "bookworm-security")
    assert [entry["Suites"] for entry in deb_apt._wanted("trixie", "main")] == [
        "trixie trixie-updates trixie-backports",
        "trixie-security",
    ], "the machine's own entries as they are"


def test_archives_of_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list").write_text("# mirrors\nhttp://one/debian priority:1\nhttp://two/debian\n")
    text = STANZAS.replace("http://h/debian\n", f"mirror+file://{tmp_path}/list#/debian\n".replace("#/debian", ""), 1)
    deb822(tmp_path, text.replace(f"{tmp_path}/list", f"{tmp_path}/debian.list"), monkeypatch)
    (tmp_path / "list").rename(tmp_path / "debian.list")
    assert deb_apt.archives("bookworm") == ("http://one/debian", "http://two/debian", "http://h/debian-security")
    assert deb_apt.archives("bookworm-security")[0] == "http://h/debian-security"


def test_a_machine_whose_apt_knows_no_debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deb822(tmp_path, "Types: deb\nURIs: http://h/ubuntu\nSuites: noble\nComponents: main universe\n", monkeypatch)
    monkeypatch.setenv(deb_places.DEFAULT_MIRROR, "http://mirror/debian")
    monkeypatch.setattr(deb_places, "_KEYRINGS", ())
    assert deb_apt.archives("bookworm") == ("http://mirror/debian",)
    assert [(entry["URIs"], entry["Suites"], entry["Trusted"]) for entry in deb_apt._wanted("bookworm", "main")] == [
        ("http://mirror/debian", "bookworm", "yes"),
        ("http://mirror/debian-security", "bookworm-security", "yes"),
    ]
    monkeypatch.setattr(deb_places, "_KEYRINGS", (SIGNED / "keyring.gpg",))
    assert all("Trusted" not in each and "Signed-By" in each for each in deb_apt._wanted("bookworm", "main"))


def test_only_the_stanzas_of_one_package_are_read() -> None:
    text = (
        b"Package: demo-extra\nVersion: 3\n\nPackage: demo\nVersion: 1:2-1\nFilename: pool/d/demo.deb\nSize: 3\n"
        b"SHA256: 00\n\n\nPackage: other\nVersion: 1\nDescription: x\n Package: demo\n\n"
    )
    index = deb_control.Index("sid", "main", text)
    assert deb_control.find([index], Source("deb", "demo")) == [
        deb_control.Found("1:2-1", (File("demo.deb", "00", 3, "pool/d/demo.deb", "sid", "main"),))
    ]


def test_upstream_archives_of_a_source_package() -> None:
    """Several components each have an archive of their own; signatures and Debian's changes are left out."""
    text = (
        b"Package: demo\nVersion: 1-1\nDirectory: pool/main/d/demo\nChecksums-Sha256:\n 00 1 d_1-1.dsc\n"
        b" 11 2 d_1.orig.tar.xz\n 22 3 d_1.orig.tar.xz.asc\n 33 4 d.debian.tar.xz\n"
    )
    ((_, files),) = deb_control.find([deb_control.Index("sid", "main", text)], Source("deb", "src:demo"))
    assert files == (File("d_1.orig.tar.xz", "11", 2, "pool/main/d/demo/d_1.orig.tar.xz", "sid", "main"),)


RECIPE = '# Why.\ndescription = "x"\nsource = "deb:demo@0.9-1"\n[build]\nkind = "tree"\n'


def no_go(_pins: Mapping[str, Pin]) -> Path:
    raise AssertionError("no go client is needed for Debian packages")


def a_project(root: Path, *files: File) -> tuple[dict[str, Recipe], dict[str, Pin]]:
    (root / "recipes").mkdir(parents=True)
    (root / "recipes/demo.toml").write_text(RECIPE)
    recipes = dict(recipe.load(root))
    return recipes, {"demo": Pin(spec.spec_digest(recipes["demo"], root), files=files)}


def test_lock_completes_an_older_pin_and_moves_nothing(mirror: Served, tmp_path: Path) -> None:
    mirror.files |= archive({"0.9-1": b"old", "1.0-1": b"new"}, code_name="trixie")
    whole = pinned("demo_0.9-1_amd64.deb", b"old", "trixie")
    recipes, before = a_project(tmp_path, File(whole.name, whole.sha256, whole.size, whole.pool))
    after = resolve.resolve(recipes, before, tmp_path, tmp_path / "cache", again=[], go_client=no_go)
    assert after["demo"].files == (whole,)
    assert spec.check(recipes, after, tmp_path) == []
    asked = len(mirror.seen)
    assert resolve.resolve(recipes, after, tmp_path, tmp_path / "cache", again=[], go_client=no_go) == after
    assert len(mirror.seen) == asked, "a whole pin is kept as it is"


@pytest.mark.parametrize(
    ("wanted", "version", "suite"), [("", "0.9-2", "bookworm"), ("1.0-1", "1.0-1", "trixie")], ids=["newest", "named"]
)
def test_lock_upgrade(wanted: str, version: str, suite: str, mirror: Served, tmp_path: Path) -> None:
    mirror.files |= archive({"1.0-1": b"new"}, code_name="trixie")
    mirror.files |= archive({"0.9-1": b"old", "0.9-2": b"mended"}, suite="bookworm")
    recipes, before = a_project(tmp_path, pinned("demo_0.9-1_amd64.deb", b"old", "bookworm"))
    cache = tmp_path / "cache"
    resolve.upgrade(recipes, before, "demo", wanted, tmp_path, cache, go=lambda: no_go({}))
    assert (tmp_path / "recipes/demo.toml").read_text() == RECIPE.replace("0.9-1", version)
    moved = dict(recipe.load(tmp_path))
    after = resolve.resolve(moved, before, tmp_path, cache, again=["demo"], go_client=no_go)
    assert [(file.name, file.suite) for file in after["demo"].files] == [(f"demo_{version}_amd64.deb", suite)]

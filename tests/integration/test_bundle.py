"""./do export and ./do import: a closure in one file, which is believed and hashed as any cache is."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandkube.build.cache.bundle import Bundle, take_in
from sandkube.build.cache.keys import Keys, parse
from sandkube.build.store import Store
from sandkube.digest import canonical_json
from sandkube.documents import parse_json
from sandkube.errors import UserError
from tests.small import Small, small


@dataclass(frozen=True)
class Exported:
    """A checkout that has exported `top`, and its public key."""

    one: Small
    file: Path
    public: str


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    base = tmp_path_factory.mktemp("exported")
    one = small(base / "one")
    public = one.do("key", "new", "ci").out.strip()
    said = one.do("export", "top", str(base / "top.tar"))
    assert said.status == 0, said.err
    assert re.fullmatch(r"\S+/top\.tar: 0\.0 MB; elsewhere: \./do import top\.tar\n", said.out)
    return Exported(one, base / "top.tar", public)


@pytest.fixture
def other(tmp_path: Path) -> Small:
    return small(tmp_path / "other")


def changed(exported: Exported, target: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """The exported tar with other contents in it, None for a file that is left out."""
    with tarfile.open(exported.file) as old, tarfile.open(target, "w") as new:
        for member in old:
            stream = old.extractfile(member)
            data = change(member.name, stream.read()) if stream else b""
            if data is not None:
                member.size = len(data)
                new.addfile(member, io.BytesIO(data))
    return target


def in_store(one: Small) -> tuple[int, int]:
    """How many records and trees there are; nothing is half-made."""
    store = one.folder / "outputs/store"
    assert not store.exists() or [*(store / "staging").iterdir()] == []
    return len([*store.glob("records/*")]), len([*store.glob("trees/*")])


def test_who_imports_runs_no_step(exported: Exported, other: Small) -> None:
    assert other.do("key", "trust", exported.public).status == 0
    said = other.do("import", str(exported.file))
    assert (said.status, said.out) == (0, f"{exported.file}: 3 records, signed by ci; trees: top\n"), said.err
    assert in_store(other) == (3, 1)
    built = other.do("build", "top")
    assert (built.status, built.steps()) == (0, {})
    assert (other.folder / "outputs/result/top/all/etc/used").read_text() == "used\n"
    assert other.do("import", str(exported.file)).status == 0
    (other.folder / "native/base/used").write_text("changed\n")
    assert {*other.do("build", "top").steps()} == {"base", "middle", "top"}


def test_the_same_store_makes_the_same_bytes(exported: Exported, tmp_path: Path) -> None:
    os.utime(exported.one.folder / "outputs/store/records")
    assert exported.one.do("export", "top", str(tmp_path / "again.tar")).status == 0
    assert (tmp_path / "again.tar").read_bytes() == exported.file.read_bytes()
    with tarfile.open(exported.file) as tar:
        names = tar.getnames()
        assert names == sorted(names)
        assert {member.mtime for member in tar} == {0}
    assert [name.partition("/")[0] for name in names].count("ac") == 4


def test_who_signed_is_named(exported: Exported, other: Small) -> None:
    public = exported.public.partition(":")[2]
    said = other.do("import", str(exported.file))
    assert said.status == 1
    assert re.fullmatch(
        rf"error: \S+/top\.tar: \w+ is signed by a key that is not trusted here: {re.escape(public)}\n"
        rf"  hint: if it is whose you think it is \(\./do key list shows it there\): \./do key trust NAME:"
        rf"{re.escape(public)}; --unsigned takes it all the same\n",
        said.err,
    )
    assert in_store(other) == (0, 0)
    said = other.do("import", "--unsigned", str(exported.file))
    assert said.status == 0
    assert "warning: whoever made" in said.err
    assert other.do("build", "top").steps() == {}


def test_without_a_key(tmp_path: Path, other: Small) -> None:
    one = small(tmp_path / "one")
    target = tmp_path / "top.tar"
    said = one.do("export", "top", str(target))
    assert (said.status, target.exists()) == (1, False)
    assert "error: there is no key to sign with\n  hint: ./do key new NAME makes one; --unsigned" in said.err
    assert one.do("export", "--unsigned", "top", str(target)).status == 0
    said = other.do("import", str(target))
    assert said.status == 1
    assert re.search(r"error: \S+: \w+: not signed\n  hint: --unsigned takes it all the same\n", said.err)
    assert other.do("import", str(target), "--unsigned").status == 0


def _other_output(name: str, data: bytes) -> bytes:
    if not name.startswith("ac/"):
        return data
    value = parse_json(data)
    return canonical_json({**value, "record": {**value["record"], "output": "0" * 64}})


CHANGES: dict[str, tuple[Callable[[str, bytes], bytes | None], str]] = {
    "an altered record": (_other_output, r"\w+: signed by nobody who is trusted, or wrongly"),
    "what is no record": (
        lambda name, data: b"{}" if name.startswith("ac/") else data,
        r"record \w{12}: no sound record: record: index: missing key",
    ),
    "other bytes": (
        lambda name, data: bytes(len(data)) if name.startswith("cas/") else data,
        r"top: blob \w{12} has other bytes",
    ),
    "no trees": (lambda name, data: None if name.startswith("cas/") else data, "top: its tree is not all there"),
    "no record": (lambda name, data: None if name.startswith("ac/") else data, "holds no record"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_changed_is_refused(exported: Exported, tmp_path: Path, name: str) -> None:
    change, sentence = CHANGES[name]
    keys, store = Keys(tmp_path / "keys"), Store(tmp_path / "store")
    keys.trust(parse(exported.public))
    store.prepare()
    with pytest.raises(UserError, match=rf"^\S+/changed\.tar: {sentence}(\n|$)"):
        take_in(Bundle(changed(exported, tmp_path / "changed.tar", change)), store, keys, unsigned=False)
    assert [each for name in ("trees", "records", "staging") for each in (store.root / name).iterdir()] == []


def _strange(_data: bytes) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../outside"))
    return sink.getvalue()


def _negative(data: bytes) -> bytes:
    """The first header with a size below zero (base 256), and a right checksum."""
    header = bytearray(data[:512])
    header[124:136] = (-1024).to_bytes(12, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data[512:]


FILES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut": (lambda data: data[: len(data) // 2 + 7], "ends in the middle"),
    "cut at its last file": (lambda data: data.rstrip(b"\0")[:-1], "ends in the middle"),
    "without its end": (lambda data: data.rstrip(b"\0") + bytes(-len(data.rstrip(b"\0")) % 512), "ends in the middle"),
    "nothing": (lambda _: b"", "ends in the middle"),
    "compressed": (lambda _: b"\x1f\x8b" + bytes(2000), "no plain tar: bad checksum"),
    "a size below zero": (_negative, "no plain tar: a size in it is negative"),
    "another tar": (_strange, r"holds '\.\./outside', which does not belong there"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_bundle_are_a_sentence(exported: Exported, tmp_path: Path, name: str) -> None:
    make, sentence = FILES[name]
    path = tmp_path / "file.tar"
    path.write_bytes(make(exported.file.read_bytes()))
    with pytest.raises(UserError, match=rf"^\S+/file\.tar: {sentence}"):
        Bundle(path)


def test_odd_places_are_a_sentence(exported: Exported, tmp_path: Path) -> None:
    one, old = exported.one, exported.file.read_bytes()
    for words, sentence in (
        (("import",), "import takes one file"),
        (("import", str(tmp_path)), f"{tmp_path}: is a folder; a file is expected"),
        (("export", "top"), "export takes names and a file"),
        (("export", "top", str(tmp_path)), f"{tmp_path} is a folder"),
        (("export", "top", "/dev/null"), "/dev/null is no regular file, and would be replaced by one"),
        (("export", "top", str(tmp_path / "none/x")), f"{tmp_path}/none: there is no such folder"),
        (("export", "tip", str(tmp_path / "x")), "no recipe 'tip' (did you mean top?)"),
    ):
        said = one.do(*words)
        assert (said.status, said.err.splitlines()[0]) == (1, f"error: {sentence}")
    full = subprocess.run(
        ["sh", "-c", 'ulimit -f 1; exec "$@"', "sh", *one.argv("export", "top", str(exported.file))],
        cwd=one.folder,
        env=one.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert full.returncode == 1
    assert re.search(r"error: .*File too large", full.stderr), full.stderr
    assert exported.file.read_bytes() == old
    assert [*exported.file.parent.glob(".top*")] == []


def test_what_is_here_stays(exported: Exported, other: Small, tmp_path: Path) -> None:
    """A record of this store that says something else than the file's."""
    theirs = changed(exported, tmp_path / "theirs.tar", _other_output)
    assert other.do("build", "top").status == 0
    before = (other.folder / "outputs/result/top").readlink()
    said = other.do("import", "--unsigned", str(theirs))
    assert len(re.findall(r"warning: \w+ is \w{12} here, and 0{12} in \S+; what is here stays", said.err)) == 3
    assert other.do("build", "top").steps() == {}
    assert (other.folder / "outputs/result/top").readlink() == before


def test_a_kill_leaves_nothing_half_made(exported: Exported, other: Small) -> None:
    other.do("key", "trust", exported.public)
    with other.popen("import", str(exported.file)) as process:
        process.send_signal(signal.SIGKILL)
    assert other.do("import", str(exported.file)).status == 0
    assert in_store(other) == (3, 1)
    assert other.do("build", "top").steps() == {}


def test_unpacked_it_is_a_cache(exported: Exported, other: Small, tmp_path: Path) -> None:
    subprocess.run(["tar", "-xf", exported.file, "-C", tmp_path], check=True)
    other.do("key", "trust", exported.public)
    cached = Small(other.folder, {**other.env, "SANDKUBE_CACHE": f"file://{tmp_path}"})
    assert cached.do("build", "top").steps() == {}
    assert "building, because" in cached.do("build", "middle").err  # a record without its tree


def test_whose_word_is_handed_on(exported: Exported, other: Small, tmp_path: Path) -> None:
    """That of who built it, and of nobody who took it in; what was taken in unsigned is not handed on."""
    assert other.do("key", "new", "me").status == 0
    pushing = Small(other.folder, {**other.env, "SANDKUBE_CACHE": f"file://{tmp_path}/cache?write"})
    assert "; what is taken is not handed on to others\n" in other.do("import", "--unsigned", str(exported.file)).err
    said = pushing.do("cache", "push", "top")
    assert (said.status, [*tmp_path.glob("cache/ac/*")]) == (1, [])
    assert "not pushed, it was taken in without a signature that counts: base, middle, top\n" in said.err
    other.do("key", "trust", exported.public)
    assert other.do("import", str(exported.file)).status == 0
    assert pushing.do("cache", "push", "top").status == 0
    pushed = [parse_json(each.read_bytes()) for each in tmp_path.glob("cache/ac/*")]
    assert "top" in {each["record"]["name"] for each in pushed}
    assert {public for each in pushed for public in each["signatures"]} == {exported.public.partition(":")[2]}


def test_what_was_made_in_the_open_is_not_exported(other: Small, tmp_path: Path) -> None:
    other.do("key", "new", "dd")
    said = other.do("export", "top", str(tmp_path / "top.tar"), "--no-build-sandbox")
    assert (said.status, (tmp_path / "top.tar").exists()) == (1, False)
    assert said.err.endswith(
        "error: export: made without the build sandbox, which nobody else is to believe: middle, top\n"
        "  hint: without --no-build-sandbox they are built anew\n"
    )


def test_as_many_signatures_as_the_settings_want(exported: Exported, other: Small, tmp_path: Path) -> None:
    other.do("key", "trust", exported.public)
    settings = Path(other.env["HOME"], ".config/sandkube/config.toml")
    settings.write_text(f'[[cache]]\naddress = "file://{tmp_path}/none"\nsignatures = 2\n')
    said = other.do("import", str(exported.file))
    assert (said.status, in_store(other)) == (1, (0, 0))
    assert re.search(r"error: \S+/top\.tar: \w+: signed by ci; 2 signatures are wanted\n", said.err), said.err

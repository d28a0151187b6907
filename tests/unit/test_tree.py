"""Nothing of `tree` goes through a link or out of its root, whatever the names and the links are."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandkube import tree
from sandkube.nar import dump
from sandkube.tree import Refused


def trace(folder: Path) -> list[tuple[object, ...]]:
    """All that is below a folder, with everything that a write, a chmod or a removal would change."""
    found: list[tuple[object, ...]] = []
    for above, folders, files in os.walk(folder):
        for name in (".", *folders, *files):
            path = Path(above, name)
            status = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
            found.append((str(path), status.st_mode, status.st_ino, status.st_ctime_ns, status.st_mtime_ns, content))
    return sorted(found, key=str)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder that must be found as it was left."""
    folder = tmp_path / "outside"
    (folder / "folder").mkdir(parents=True)
    (folder / "file").write_text("of the host")
    (folder / "file").chmod(0o600)
    (folder / "folder/tool").write_text("of the host")
    (folder / "folder/tool").chmod(0o4711)
    before = trace(folder)
    yield folder
    assert trace(folder) == before


@pytest.fixture
def root(tmp_path: Path, outside: Path) -> Path:
    """A tree with links into `outside`, to a file, to a folder and by a folder of its own."""
    folder = tmp_path / "root"
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/file").write_text("text")
    (folder / "to-file").symlink_to(outside / "file")
    (folder / "to-folder").symlink_to(outside / "folder")
    (folder / "a/up").symlink_to("..")
    return folder


def spare(name: str) -> Callable[[Path], object]:
    return lambda root: tree.write(root, name, b"x")


REFUSALS: list[tuple[Callable[[Path], object], str]] = [
    (lambda root: tree.read(root, "to-file"), "'to-file' is a symbolic link, not a file"),
    (lambda root: tree.read(root, "to-folder/tool"), "'to-folder' is a symbolic link, not a folder"),
    (lambda root: tree.read(root, "a/up/a/file"), "'a/up' is a symbolic link, not a folder"),
    (lambda root: tree.read(root, "a"), "'a' is a folder, not a file"),
    (lambda root: tree.read(root, "none"), "there is no file 'none'"),
    (lambda root: tree.status(root, "to-folder/tool"), "'to-folder' is a symbolic link, not a folder"),
    (spare("to-file"), "'to-file' is there already"),
    (spare("to-folder/new"), "'to-folder' is a symbolic link, not a folder"),
    (spare("a/file/new"), "'a/file' is a file, not a folder"),
    (spare("../new"), "'../new' leaves its folder"),
    (spare("a/../../new"), "'a/../../new' leaves its folder"),
    (spare("/new"), "'/new' leaves its folder"),
    (spare("a\0b"), r"'a\x00b' holds a NUL"),
    (spare("."), "'.' names no file"),
    (spare("x" * 300), f"{'x' * 80!r} is no name for a file: File name too long"),
    (spare("\ud800"), r"'\ud800' is no name for a file"),
    (spare("d/" * 300 + "x"), f"{('d/' * 40)!r}… is more than 200 folders deep"),
    (lambda root: tree.make_folder(root, "to-folder/new"), "'to-folder' is a symbolic link, not a folder"),
    (lambda root: tree.make_folder(root, "a/file"), "'a/file' is a file, not a folder"),
    (lambda root: tree.link(root, "to-folder/new", "x"), "'to-folder' is a symbolic link, not a folder"),
    (lambda root: tree.link(root, "a/b", "x"), "'a/b' is there already"),
    (lambda root: tree.link(root, "new", ""), "the link 'new' cannot point to ''"),
    (lambda root: tree.link(root, "new", "a\0b"), r"the link 'new' cannot point to 'a\x00b'"),
    (lambda root: tree.chmod(root, "to-file", 0o777), "'to-file' is a symbolic link: its mode cannot be set"),
    (lambda root: tree.chmod(root, "to-folder/tool", 0o777), "'to-folder' is a symbolic link, not a folder"),
    (lambda root: tree.rename(root, "a", "to-file"), "'to-file' is there already"),
    (lambda root: tree.rename(root, "a/file", "../file"), "'../file' is no name for a file"),
    (lambda root: tree.rename(root, "a/file", "b/file"), "'b/file' is no name for a file"),
    (lambda root: tree.rename(root, "a/file", ""), "'' is no name for a file"),
    (lambda root: tree.discard(root, "to-folder/tool"), "'to-folder' is a symbolic link, not a folder"),
    (lambda root: tree.discard(root, "a"), "'a' is a folder already"),
    (lambda root: tree.copy(root, "to-file", root, "new"), "'to-file' is a symbolic link, not a file or folder"),
    (lambda root: tree.copy(root, "to-folder", root, "new"), "'to-folder' is a symbolic link, not a file or folder"),
    (lambda root: tree.copy(root, "to-folder/tool", root, "new"), "'to-folder' is a symbolic link, not a folder"),
    (lambda root: tree.copy(root, "a/file", root, "to-file"), "'to-file' is there already"),
    (lambda root: tree.copy(root, "a/file", root, "to-folder/new"), "'to-folder' is a symbolic link, not a folder"),
    (lambda root: tree.copy(root, "a", root, "to-folder"), "'to-folder' is a symbolic link, not a folder"),
    (
        lambda root: tree.copy(root, ".", root, "a/b"),
        "'a/b' is where the copy goes: a folder cannot be copied into itself",
    ),
    (lambda root: tree.glob(root, "../*"), "'../*' leaves its folder"),
]


@pytest.mark.parametrize(("act", "sentence"), REFUSALS, ids=[sentence[:60] for _, sentence in REFUSALS])
def test_refused(root: Path, act: Callable[[Path], object], sentence: str) -> None:
    with pytest.raises(Refused) as refusal:
        act(root)
    assert refusal.value.message == sentence


def test_what_is_meant_to_work(root: Path) -> None:
    before = os.umask(0o077)
    try:
        make_all(root)
    finally:
        os.umask(before)


def make_all(root: Path) -> None:
    """Modes are those that are promised, whatever the umask."""
    tree.write(root, "new/deep/tool", b"#!", executable=True)
    tree.link(root, "new/link", "/anywhere")
    tree.make_folder(root, "new/deep")
    tree.rename(root, "new/deep/tool", "knife")
    tree.copy(root, "new", root, "a/b", skip=["*~"])
    tree.chmod(root, "a/file", 0o700)
    tree.discard(root, "to-file")
    tree.discard(root, "none")
    assert tree.read(root, "a/b/deep/knife") == b"#!"
    assert oct((root / "a/b/deep/knife").stat().st_mode) == "0o100755"
    assert oct((root / "a/b/deep").stat().st_mode) == oct((root / "new/deep").stat().st_mode) == "0o40755"
    assert tree.aim_of(root, "a/b/link") == "/anywhere"
    assert [name for name, _ in tree.walk(root)] == [
        *("a", "a/b", "a/b/deep", "a/b/deep/knife", "a/b/link", "a/file", "a/up"),
        *("new", "new/deep", "new/deep/knife", "new/link", "to-folder"),
    ]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*", "to-file to-folder"),
        ("**/*", "a/file a/up to-file to-folder"),
        ("*/*", "a/file a/up"),
        ("**/f?l[e-f]", "a/file"),
        ("a/**/file", "a/file"),
        ("to-folder/*", ""),
        ("./a/file", "a/file"),
        ("A/file", ""),
        ("", ""),
    ],
)
def test_glob_goes_through_no_link(root: Path, pattern: str, found: str) -> None:
    assert tree.glob(root, pattern, links=True) == found.split()
    assert tree.glob(root, pattern) == [name for name in found.split() if name == "a/file"]


def test_a_pipe_in_a_tree_is_named(tmp_path: Path) -> None:
    (tmp_path / "from/a").mkdir(parents=True)
    os.mkfifo(tmp_path / "from/a/pipe")
    (tmp_path / "to").mkdir()
    acts: tuple[Callable[[], object], ...] = (
        lambda: tree.copy(tmp_path / "from", ".", tmp_path / "to"),
        lambda: tree.normalise(tmp_path / "from"),
    )
    for act in acts:
        with pytest.raises(Refused, match="^'a/pipe' is neither file, folder nor symbolic link"):
            act()


@pytest.mark.parametrize(
    ("links", "out"),
    [
        ({"d/up": "..", "out": "d/up/.."}, "out"),
        ({"out": "d/up/..", "d/up": ".."}, "out"),
        ({"d/e/here": ".", "x": "d/e/here/../../.."}, "x"),
        ({"a": "b/../..", "b": "d/e"}, ""),
        ({"a": "/etc"}, "a"),
        ({"a": "b", "b": "c", "c": "/etc"}, "a"),
        ({"a": "a"}, ""),
        ({"a": "b", "b": "a/../.."}, ""),
        ({"a": "none/none/../x", "d/b": "../d/e/../../a"}, ""),
        ({"d/e/x": "../../.."}, "d/e/x"),
    ],
)
def test_links_are_resolved_through_links(tmp_path: Path, links: dict[str, str], out: str) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    for name, aim in links.items():
        (tmp_path / name).symlink_to(aim)
    if not out:
        tree.check_links(tmp_path)
        return
    with pytest.raises(Refused) as refusal:
        tree.check_links(tmp_path)
    assert refusal.value.message == f"the link {out!r} -> {links[out]!r} leads out of its folder"


def test_removal_changes_the_mode_of_no_file(tmp_path: Path) -> None:
    """A hard link is the file itself: the store's own, where one was made to it."""
    (tmp_path / "kept").write_text("of the store")
    (tmp_path / "kept").chmod(0o444)
    (tmp_path / "gone/a/b").mkdir(parents=True)
    os.link(tmp_path / "kept", tmp_path / "gone/a/hard")
    (tmp_path / "gone/a/b").chmod(0)
    (tmp_path / "gone/a").chmod(0o555)
    tree.remove_tree(tmp_path / "gone")
    assert [(each.name, oct(each.stat().st_mode)) for each in tmp_path.iterdir()] == [("kept", "0o100444")]


@pytest.mark.usefixtures("outside")
def test_a_link_is_removed_and_not_its_aim(root: Path) -> None:
    tree.remove_tree(root / "to-folder")
    tree.remove_tree(root / "to-folder")
    tree.remove_tree(root / "no/where")
    assert not (root / "to-folder").is_symlink()


def test_a_tree_too_deep_for_any_path_is_removed(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    at = os.open(tmp_path / "deep", os.O_RDONLY)
    for _ in range(450):
        os.mkdir("d" * 20, dir_fd=at)
        below = os.open("d" * 20, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    with pytest.raises(Refused, match="is more than 200 folders deep"):
        tree.normalise(tmp_path / "deep")
    with pytest.raises(Refused, match="is more than 200 folders deep"):
        list(tree.walk(tmp_path / "deep"))
    (tmp_path / "to").mkdir()
    with pytest.raises(Refused, match="is more than 200 folders deep"):
        tree.copy(tmp_path / "deep", ".", tmp_path / "to")
    tree.remove_tree(tmp_path / "deep")
    tree.remove_tree(tmp_path / "to")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_fills_while_it_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/a").touch()
    rmdir, late = os.rmdir, iter("bcd")

    def filled(name: str, *, dir_fd: int) -> None:
        for each in late:
            (tmp_path / "x" / each).touch()
            break
        rmdir(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", filled)
    tree.remove_tree(tmp_path / "x")
    assert not (tmp_path / "x").exists()


PART = st.sampled_from(["a", "b", "c", "d"])
NAME = st.lists(PART, min_size=1, max_size=3).map("/".join)
WILD = st.lists(st.one_of(PART, st.sampled_from(["..", ".", "", "out", "\0", "é", "x" * 256])), max_size=4).map(
    "/".join
)
AIM = st.one_of(NAME, WILD, st.sampled_from(["OUT", "OUT/folder", "OUT/file", "..", "../..", "../OUT", "a/../.."]))
ENTRY = st.tuples(
    NAME, st.one_of(st.just(("folder", "")), st.tuples(st.just("file"), NAME), st.tuples(st.just("link"), AIM))
)


def plant(root: Path, entries: list[tuple[str, tuple[str, str]]], outside: Path) -> None:
    """Whatever of the entries can be made, by other means than the functions under test."""
    for name, (kind, text) in entries:
        path = root / name
        with contextlib.suppress(OSError, ValueError):
            if any(each.is_symlink() for each in path.parents if each != root and root in each.parents):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "folder":
                path.mkdir()
            elif kind == "file" and not os.path.lexists(path):
                path.write_text(text)
            elif kind == "link":
                path.symlink_to(text.replace("OUT", str(outside)))


ACTS: list[Callable[[Path, str, str], object]] = [
    lambda root, name, _: tree.status(root, name),
    lambda root, name, _: tree.read(root, name),
    lambda root, name, _: tree.write(root, name, b"written"),
    lambda root, name, _: tree.make_folder(root, name),
    lambda root, name, other: tree.link(root, name, other),
    lambda root, name, _: tree.chmod(root, name, 0o4777),
    lambda root, name, other: tree.rename(root, name, other),
    lambda root, name, _: tree.discard(root, name),
    lambda root, name, other: tree.copy(root, name, root, other),
    lambda root, name, _: tree.glob(root, f"**/{name}"),
    lambda root, _, __: tree.drop_empty_folders(root),
    lambda root, _, __: tree.check_links(root),
    lambda root, _, __: tree.normalise(root),
    lambda root, _, __: tree.seal_of(root),
]


@settings(max_examples=150)
@given(
    entries=st.lists(ENTRY, max_size=8),
    acts=st.lists(st.tuples(st.sampled_from(ACTS), st.one_of(NAME, WILD), st.one_of(NAME, WILD)), max_size=8),
)
def test_nothing_outside_is_read_or_touched(
    entries: list[tuple[str, tuple[str, str]]], acts: list[tuple[Callable[[Path, str, str], object], str, str]]
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        outside, root = Path(temporary, "outside"), Path(temporary, "root")
        (outside / "folder").mkdir(parents=True)
        (outside / "file").write_text("secret")
        root.mkdir()
        plant(root, entries, outside)
        before = trace(outside)
        for act, name, other in acts:
            with contextlib.suppress(Refused, FileNotFoundError, PermissionError):
                assert act(root, name, other) != b"secret"
        # Not by rglob: in some versions of CPython it asks where a link leads, and a link may be too long to ask.
        written = [Path(folder, name) for folder, _, files in os.walk(root) for name in files]
        assert b"secret" not in {path.read_bytes() for path in written if stat.S_ISREG(path.lstat().st_mode)}
        tree.remove_tree(root)
        assert not root.exists()
        assert trace(outside) == before
        assert sorted(each.name for each in Path(temporary).iterdir()) == ["outside"]


LEAF = st.one_of(st.tuples(st.binary(max_size=9), st.booleans()), st.text("ab./", min_size=1, max_size=5))
NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=3).filter(
    lambda name: name not in (".", "..")
)
TREE = st.recursive(LEAF, lambda below: st.dictionaries(NAMES, below, max_size=4), max_leaves=8)


def grow(path: Path, value: object) -> None:
    match value:
        case dict():
            path.mkdir()
            for name, below in value.items():
                grow(path / name, below)
        case (bytes(content), bool(executable)):
            path.write_bytes(content)
            path.chmod(0o755 if executable else 0o644)
        case str():
            path.symlink_to(value)


def parse(data: bytes) -> object:
    """What a NAR holds, by a reader of its own: figure 5.2 of Dolstra's thesis."""
    at = 0

    def word() -> bytes:
        nonlocal at
        size = int.from_bytes(data[at : at + 8], "little")
        found = data[at + 8 : at + 8 + size]
        assert len(found) == size
        at += 8 + size + -size % 8
        return found

    def node() -> object:
        assert (word(), word()) == (b"(", b"type")
        kind = word()
        found: object
        if kind == b"regular":
            key = word()
            executable = key == b"executable"
            if executable:
                assert (word(), word()) == (b"", b"contents")
            found = (word(), executable)
            assert word() == b")"
        elif kind == b"symlink":
            assert word() == b"target"
            found = word().decode()
            assert word() == b")"
        else:
            found = below = {}
            while word() == b"entry":
                assert (word(), word()) == (b"(", b"name")
                name = word().decode()
                assert word() == b"node"
                below[name] = node()
                assert word() == b")"
        return found

    assert word() == b"nix-archive-1"
    found = node()
    assert at == len(data)
    return found


@given(TREE)
def test_a_nar_says_all_of_a_tree(value: object) -> None:
    """So two trees that differ have two output hashes; and neither copying nor normalising changes it."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "tree")
        grow(path, value)
        pieces: list[bytes] = []
        dump(path, pieces.append)
        assert parse(b"".join(pieces)) == value
        if path.is_dir() and not path.is_symlink():
            twin = Path(temporary, "twin")
            tree.copy(Path(temporary), "tree", Path(temporary), "twin")
            tree.normalise(twin)
            state = hashlib.sha256()
            dump(twin, state.update)
            assert state.digest() == hashlib.sha256(b"".join(pieces)).digest()
            tree.remove_tree(twin)

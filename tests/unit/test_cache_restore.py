"""A tree from its NAR, whoever made that: the same tree, or a refusal, and nothing beside it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandkube.digest import sha256_bytes
from sandkube.nar import _string as word
from sandkube.nar import dump, nar_hash
from sandkube.restore import BadNar, restore
from sandkube.tree import DEPTH, TIME, normalise, remove_tree, walk

Node = bytes | tuple[bytes] | str | dict[bytes, "Node"]
"""A file, an executable (in a tuple), a link's aim, a folder."""


def nar_of(path: Path) -> bytes:
    pieces: list[bytes] = []
    dump(path, pieces.append)
    return b"".join(pieces)


def written(node: Node) -> bytes:
    """A node of a NAR, the entries of a folder in their order, whatever their names."""
    match node:
        case str():
            inner = [b"symlink", b"target", os.fsencode(node)]
        case bytes():
            inner = [b"regular", b"contents", node]
        case (content,):
            inner = [b"regular", b"executable", b"", b"contents", content]
        case dict():
            body = b"".join(
                b"".join(map(word, (b"entry", b"(", b"name", name, b"node"))) + written(each) + word(b")")
                for name, each in node.items()
            )
            return word(b"(") + word(b"type") + word(b"directory") + body + word(b")")
    return b"".join(map(word, (b"(", b"type", *inner, b")")))


def nar(node: Node) -> bytes:
    return word(b"nix-archive-1") + written(node)


def in_pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


names = st.binary(min_size=1, max_size=12).filter(lambda v: not {0, 47} & {*v} and v not in (b".", b".."))
aims = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
leaves = st.binary(max_size=40) | st.tuples(st.binary(max_size=40)) | aims
nodes = st.recursive(leaves, lambda inner: st.dictionaries(names, inner, max_size=4), max_leaves=8)


def in_order(node: Node) -> Node:
    return {name: in_order(node[name]) for name in sorted(node)} if isinstance(node, dict) else node


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """A new path each time, alone in its folder, which nothing else may appear in."""
    made: list[Path] = []

    def new() -> Path:
        made.append(tmp_path / f"{len(made)}" / "tree")
        made[-1].parent.mkdir()
        return made[-1]

    yield new
    for each in made:
        assert {*each.parent.iterdir()} <= {each}
        remove_tree(each.parent)


@given(node=nodes, size=st.integers(1, 200), umask=st.sampled_from((0, 0o022, 0o077, 0o777)))
def test_any_tree_comes_back(fresh: Callable[[], Path], node: Node, size: int, umask: int) -> None:
    data, at = nar(in_order(node)), fresh()
    before = os.umask(umask)
    try:
        made = restore(in_pieces(data, size), at)
    finally:
        os.umask(before)
    assert made == sha256_bytes(data)
    assert nar_of(at) == data


@pytest.mark.parametrize("size", [1, 3, 8, 40, 1 << 20])
def test_where_pieces_end_does_not_count(fresh: Callable[[], Path], size: int) -> None:
    """Words that stand in one piece are passed at once, others one by one: the same trees, the same refusals."""
    sound = nar({b"a": (b"x" * 9,), b"b": {}, b"c": b"", b"d": "aim", b"e": {b"f": b"y"}})
    for at in (None, *range(0, len(sound), 8)):
        data = sound if at is None else sound[:at] + b"\x01" + sound[at + 1 :]
        pieces = (data[start : start + size] for start in range(0, len(data), size))
        if sha256_bytes(data) == sha256_bytes(sound):
            assert restore(pieces, fresh()) == sha256_bytes(sound)
            continue
        try:
            found, said = restore(pieces, fresh()), ""
        except BadNar as error:
            found, said = "", error.message
        try:
            assert (restore([data], fresh()), "") == (found, said)
        except BadNar as error:
            assert ("", error.message) == (found, said)


def test_it_is_in_the_form_of_the_store(tmp_path: Path) -> None:
    """As a tree that was built and normalised: modes and times of all that is in it."""
    before = os.umask(0o077)
    try:
        node: Node = {b"a": b"x", b"b": (b"y",), b"c": {b"d": "nowhere", b"e": {}}, b"\xff\n": b""}
        assert restore([nar(in_order(node))], tmp_path / "tree") == nar_hash(tmp_path / "tree")
    finally:
        os.umask(before)

    def form(tree: Path) -> list[tuple[str, int, float]]:
        seen = [tree, *(tree / name for name, _ in walk(tree))]
        return [(str(each.relative_to(tree)), each.lstat().st_mode, each.lstat().st_mtime) for each in seen]

    found = form(tmp_path / "tree")
    assert {stat.S_IMODE(mode) for _, mode, _ in found if not stat.S_ISLNK(mode)} == {0o444, 0o555}
    assert {time for _, _, time in found} == {TIME}
    normalise(tmp_path / "tree")
    assert form(tmp_path / "tree") == found


SMALL: Node = {b"a": (b"12345",), b"b": {b"d": "a"}}


def test_cuts_and_every_changed_byte_are_seen(fresh: Callable[[], Path]) -> None:
    data = nar(SMALL)
    for end in range(0, len(data), 3):
        with pytest.raises((BadNar, OSError)):
            restore([data[:end]], fresh())
    for at in range(len(data)):
        other = bytearray(data)
        other[at] ^= 1 << at % 8
        place = fresh()
        try:
            assert restore([bytes(other)], place) != sha256_bytes(data)
        except (BadNar, OSError):
            continue
        assert nar_of(place) == other  # a tree that is another one


@given(data=st.data())
def test_any_edit_is_refused_or_is_another_tree(fresh: Callable[[], Path], data: st.DataObject) -> None:
    """Bytes moved, doubled, taken out: what is taken is a tree whose NAR has these very bytes."""
    sound = nar(SMALL)
    first, last, to = (data.draw(st.integers(0, len(sound) // 8)) * 8 for _ in range(3))
    piece = sound[min(first, last) : max(first, last)]
    rest = sound[: min(first, last)] + sound[max(first, last) :] if data.draw(st.booleans()) else sound
    edited, place = rest[:to] + piece + rest[to:], fresh()
    try:
        made = restore([edited], place)
    except BadNar:
        return
    assert nar_of(place) == edited
    assert made == sha256_bytes(edited)


@pytest.mark.parametrize(
    "name", [b"", b".", b"..", b"/", b"a/b", b"../x", b"/etc/x", b"a\0", b"\0", b"x" * 256, b"x" * 5000]
)
@pytest.mark.parametrize("inner", [b"x", {}, "aim"], ids=["file", "folder", "link"])
def test_no_name_leaves_the_folder(fresh: Callable[[], Path], name: bytes, inner: Node) -> None:
    with pytest.raises(BadNar):
        restore([nar({name: inner})], fresh())


@pytest.mark.parametrize("pair", [(b"a", b"a"), (b"b", b"a"), (b"a", b"B")], ids=["doubled", "unsorted", "case"])
def test_names_come_once_and_in_order(fresh: Callable[[], Path], pair: tuple[bytes, bytes]) -> None:
    first, second = (
        word(b"entry") + b"".join(map(word, (b"(", b"name", each, b"node"))) + written(b"") + word(b")")
        for each in pair
    )
    head = b"".join(map(word, (b"nix-archive-1", b"(", b"type", b"directory")))
    with pytest.raises(BadNar, match="is no name, or not the next one"):
        restore([head + first + second + word(b")")], fresh())


def test_a_link_is_not_followed(fresh: Callable[[], Path], tmp_path: Path) -> None:
    """A folder where a link of the same name stands: the name is there twice."""
    (tmp_path / "aim").mkdir()
    link = word(b"entry") + b"".join(map(word, (b"(", b"name", b"a", b"node")))
    both = link + written(str(tmp_path / "aim")) + word(b")") + link + written({b"x": b"y"}) + word(b")")
    with pytest.raises(BadNar):
        restore([b"".join(map(word, (b"nix-archive-1", b"(", b"type", b"directory"))) + both + word(b")")], fresh())
    assert list((tmp_path / "aim").iterdir()) == []


@pytest.mark.parametrize("aim", ["", "a\0b", "x" * 4096], ids=["none", "NUL", "long"])
def test_links_that_no_system_has(fresh: Callable[[], Path], aim: str) -> None:
    with pytest.raises(BadNar):
        restore([nar({b"a": aim})], fresh())


def test_depth_has_an_end(fresh: Callable[[], Path]) -> None:
    node: Node = b""
    for _ in range(DEPTH + 2):
        node = {b"d": node}
    with pytest.raises(BadNar, match="folders deep"):
        restore([nar(node)], fresh())


def test_sizes_that_nothing_has(fresh: Callable[[], Path]) -> None:
    """A file, a name and a link of 2^64 - 1 bytes end where the bytes end; no memory is taken for them."""
    huge = b"\xff" * 8
    for head in ((b"(", b"type", b"regular", b"contents"), (b"(", b"type", b"symlink", b"target"), ()):
        with pytest.raises(BadNar):
            restore([b"".join(map(word, (b"nix-archive-1", *head))), huge, b"x" * 100], fresh())


def test_what_follows_the_end_is_refused(fresh: Callable[[], Path]) -> None:
    with pytest.raises(BadNar, match="something follows its end"):
        restore([nar(SMALL), b"\0" * 8], fresh())

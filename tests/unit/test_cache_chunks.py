"""Chunks: all of a tree's NAR, cut by what it holds; indexes that round-trip, and blobs that hold no more than said."""

from __future__ import annotations

import os
import random
import resource
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from sandkube.build.cache import chunks
from sandkube.build.cache.chunks import LARGEST, SMALLEST, Chunk, cut, decode, encode, pack, unpack
from sandkube.build.cache.kind import Blob
from sandkube.digest import sha256_bytes
from sandkube.errors import UserError
from sandkube.nar import dump


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """23 MB, in files of all sizes; the same at each run."""
    some = random.Random(7)
    at = tmp_path_factory.mktemp("tree")
    for number, size in enumerate((9_000_001, 5_000_000, 1 << 20, 1, 0, 7_654_321)):
        (at / f"f{number}").write_bytes(some.randbytes(size))
    (at / "zeros").write_bytes(bytes(3 << 20))  # nothing in it to cut at
    (at / "link").symlink_to("f1")
    return at


def pieces(tree: Path) -> list[bytes]:
    found: list[bytes] = []
    cut(tree, found.append)
    return found


def test_they_are_the_nar(tree: Path) -> None:
    whole: list[bytes] = []
    dump(tree, whole.append)
    found = pieces(tree)
    assert b"".join(found) == b"".join(whole)
    assert all(SMALLEST <= len(each) <= LARGEST for each in found[:-1])
    assert len(found[-1]) <= LARGEST


@pytest.mark.parametrize("held", [LARGEST, LARGEST + 1, 3_000_000, 1 << 30])
def test_how_much_is_gathered_moves_no_boundary(tree: Path, monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    before = [len(each) for each in pieces(tree)]
    monkeypatch.setattr(chunks, "_HELD", held)
    assert [len(each) for each in pieces(tree)] == before


def test_a_change_at_the_start_leaves_the_rest(tree: Path, tmp_path: Path) -> None:
    for each in tree.iterdir():
        if not each.is_symlink():
            os.link(each, tmp_path / each.name)
    (tmp_path / "link").symlink_to("f1")
    (tmp_path / "a").write_text("new, and the first")
    before, after = {*map(sha256_bytes, pieces(tree))}, {*map(sha256_bytes, pieces(tmp_path))}
    assert len(after - before) <= 2


blobs = st.builds(Blob, st.binary(min_size=32, max_size=32).map(bytes.hex), st.integers(1, 2 * LARGEST))
some = st.lists(
    st.builds(Chunk, st.binary(min_size=32, max_size=32).map(bytes.hex), st.integers(1, LARGEST), blobs), max_size=5
)


@given(some)
def test_an_index_round_trips(listed: list[Chunk]) -> None:
    assert list(decode(encode(listed))) == listed


@given(some, st.data())
def test_a_changed_index_is_refused_or_another(listed: list[Chunk], data: st.DataObject) -> None:
    sound = encode(listed)
    at, with_ = data.draw(st.integers(0, len(sound) - 1)), data.draw(st.binary(max_size=3))
    other = sound[:at] + with_ + sound[at + data.draw(st.integers(0, 3)) :]
    try:
        assert encode(list(decode(other))) == other
    except UserError as error:
        assert "index" in error.message


@pytest.mark.parametrize("size", [1, 1000, LARGEST])
def test_a_chunk_round_trips(size: int) -> None:
    data = random.Random(size).randbytes(size)
    chunk, packed = pack(data)
    assert (chunk.size, chunk.sha256, chunk.blob) == (size, sha256_bytes(data), Blob(sha256_bytes(packed), len(packed)))
    assert unpack(chunk, packed) == data
    assert unpack(chunk, packed[:-1]) is unpack(chunk, packed + b"\0") is None


def of(packed: bytes, data: bytes) -> Chunk:
    """What somebody says who says that these bytes are a chunk."""
    return Chunk(sha256_bytes(data), len(data), Blob(sha256_bytes(packed), len(packed)))


def compressed(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=False).compress(data)


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"not compressed",
        compressed(b"other"),
        compressed(b"data")[:-1],
        compressed(b"data more"),
        compressed(b"data") + compressed(b"more"),
        compressed(b"data") + b"garbage",
    ],
)
def test_what_is_no_form_of_a_chunk(packed: bytes) -> None:
    assert unpack(of(packed, b"data"), packed) is None


def test_a_bomb_is_not_unpacked() -> None:
    """256 MB of zeros in 8 kB, of a window of 128 MB: no memory is taken for more than a chunk."""
    form = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    packer = zstandard.ZstdCompressor(compression_params=form).compressobj()
    packed = b"".join(packer.compress(bytes(64 << 20)) for _ in range(4)) + packer.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert unpack(of(packed, bytes(LARGEST)), packed) is None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000

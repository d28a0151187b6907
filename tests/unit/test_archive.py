"""Unpacking gives a tree or a sentence, whatever the bytes are; nothing of it lies outside."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import tempfile
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from sandkube import archive, pack, tree
from sandkube.errors import UserError
from sandkube.nar import nar_hash
from tests.unit.test_tree import TREE, grow, trace

Member = tuple[tarfile.TarInfo, bytes | None]
LIMIT = 1 << 20


def member(name: str, content: bytes = b"", **more: Any) -> Member:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o644
    for key, value in more.items():
        setattr(info, key, value)
    return info, content if info.isreg() else None


def folder(name: str) -> Member:
    return member(name, type=tarfile.DIRTYPE)


def link(name: str, aim: str) -> Member:
    return member(name, type=tarfile.SYMTYPE, linkname=aim)


def hard(name: str, aim: str) -> Member:
    return member(name, type=tarfile.LNKTYPE, linkname=aim)


def tar(*members: Member, form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as written:
        for info, content in members:
            written.addfile(info, None if content is None else io.BytesIO(content))
    return out.getvalue()


def zipped(*entries: tuple[str, bytes, int]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as written:
        for name, content, mode in entries:
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # one name twice is what a test wants
                written.writestr(info, content)
    return out.getvalue()


def deb(*members: tuple[bytes, bytes], size: bytes | None = None) -> bytes:
    out = b"!<arch>\n"
    for name, content in members:
        out += name.ljust(48) + (size or str(len(content)).encode()).ljust(10) + b"`\n" + content
        out += b"\n" * (len(content) % 2)
    return out


UNPACK: dict[str, Callable[..., None]] = {
    "x.tar": archive.unpack_tar,
    "x.zip": archive.unpack_zip,
    "x.deb": archive.unpack_deb,
}


def unpacked(data: bytes, name: str, at: Path, **more: Any) -> dict[str, str]:
    """What an archive unpacks to: text, `-> aim`, or nothing for a folder; a star for what can be executed."""
    path, into = at / "0123456789abcdef", at / "into"
    path.write_bytes(data)
    into.mkdir()
    UNPACK[name](path, into, name=name, **more)
    found = {}
    for each in sorted(into.rglob("*")):
        star = "*" if not each.is_dir() and not each.is_symlink() and each.stat().st_mode & stat.S_IXUSR else ""
        aim = f"-> {each.readlink()}" if each.is_symlink() else ""
        found[f"{each.relative_to(into)}{star}"] = aim or ("" if each.is_dir() else each.read_text())
    return found


SOUND = tar(folder("./"), member("./top/a", b"text"), member("./top/run", b"#!", mode=0o6755), link("top/l", "a"))
SOUND_TREE = {"top": "", "top/a": "text", "top/l": "-> a", "top/run*": "#!"}
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "gzips": lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:]),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "xzs": lambda data: lzma.compress(data[:700]) + bytes(8) + lzma.compress(data[700:]) + bytes(4),
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
    "zstds": lambda data: b"".join(zstandard.ZstdCompressor().compress(each) for each in (data[:700], data[700:])),
    "skippable": lambda data: b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + zstandard.ZstdCompressor().compress(data),
}


@pytest.mark.parametrize("kind", COMPRESS)
def test_tar_of_each_compression(kind: str, tmp_path: Path) -> None:
    data = COMPRESS[kind](SOUND)
    assert unpacked(data, "x.tar", tmp_path) == SOUND_TREE
    (tmp_path / "deb").mkdir()
    assert unpacked(deb((b"debian-binary", b"2.0\n"), (b"data.tar.z", data)), "x.deb", tmp_path / "deb") == SOUND_TREE


@pytest.mark.parametrize("kind", COMPRESS)
def test_a_cut_archive_is_refused(kind: str, tmp_path: Path) -> None:
    """At every length: what is left out can be nothing but the padding after a tar's end."""
    data = COMPRESS[kind](SOUND)
    end = 512 * 7 if kind == "plain" else len(data) - (8 if kind in ("xzs", "skippable", "zstd", "zstds") else 0)
    for at, cut in enumerate(sorted({*range(0, end, 97), end - 1})):
        (tmp_path / str(at)).mkdir()
        with pytest.raises(UserError, match=r"^x.tar: damaged: "):
            unpacked(data[:cut], "x.tar", tmp_path / str(at))


TARS: list[tuple[bytes, dict[str, str]]] = [
    (tar(member("a", b"text"), hard("b", "a")), {"a": "text", "b": "text"}),
    (tar(member("a", b"t"), link("l", "a"), hard("b", "l")), {"a": "t", "b": "-> a", "l": "-> a"}),
    (tar(member("a", b"old"), member("a", b"new")), {"a": "new"}),
    (tar(member("a", b"old"), link("a", "b"), link("a", "c")), {"a": "-> c"}),
    (tar(link("l", "/usr/b"), link("d/l", "/usr/b")), {"d": "", "d/l": "-> ../usr/b", "l": "-> usr/b"}),
    (tar(link("here", "none/../there"), link("loop", "loop")), {"here": "-> none/../there", "loop": "-> loop"}),
    (tar(member("caf\udce9", b"x"), form=tarfile.GNU_FORMAT), {"caf\udce9": "x"}),
    (tar(member("d" * 200 + "/" + "e" * 200, b"x")), {"d" * 200: "", "d" * 200 + "/" + "e" * 200: "x"}),
    (tar(), {}),
]


@pytest.mark.parametrize(("data", "wanted"), TARS)
def test_odd_tars_that_are_sound(data: bytes, wanted: dict[str, str], tmp_path: Path) -> None:
    assert unpacked(data, "x.tar", tmp_path) == wanted


def test_strip_counts_for_hard_links_and_checks_links_where_they_end(tmp_path: Path) -> None:
    data = tar(folder("t"), member("t/d/a", b"x"), hard("t/b", "t/d/a"), link("t/d/l", "../b"))
    assert unpacked(data, "x.tar", tmp_path, strip=1) == {"b": "x", "d": "", "d/a": "x", "d/l": "-> ../b"}
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=r"^x.tar: refuses to unpack: the link 'l' -> '../b' leads out of its folder$"):
        unpacked(tar(member("b"), link("t/l", "../b")), "x.tar", tmp_path / "out", strip=1)


HTML = b"<html>sign in</html>"
LINK = stat.S_IFLNK | 0o777
MORE = f"it holds more than {LIMIT} bytes or 1000000 entries"
FAULTS: list[tuple[str, bytes, str]] = [
    ("x.tar", tar(link("d/up", ".."), link("out", "d/up/..")), "the link 'out' -> 'd/up/..' leads out of its folder"),
    ("x.tar", tar(link("out", "d/up/.."), link("d/up", "..")), "the link 'out' -> 'd/up/..' leads out of its folder"),
    ("x.tar", tar(link("l", "/.."), member("l/x")), "'l' is a symbolic link, not a folder"),
    ("x.tar", tar(link("l", "."), folder("l")), "'l' is a symbolic link, not a folder"),
    ("x.tar", tar(link("l", "../x")), "the link 'l' -> '../x' leads out of its folder"),
    ("x.tar", tar(member("../x")), "'../x' leaves its folder"),
    ("x.tar", tar(member("/x")), "'/x' leaves its folder"),
    ("x.tar", tar(member("a"), member("a/b")), "'a' is a file, not a folder"),
    ("x.tar", tar(member("a"), folder("a")), "'a' is a file, not a folder"),
    ("x.tar", tar(folder("a"), member("a")), "'a' is a folder already"),
    ("x.tar", tar(folder("a"), link("a", "b")), "'a' is a folder already"),
    ("x.tar", tar(hard("b", "a"), member("a")), "the hard link 'b' to 'a', which is no file before it"),
    ("x.tar", tar(member("b", b"x"), hard("b", "b")), "the hard link 'b' to 'b', which is no file before it"),
    ("x.tar", tar(folder("a"), hard("b", "a")), "the hard link 'b' to 'a', which is no file before it"),
    ("x.tar", tar(hard("b", "/etc/passwd")), "'/etc/passwd' leaves its folder"),
    ("x.tar", tar(hard("b", "../x")), "'../x' leaves its folder"),
    ("x.tar", tar(member("p", type=tarfile.FIFOTYPE)), "'p' is neither file, folder nor link"),
    ("x.tar", tar(member("d" * 300)), f"{'d' * 80!r} is no name for a file: File name too long"),
    ("x.tar", tar(member("d/" * 300 + "x")), f"{'d/' * 40!r}… is more than 200 folders deep"),
    ("x.tar", tar(member("a", bytes(LIMIT))), f"it holds more than {LIMIT} bytes"),
    (
        "x.tar",
        gzip.compress(tar(member("a", bytes(3 * LIMIT)))),
        MORE,
    ),
    ("x.zip", zipped(("a", b"x", 0), ("a", b"y", 0)), "'a' is there already"),
    ("x.zip", zipped(("l", b"../x", LINK)), "the link 'l' -> '../x' leads out of its folder"),
    ("x.zip", zipped(("l", b"/etc", LINK), ("l/x", b"", 0)), "'l' is a symbolic link, not a folder"),
    ("x.zip", zipped(("l", b"/etc", LINK)), "the link 'l' -> '/etc' leads out of its folder"),
    ("x.zip", zipped(("l", b"", LINK)), "the link 'l' cannot point to ''"),
    ("x.zip", zipped(("l", b"x" * 5000, LINK)), "'l' is no name for a file: File name too long"),
    ("x.zip", zipped(("p", b"", stat.S_IFIFO)), "'p' is neither file, folder nor link"),
    ("x.zip", zipped(("../x", b"", 0)), "'../x' leaves its folder"),
    ("x.zip", zipped(("a", b"", 0), ("a/b", b"", 0)), "'a' is a file, not a folder"),
    ("x.zip", zipped(("a", bytes(3 * LIMIT), 0)), f"it holds more than {LIMIT} bytes"),
]
SHIFTED = zipped(("a", b"x", 0))
SHIFTED = SHIFTED[:-6] + (int.from_bytes(SHIFTED[-6:-2], "little") + 1).to_bytes(4, "little") + SHIFTED[-2:]
"""Its directory is said to be a byte later than it is, so its first member would be before its start."""
DAMAGES: list[tuple[str, bytes, str]] = [
    ("x.tar", b"", "damaged: empty file"),
    ("x.tar", HTML, "damaged: truncated header"),
    ("x.tar", HTML * 100, "damaged: invalid header"),
    ("x.tar", SOUND[:1500], "damaged: unexpected end of data"),
    ("x.tar", SOUND[:2048] + b"x" * 8192, "damaged: it ends in the middle"),
    ("x.tar", b"\x1f\x8b" + HTML, "damaged: Unknown compression method"),
    ("x.tar", gzip.compress(SOUND)[:-8] + bytes(8), "damaged: CRC check failed "),
    ("x.tar", b"BZh" + HTML * 9, "damaged: Invalid data stream"),
    ("x.tar", b"\xfd7zXZ\0" + HTML, "damaged: Corrupt input data"),
    ("x.tar", b"\x28\xb5\x2f\xfd" + HTML, "damaged: zstd decompress error: "),
    ("x.zip", b"", "damaged: File is not a zip file"),
    ("x.zip", HTML, "damaged: File is not a zip file"),
    ("x.zip", SHIFTED, "damaged: [Errno 22] Invalid argument"),
    ("x.deb", b"", "not a Debian package"),
    ("x.deb", HTML, "not a Debian package"),
    ("x.deb", deb((b"debian-binary", b"2.0\n")), "holds no data.tar"),
    ("x.deb", deb((b"data.tar", SOUND))[:40], "damaged: a header of it is cut or no header"),
    ("x.deb", deb((b"data.tar", SOUND), size=b"-5"), "damaged: a header of it is cut or no header"),
    ("x.deb", deb((b"data.tar", SOUND), size=b"1_0"), "damaged: a header of it is cut or no header"),
    ("x.deb", deb((b"data.tar", SOUND), size=b"x"), "damaged: a header of it is cut or no header"),
    ("x.deb", deb((b"data.tar", SOUND))[:2000], "damaged: it ends in the middle"),
    ("x.deb", deb((b"data.tar.xz", lzma.compress(SOUND)))[:-40], "damaged: it ends in the middle"),
]


@pytest.mark.parametrize(("name", "data", "text"), FAULTS, ids=[f"{name} {text[:50]}" for name, _, text in FAULTS])
def test_hostile_archives(name: str, data: bytes, text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refusal:
        unpacked(data, name, tmp_path, limit=LIMIT)
    assert refusal.value.message == f"{name}: refuses to unpack: {text}"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["0123456789abcdef", "into"]


@pytest.mark.parametrize(("name", "data", "text"), DAMAGES, ids=[f"{name} {text[:50]}" for name, _, text in DAMAGES])
def test_damaged_archives(name: str, data: bytes, text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refusal:
        unpacked(data, name, tmp_path)
    assert refusal.value.message.startswith(f"{name}: {text}")
    assert text.startswith("holds") or refusal.value.hint == archive._HINT


def test_links_of_a_zip_are_links(tmp_path: Path) -> None:
    data = zipped(("top/", b"", 0), ("top/a", b"text", 0o644), ("top/l", b"a", LINK), ("top/run", b"#!", 0o100755))
    assert unpacked(data, "x.zip", tmp_path) == SOUND_TREE


def test_a_zip_of_a_method_that_asks_for_any_memory(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_LZMA) as written:
        written.writestr("a", b"x")
    with pytest.raises(UserError, match=r"^x.zip: refuses to unpack: 'a' is compressed by method 14$"):
        unpacked(out.getvalue(), "x.zip", tmp_path)


def gzip_of_zeros(start: bytes, size: int) -> bytes:
    """gzip of `start` and that many zeros."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1) as written:
        written.write(start)
        for _ in range(size >> 20):
            written.write(bytes(1 << 20))
    return out.getvalue()


BIG = 64 << 20


def header(kind: bytes, **more: Any) -> bytes:
    """One header of a tar, whose content has BIG bytes."""
    info, _ = member("a", type=kind, size=BIG, **more)
    return info.tobuf(tarfile.GNU_FORMAT)


def sparse_map() -> bytes:
    """A member whose map of holes is all of its content (GNU format 1.0)."""
    names = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1", "GNU.sparse.name": "a"}
    info, _ = member("a", size=BIG, pax_headers=names)
    return info.tobuf(tarfile.PAX_FORMAT) + b"99999999\n" + b"0\n" * 250


def greedy_xz() -> bytes:
    """A file that asks for a dictionary of 3 GiB, which a decoder fills as it goes."""
    packed = bytearray(lzma.compress(bytes(BIG), format=lzma.FORMAT_ALONE, preset=0))
    packed[1:5] = (3 << 30).to_bytes(4, "little")
    return bytes(packed)


TOO_LARGE = "refuses to unpack: it holds more than "
HEADER = "damaged: a header of it is too large"
BOMBS: list[tuple[str, str, Callable[[], bytes], str]] = [
    (
        "pax header",
        "x.tar",
        lambda: gzip_of_zeros(header(tarfile.XHDTYPE), BIG),
        "damaged: a header of it is too large",
    ),
    ("global", "x.tar", lambda: gzip_of_zeros(header(tarfile.XGLTYPE), BIG), HEADER),
    ("name", "x.tar", lambda: gzip_of_zeros(header(tarfile.GNUTYPE_LONGNAME), BIG), HEADER),
    ("sparse map", "x.tar", lambda: gzip_of_zeros(sparse_map(), BIG), "damaged: "),
    ("file", "x.tar", lambda: gzip_of_zeros(header(tarfile.REGTYPE), BIG), TOO_LARGE),
    ("after the end", "x.tar", lambda: gzip_of_zeros(SOUND, BIG), TOO_LARGE),
    ("deb", "x.deb", lambda: deb((b"data.tar", gzip_of_zeros(header(tarfile.REGTYPE), BIG))), TOO_LARGE),
    ("zstd", "x.tar", lambda: zstandard.ZstdCompressor().compress(header(tarfile.REGTYPE) + bytes(BIG)), TOO_LARGE),
    ("zip", "x.zip", lambda: zipped(("a", bytes(BIG), 0)), TOO_LARGE),
    ("xz", "x.tar", greedy_xz, "damaged: Memory usage limit exceeded"),
]


@pytest.mark.parametrize(("name", "make", "text"), [each[1:] for each in BOMBS], ids=[each[0] for each in BOMBS])
def test_memory_is_bounded(name: str, make: Callable[[], bytes], text: str, tmp_path: Path) -> None:
    data = make()
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as refusal:
            unpacked(data, name, tmp_path, limit=BIG // 2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert refusal.value.message.startswith(f"{name}: {text}")
    assert peak < 16 << 20


def test_a_file_that_is_compressed(tmp_path: Path) -> None:
    for name, data in (("a.xz", lzma.compress(b"text")), ("a.gz", gzip.compress(b"text")), ("a", b"text")):
        (tmp_path / "f").write_bytes(data)
        assert archive.decompressed(tmp_path / "f", name) == b"text"
        for cut in (data[:-1], HTML):
            (tmp_path / "f").write_bytes(cut)
            if name != "a":
                with pytest.raises(UserError, match=f"^{name}: damaged: "):
                    archive.decompressed(tmp_path / "f", name)
    (tmp_path / "f").write_bytes(gzip_of_zeros(b"", 2 << 20))
    with pytest.raises(UserError, match=r"^a.gz: refuses to unpack: it holds more than 1048576 bytes$"):
        archive.decompressed(tmp_path / "f", "a.gz", limit=1 << 20)


REAL: list[tuple[str, bytes]] = [
    *(("x.tar", COMPRESS[kind](SOUND)) for kind in ("plain", "gzip", "bzip2", "xz", "lzma", "zstd")),
    ("x.tar", tar(member("d/é", b"x"), link("d/l", "../d/é"), hard("h", "d/é"), member("e" * 150, b"y"), folder("z"))),
    ("x.tar", tar(member("d/é", b"x"), link("l", "y" * 120), member("e" * 150, b"y"), form=tarfile.GNU_FORMAT)),
    ("x.zip", zipped(("top/", b"", 0), ("top/a", b"text", 0o644), ("top/l", b"a", LINK))),
    ("x.deb", deb((b"debian-binary", b"2.0\n"), (b"data.tar.xz", lzma.compress(SOUND)))),
    ("x.deb", deb((b"debian-binary", b"2.0\n"), (b"data.tar", SOUND))),
]
EDIT = st.tuples(
    st.sampled_from(["set", "cut", "insert", "copy"]), st.integers(0, 1 << 14), st.binary(min_size=1, max_size=12)
)


def mutated(data: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    for how, at, new in edits:
        at %= len(data) + 1
        match how:
            case "set":
                data = data[:at] + new + data[at + len(new) :]
            case "cut":
                data = data[:at] + data[at + len(new) :]
            case "insert":
                data = data[:at] + new + data[at:]
            case "copy":
                data = data[:at] + data[at // 2 : at // 2 + 512] + data[at:]
    return data


def check_unpacking(name: str, data: bytes) -> None:
    """A tree or a sentence; nothing outside of it is there, touched, or pointed to."""
    with tempfile.TemporaryDirectory() as temporary:
        into = Path(temporary, "folder/into")
        into.mkdir(parents=True)
        Path(temporary, "outside").write_text("secret")
        before = trace(Path(temporary, "outside"))
        path = Path(temporary, "archive")
        path.write_bytes(data)
        try:
            UNPACK[name](path, into, name=name, limit=LIMIT)
        except UserError as refusal:
            assert refusal.message.startswith(f"{name}: ")
        else:
            for each in into.rglob("*"):
                assert Path(os.path.realpath(each)).is_relative_to(into.resolve())
        assert trace(Path(temporary, "outside")) == before
        assert [each.name for each in Path(temporary, "folder").iterdir()] == ["into"]


@settings(max_examples=200)
@given(real=st.sampled_from(REAL), edits=st.lists(EDIT, min_size=1, max_size=4))
def test_any_mutation_is_a_tree_or_a_sentence(real: tuple[str, bytes], edits: list[tuple[str, int, bytes]]) -> None:
    check_unpacking(real[0], mutated(real[1], edits))


@settings(max_examples=60)
@given(name=st.sampled_from(sorted(UNPACK)), magic=st.sampled_from(REAL), data=st.binary(max_size=600))
def test_any_bytes_are_a_tree_or_a_sentence(name: str, magic: tuple[str, bytes], data: bytes) -> None:
    check_unpacking(name, data)
    check_unpacking(name, magic[1][:8] + data)


WORD = st.sampled_from(["a", "b", "a/b", "b/a", "a/b/c", "..", "../x", "/x", "a/../..", ".", ""])
MEMBER = st.one_of(
    st.builds(member, WORD, st.binary(max_size=3)),
    st.builds(folder, WORD),
    st.builds(link, WORD, WORD),
    st.builds(hard, WORD, WORD),
)
ENTRY = st.tuples(WORD.filter(bool), st.sampled_from([b"a", b"..", b"a/b", b"/x", b"../x"]), st.sampled_from([0, LINK]))


@settings(max_examples=150)
@given(st.lists(MEMBER, max_size=7))
def test_any_members_are_a_tree_or_a_sentence(members: list[Member]) -> None:
    check_unpacking("x.tar", tar(*members))


@given(st.lists(ENTRY, max_size=5, unique_by=lambda entry: entry[0]))
def test_any_entries_are_a_tree_or_a_sentence(entries: list[tuple[str, bytes, int]]) -> None:
    check_unpacking("x.zip", zipped(*entries))


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(["a", "b", "ü", "x" * 120]), TREE, max_size=4))
def test_what_is_written_unpacks_to_the_same_tree(value: dict[str, Any]) -> None:
    """Also through gzip, below a name; links that lead out are left to the tests above."""
    with tempfile.TemporaryDirectory() as temporary:
        here = Path(temporary)
        grow(here / "tree", value)
        try:
            tree.check_links(here / "tree")
        except tree.Refused:
            return
        pack.write_tar({".": here / "tree"}, here / "a.tar", modes={}, mtime=1)
        pack.write_tar_gz({"top/x": here / "tree"}, here / "a.tar.gz", mtime=1)
        for name, where in (("a.tar", "."), ("a.tar.gz", "top/x")):
            into = here / f"from {name}"
            into.mkdir()
            archive.unpack_tar(here / name, into, name=name)
            assert nar_hash(into / where) == nar_hash(here / "tree")


def test_places_of_a_tar(tmp_path: Path) -> None:
    """Names sorted, folders on the way, modes and times as asked for; no file of the places is touched."""
    (tmp_path / "root/b").mkdir(parents=True)
    (tmp_path / "root/b/run").write_text("#!")
    (tmp_path / "root/b/run").chmod(0o555)
    (tmp_path / "root/a-b").symlink_to("b")
    (tmp_path / "script").write_text("x")
    before = trace(tmp_path / "root")
    places = {"top/rootfs": tmp_path / "root", "top/script": tmp_path / "script"}
    pack.write_tar(places, tmp_path / "a.tar", modes={"top/rootfs/b": 0o1777}, mtime=5)
    assert trace(tmp_path / "root") == before
    with tarfile.open(tmp_path / "a.tar") as read:
        assert [(each.name, each.type, oct(each.mode), each.mtime, each.uid) for each in read] == [
            ("top", tarfile.DIRTYPE, "0o755", 5, 0),
            ("top/rootfs", tarfile.DIRTYPE, "0o755", 5, 0),
            ("top/rootfs/a-b", tarfile.SYMTYPE, "0o777", 5, 0),
            ("top/rootfs/b", tarfile.DIRTYPE, "0o1777", 5, 0),
            ("top/rootfs/b/run", tarfile.REGTYPE, "0o755", 5, 0),
            ("top/script", tarfile.REGTYPE, "0o644", 5, 0),
        ]

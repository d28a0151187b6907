"""Files over HTTP: every fault a network can have, and what is said of it."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandkube.build.lock import File, Pin
from sandkube.build.sources import Source, blobs, url
from sandkube.build.sources.settings import Patience
from sandkube.build.sources.url import fetch_file, resolve, unpack
from sandkube.errors import HashMismatch, UserError
from tests.servers import Cut, Drip, Other, Reset, Served, Shift, Stall, Status, file_server, only_loopback, zip_of

SEED = 7
CONTENT = random.Random(SEED).randbytes(300_000)
FILE = File("thing.bin", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
QUICK = Patience(attempts=3, stall=20.0, pause=0.01, total=60.0)  # a loaded machine is no stall
STALLED = replace(QUICK, stall=0.5)  # for servers that do stall
PATH = "/d/thing.bin"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Served]:
    only_loopback(monkeypatch, tmp_path / "home")
    with file_server({PATH: CONTENT}) as served:
        yield served


def fetch(server: Served, cache: Path, patience: Patience = QUICK) -> bytes:
    """Fetch FILE from the server's one address; the bytes that the cache holds then."""
    fetch_file("demo", FILE, [server.address + PATH], cache, patience)
    return blobs.path_of(cache, FILE.sha256).read_bytes()


def test_fetched_once(server: Served, tmp_path: Path) -> None:
    assert fetch(server, tmp_path) == CONTENT
    assert fetch(server, tmp_path) == CONTENT
    assert server.seen == [(PATH, "")]
    assert not (tmp_path / "partial" / FILE.sha256).exists()


def test_an_empty_file_is_a_file(server: Served, tmp_path: Path) -> None:
    server.files["/d/empty"] = b""
    address = f"{server.address}/d/empty"
    (file,) = resolve("demo", Source("url", address), tmp_path / "pin", QUICK)
    assert file == File("empty", hashlib.sha256(b"").hexdigest(), 0)
    fetch_file("demo", file, [address], tmp_path, QUICK)
    assert blobs.path_of(tmp_path, file.sha256).read_bytes() == b""
    assert list((tmp_path / "partial").iterdir()) == []


def test_cached_damage_is_named_and_mended(server: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fetch(server, tmp_path)
    blobs.path_of(tmp_path, FILE.sha256).write_bytes(b"EVIL")
    assert fetch(server, tmp_path) == CONTENT
    assert "demo: cached thing.bin was damaged; removed, it is fetched again\n" in capsys.readouterr().err
    assert len(server.seen) == 2


@pytest.mark.parametrize("case", range(5))
def test_reset_at_a_random_byte_goes_on_from_there(case: int, server: Served, tmp_path: Path) -> None:
    """The kernel may drop what it had not handed over when the reset came, so the range starts at or before it."""
    at = random.Random(SEED + case).randrange(1, len(CONTENT))
    server.faults[PATH] = [Reset(at)]
    assert fetch(server, tmp_path) == CONTENT
    first, second = server.ranges(PATH)
    assert first == ""
    assert second == "" or 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= at


@pytest.mark.parametrize("fault", [Cut(100_000), Stall(100_000)], ids=["cut", "stall"])
def test_goes_on_at_the_byte_where_it_stopped(fault: Cut | Stall, server: Served, tmp_path: Path) -> None:
    server.faults[PATH] = [fault]
    assert fetch(server, tmp_path, STALLED if isinstance(fault, Stall) else QUICK) == CONTENT
    assert server.ranges(PATH) == ["", "bytes=100000-"]


def test_goes_on_in_the_next_command(server: Served, tmp_path: Path) -> None:
    """What came is kept when a fetch is given up, and is not asked for again."""
    server.faults[PATH] = [Cut(120_000), Status(500), Status(503)]
    with pytest.raises(UserError):
        fetch(server, tmp_path)
    assert (tmp_path / "partial" / FILE.sha256).read_bytes() == CONTENT[:120_000]
    assert fetch(server, tmp_path) == CONTENT
    assert server.ranges(PATH) == ["", "bytes=120000-", "bytes=120000-", "bytes=120000-"]


def test_a_partial_of_other_bytes_starts_anew(server: Served, tmp_path: Path) -> None:
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / FILE.sha256).write_bytes(b"x" * 1000)
    assert fetch(server, tmp_path) == CONTENT
    assert server.ranges(PATH) == ["bytes=1000-", ""]


@pytest.mark.parametrize("extra", [0, 10], ids=["as long", "longer"])
def test_a_whole_partial_of_other_bytes_starts_anew(extra: int, server: Served, tmp_path: Path) -> None:
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / FILE.sha256).write_bytes(b"x" * (FILE.size + extra))
    assert fetch(server, tmp_path) == CONTENT
    assert server.ranges(PATH) == [""]


def test_a_range_that_starts_elsewhere_is_refused(server: Served, tmp_path: Path) -> None:
    server.faults[PATH] = [Cut(100_000), Shift(17)]
    assert fetch(server, tmp_path) == CONTENT
    assert server.ranges(PATH) == ["", "bytes=100000-", ""]


def test_server_errors_pass(server: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.faults[PATH] = [Status(503), Status(500)]
    assert fetch(server, tmp_path) == CONTENT
    assert f"demo: {server.address}{PATH}: status 503; trying again\n" in capsys.readouterr().err


def test_server_errors_that_stay(server: Served, tmp_path: Path) -> None:
    server.faults[PATH] = [Status(502)] * 9
    with pytest.raises(UserError) as caught:
        fetch(server, tmp_path)
    assert str(caught.value) == (
        f"demo: thing.bin could not be fetched:\n  {server.address}{PATH}: status 502 (3 attempts)\n"
        "  hint: is the network reachable? What came is kept, the same command goes on from there; "
        "mirrors = [...] in the recipe adds addresses"
    )
    assert len(server.seen) == QUICK.attempts


def test_missing_is_not_asked_for_again(server: Served, tmp_path: Path) -> None:
    server.faults[PATH] = [Status(404)]
    with pytest.raises(UserError, match=r"thing\.bin: status 404\n") as caught:
        fetch(server, tmp_path)
    assert len(server.seen) == 1
    assert caught.value.message == f"demo: thing.bin could not be fetched:\n  {server.address}{PATH}: status 404"


def test_a_stall_that_stays(server: Served, tmp_path: Path) -> None:
    server.faults[PATH] = [Stall(0)] * 9
    with pytest.raises(UserError, match=r"no byte for 0\.05 s \(2 attempts\)\n"):
        fetch(server, tmp_path, replace(QUICK, attempts=2, stall=0.05))


def test_dripping_has_an_end(server: Served, tmp_path: Path) -> None:
    """A server that sends a byte now and then never stalls; the time for one address ends it."""
    server.faults[PATH] = [Drip(0.02)] * 9
    started = time.monotonic()
    with pytest.raises(UserError, match=r"bytes in 0\.3 s, which is the limit\n"):
        fetch(server, tmp_path, replace(QUICK, total=0.3))
    assert time.monotonic() - started < 1.5


def test_progress_is_told(server: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fetch(server, tmp_path, replace(QUICK, silence=-1.0))
    assert f" of 0.3 MB from {server.address}{PATH}\n" in capsys.readouterr().err


def test_wrong_bytes_are_never_used(server: Served, tmp_path: Path) -> None:
    evil = bytes(len(CONTENT))
    server.faults[PATH] = [Other(evil)]
    with pytest.raises(HashMismatch) as caught:
        fetch(server, tmp_path)
    assert str(caught.value) == (
        f"demo: thing.bin: the bytes do not match their pin: expected {FILE.sha256} of 300000 bytes, "
        f"got {hashlib.sha256(evil).hexdigest()}, from {server.address}{PATH}\n"
        "  hint: the source changed or was tampered with; "
        "if the change is wanted, move the pin with ./do lock --upgrade NAME"
    )
    assert len(server.seen) == 1
    assert not list(tmp_path.glob("blobs/**/*"))
    assert fetch(server, tmp_path) == CONTENT


@pytest.mark.parametrize("size", [10, len(CONTENT) + 5])
def test_wrong_length(size: int, server: Served, tmp_path: Path) -> None:
    server.faults[PATH] = [Other(bytes(size))] * 9
    with pytest.raises(HashMismatch, match=rf"expected {FILE.sha256} of 300000 bytes, got {size} bytes, from http"):
        fetch(server, tmp_path)
    assert len(server.seen) == 1
    assert not list(tmp_path.glob("blobs/**/*"))


def test_endless_body(server: Served, tmp_path: Path) -> None:
    """Without a length in the header, reading stops when there is more than the pin says."""
    server.files[PATH] = CONTENT + bytes(10_000_000)
    server.faults[PATH] = [Cut(20_000_000)]
    with pytest.raises(HashMismatch, match=r"got more than 300000 bytes, from http"):
        fetch(server, tmp_path)


def test_mirror_takes_over(server: Served, tmp_path: Path) -> None:
    """The mirror goes on from the bytes that the first address sent before it broke."""
    server.files["/m/thing.bin"] = CONTENT
    server.faults[PATH] = [Cut(200_000), *[Status(500)] * 9]
    fetch_file("demo", FILE, [server.address + PATH, server.address + "/m/thing.bin"], tmp_path, QUICK)
    assert blobs.sound(tmp_path, FILE, "demo")
    assert server.ranges("/m/thing.bin") == ["bytes=200000-"]


def test_mirror_mends_wrong_bytes(server: Served, tmp_path: Path) -> None:
    server.files["/m/thing.bin"] = CONTENT
    server.files[PATH] = bytes(len(CONTENT))
    fetch_file("demo", FILE, [server.address + PATH, server.address + "/m/thing.bin"], tmp_path, QUICK)
    assert blobs.sound(tmp_path, FILE, "demo")


def test_every_address_is_named(server: Served, tmp_path: Path) -> None:
    server.files[PATH] = b"short"
    addresses = [f"{server.address}/gone", server.address + PATH]
    with pytest.raises(HashMismatch) as caught:
        fetch_file("demo", FILE, addresses, tmp_path, QUICK)
    assert caught.value.message == (
        f"demo: thing.bin: the bytes do not match their pin: expected {FILE.sha256} of 300000 bytes, "
        f"got 5 bytes, from {addresses[1]}; also tried: {addresses[0]} (status 404)"
    )


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_loopback(monkeypatch, tmp_path / "home")
    with file_server() as served:
        address = served.address + PATH
    with pytest.raises(UserError, match=r"Connection refused \(2 attempts\)\n"):
        fetch_file("demo", FILE, [address], tmp_path, replace(QUICK, attempts=2))


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://h/x", "/etc/passwd"])
def test_other_schemes_are_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        fetch_file("demo", FILE, [address], tmp_path, QUICK)
    assert caught.value.message == f"demo: {address}: only http: and https: addresses are fetched"


def test_several_at_once_ask_once(server: Served, tmp_path: Path) -> None:
    threads = [threading.Thread(target=fetch, args=(server, tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.ranges(PATH) == [""]


def test_a_cache_that_cannot_be_written_is_a_sentence(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = tmp_path / "partial" / FILE.sha256
    partial.parent.mkdir()
    partial.symlink_to("/dev/full")
    monkeypatch.setattr(url._Part, "size", lambda _: 0)
    with pytest.raises(UserError, match=r"^demo: .*: No space left on device$"):
        fetch(server, tmp_path)


def test_resolve_pins_what_is_there(server: Served, tmp_path: Path) -> None:
    server.faults[PATH] = [Stall(100_000), Cut(1)]
    server.faults["/gone/thing.bin"] = [Status(410)]
    source = Source("url", f"{server.address}/gone/thing.bin", mirrors=(f"{server.address}{PATH}?x=1",))
    server.files[f"{PATH}?x=1"] = CONTENT
    assert resolve("demo", source, tmp_path, STALLED) == (FILE,)
    assert blobs.sound(tmp_path, FILE, "demo")


def test_resolve_goes_on_only_with_the_same_version(server: Served, tmp_path: Path) -> None:
    """With a tag, a changed file is sent anew and not glued to the old one's beginning."""
    new = random.Random(1).randbytes(200_000)
    server.faults[PATH] = [Stall(100_000)]
    source = Source("url", server.address + PATH)
    original = dict(server.files)

    class Changing(dict[str, bytes]):
        def get(self, key: str, *_default: object) -> bytes | None:  # type: ignore[override]
            return original[key] if len(server.seen) == 1 else new

    server.files = Changing(original)
    (file,) = resolve("demo", source, tmp_path, STALLED)
    assert file == File("thing.bin", hashlib.sha256(new).hexdigest(), len(new))
    assert server.ranges(PATH) == ["", "bytes=100000-"]


def test_address_without_a_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^demo: http://h/d/: does not end in a file name$"):
        resolve("demo", Source("url", "http://h/d/"), tmp_path, QUICK)


def put(cache: Path, name: str, content: bytes) -> Pin:
    """A pin of bytes that the cache holds."""
    got = cache / "got"
    got.write_bytes(content)
    return Pin("", files=(File(name, blobs.put(cache, got), len(content)),))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a-1/x": b"1", "a-1/a-1/y": b"2"}, {"x": b"1", "a-1/y": b"2"}),
        ({"a/x": b"1", "b": b"2"}, {"a/x": b"1", "b": b"2"}),
        ({"x": b"1"}, {"x": b"1"}),
    ],
    ids=["one top folder", "several entries", "one file"],
)
def test_unpack_strips_a_single_top_folder(files: dict[str, bytes], expected: dict[str, bytes], tmp_path: Path) -> None:
    pin = put(tmp_path, "a.zip", zip_of(files))
    (tmp_path / "into").mkdir()
    unpack(pin, tmp_path / "into", tmp_path)
    assert tree(tmp_path / "into") == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blobs", "got", "into"]


def test_unpack_of_a_plain_file(tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    unpack(put(tmp_path, "thing", b"x"), tmp_path / "into", tmp_path)
    assert tree(tmp_path / "into") == {"thing": b"x"}

"""Shared caches at length: any fault, hundreds of times; thousands of changed caches; kill -9, Ctrl-C, full disks."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import select
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandkube.build.cache import chunks, web
from sandkube.build.cache.chunks import decode, encode
from sandkube.digest import sha256_bytes
from sandkube.nar import nar_hash
from sandkube.tree import remove_tree
from tests.caches import Made, Person, index_of, made, pulled
from tests.faults import CacheServer, Fault, any_fault, cache_server, clients_closed, passing_fault
from tests.integration.test_build_command import in_mounts, sentence
from tests.servers import Stall, only_loopback
from tests.small import Small, small

FETCHES, MUTATIONS, KILLS = 500, 2000, 20


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[CacheServer]:
    """A server on loopback, for clients in this process that wait for a hundredth of the time."""
    only_loopback(monkeypatch, tmp_path)
    monkeypatch.setattr(web, "STALL", 0.05)
    monkeypatch.setattr(web, "PAUSES", (0.0, 0.0, 0.0))
    with clients_closed(monkeypatch), cache_server() as server:
        yield server


@pytest.fixture
def ci(tmp_path: Path) -> Person:
    return Person.at(tmp_path / "ci")


def trees(at: Path, some: random.Random, count: int) -> list[Made]:
    """Trees of a few chunks each."""
    return [
        made(at / str(number), {"a": some.randbytes(some.randrange(1, 700_000)), "b/c": b"x"}, name=f"n{number}")
        for number in range(count)
    ]


def test_fetches_past_any_fault(ci: Person, cache: CacheServer, tmp_path: Path) -> None:
    """Each ends with the tree that was signed, or with none and a line that says why."""
    some = random.Random(1129)
    known = trees(tmp_path / "trees", some, 10)
    for each in known:
        ci.push(each, cache.address)
    came = longest = 0.0
    for number in range(FETCHES):
        cache.fault = lambda _method, _path: any_fault(some, cache) if some.random() < 0.3 else None
        one, caches = some.choice(known), ci.caches(cache.address)
        began = time.monotonic()
        got = pulled(caches, one.record, at := tmp_path / f"got-{number}")
        longest = max(longest, time.monotonic() - began)
        assert got in (None, one.record.output)
        came += got is not None
        said = list(caches.report())
        assert all("\n" not in line for line in said)
        if at.exists():
            remove_tree(at)
    print(f"{came:g} of {FETCHES} came, the longest took {longest:.2f} s")
    assert 0 < came < FETCHES


def test_faults_that_pass_cost_little(ci: Person, cache: CacheServer, tmp_path: Path) -> None:
    """One request of ten fails in some way that passes: all trees come, with at most 1.15 times their bytes."""
    some = random.Random(1130)
    known = trees(tmp_path / "trees", some, 10)
    for each in known:
        ci.push(each, cache.address)
    payload = came = 0
    before = cache.sent
    for number in range(FETCHES // 5):
        one, caches = some.choice(known), ci.caches(cache.address)
        cache.fault = lambda _method, _path: passing_fault(some) if some.random() < 0.1 else None
        if pulled(caches, one.record, at := tmp_path / f"got-{number}"):
            came += 1
            payload += caches.places[0].received
            remove_tree(at)
    wire = cache.sent - before
    print(f"{came} of {FETCHES // 5} came, {wire / payload:.3f} bytes on the wire for each")
    assert came >= 0.98 * FETCHES // 5  # three faults in a row, of one request
    assert wire <= 1.15 * payload


def mutated(data: bytes, some: random.Random) -> bytes:
    """Other bytes: changed, cut, doubled, filled."""
    at, to = sorted(some.randrange(len(data) + 1) for _ in range(2))
    match some.randrange(6):
        case 0:
            return data[:at] + bytes([some.randrange(256)]) + data[at + 1 :]
        case 1:
            return data[:at]
        case 2:
            return data[:to] + data[at:]
        case 3:
            return data[:at] + some.randbytes(to - at) + data[to:]
        case 4:
            return data[:at] + data[to:]
        case _:
            return some.randbytes(len(data))


def signed_anew(one: Made, folder: Path, some: random.Random) -> None:
    """An index that is another one, whole, and named by the record; as anybody can make it who may write the cache."""
    path = folder / "ac" / one.record.key
    value = json.loads(path.read_bytes())
    listed = list(decode((folder / "cas" / value["index"]["sha256"]).read_bytes()))
    match some.randrange(3):
        case 0:
            some.shuffle(listed)
        case 1:
            listed[some.randrange(len(listed))] = some.choice(listed)
        case _:
            at = some.randrange(len(listed))
            other = chunks.pack(some.randbytes(listed[at].size))
            (folder / "cas" / other[0].blob.sha256).write_bytes(other[1])
            listed[at] = other[0]
    data = encode(listed)
    name = sha256_bytes(data)
    (folder / "cas" / name).write_bytes(data)
    value["index"] = {"sha256": name, "size": len(data)}
    path.write_bytes(json.dumps(value).encode())


def test_changed_caches_give_no_wrong_byte(ci: Person, tmp_path: Path) -> None:
    """`pulled` hashes each tree that is taken."""
    some = random.Random(1131)
    one = trees(tmp_path / "trees", some, 1)[0]
    folder, address = tmp_path / "cache", f"file://{tmp_path}/cache"
    ci.push(one, address)
    index = index_of((folder / "ac" / one.record.key).read_bytes(), one.record.key)
    listed = [each.blob.sha256 for each in decode((folder / "cas" / index).read_bytes())]
    sound = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    victims = [folder / "ac" / one.record.key, folder / "cas" / index, *(folder / "cas" / each for each in listed)]
    taken = 0
    for number in range(MUTATIONS):
        if number % 4 == 3:
            victim = victims[0]
            signed_anew(one, folder, some)
        else:
            victim = victims[number % 4] if number % 4 < 2 else some.choice(victims[2:])
            victim.write_bytes(mutated(sound[victim], some))
        caches = ci.caches(address)
        got = pulled(caches, one.record, at := tmp_path / "got")
        assert got in (None, one.record.output)
        taken += got is not None
        assert all("\n" not in line for line in caches.report())
        if at.exists():
            remove_tree(at)
        victim.write_bytes(sound[victim])
        for path in set((folder / "cas").iterdir()) - sound.keys():
            path.unlink()
    print(f"{taken} of {MUTATIONS} meant the same")  # chunks that changed places with themselves, and the like
    assert taken < MUTATIONS / 3


def with_cache(one: Small, address: str) -> Small:
    return dataclasses.replace(one, env={**one.env, "SANDKUBE_CACHE": address})


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Small, Small]:
    """A checkout with a key, that has built, and one that trusts it; trees of 3 MB."""
    first, second = small(tmp_path / "first"), small(tmp_path / "second")
    content = random.Random(1).randbytes(3_000_000)
    for each in (first, second):
        (each.folder / "native/base/used").write_bytes(content)
    line = first.do("key", "new", "ci").out
    assert second.do("key", "trust", line.strip()).status == 0
    assert first.do("build").status == 0
    return first, second


def killed(one: Small, seconds: float, *words: str) -> bool:
    """Kill a command after some seconds; whether it was still running."""
    process = one.popen(*words)
    descriptor = os.pidfd_open(process.pid)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    running = not poll.poll(seconds * 1000)
    process.kill()
    os.close(descriptor)
    process.communicate()
    return running


def test_pushes_that_are_killed(pair: tuple[Small, Small], tmp_path: Path) -> None:
    """Whatever is there after each: what is taken is whole; the next push goes on."""
    first, second = pair
    folder, moments, count = tmp_path / "cache", random.Random(2), 0
    writer, reader = with_cache(first, f"file://{folder}?write"), with_cache(second, f"file://{folder}")
    for _ in range(10 * KILLS):
        if not killed(writer, moments.uniform(0.2, 0.8), "cache", "push"):
            shutil.rmtree(folder)
            continue
        count += 1
        if count == KILLS:
            break
    assert count == KILLS
    said = reader.do("build", "top")
    assert (said.status, "has other bytes" in said.err) == (0, False)
    assert writer.do("cache", "push").status == 0
    remove_tree(reader.folder / "outputs")
    assert reader.do("build", "top").steps() == {}
    whole(reader)


def whole(one: Small) -> None:
    """Every tree of a store is what its name says, and nothing is left over."""
    store = one.folder / "outputs/store"
    for tree in (store / "trees").iterdir():
        assert nar_hash(tree) == tree.name
    assert list((store / "staging").iterdir()) == []


def test_pulls_that_are_killed(pair: tuple[Small, Small], tmp_path: Path) -> None:
    first, second = pair
    folder, moments, count = tmp_path / "cache", random.Random(3), 0
    assert with_cache(first, f"file://{folder}?write").do("cache", "push").status == 0
    reader = with_cache(second, f"file://{folder}")
    for _ in range(10 * KILLS):
        running = killed(reader, moments.uniform(0.2, 0.8), "cache", "pull")
        for tree in (reader.folder / "outputs/store/trees").glob("*"):
            assert nar_hash(tree) == tree.name
        if not running:
            remove_tree(reader.folder / "outputs/store")
        count += running
        if count == KILLS:
            break
    assert count == KILLS
    assert reader.do("cache", "pull").status == 0
    whole(reader)
    assert {each.name for each in (reader.folder / "outputs/result").iterdir()} == {"base", "middle", "top"}
    assert (reader.folder / "outputs/result/top").resolve().name == (first.folder / "outputs/result/top").resolve().name


def interrupted(one: Small, server: CacheServer, *words: str) -> None:
    """Ctrl-C as soon as a server is silent: the command ends before it would have noticed the silence."""
    process = one.popen(*words)
    assert server.waits.wait(60)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    took = time.monotonic() - began
    print(f"{' '.join(words)}: ended {took:.2f} s after Ctrl-C")
    assert (process.returncode, "Traceback" in said) == (130, False), said
    assert took < web.STALL


@pytest.mark.parametrize("words", ["cache pull", "build"])
@pytest.mark.parametrize("at", ["/ac/", "/cas/"])
def test_ctrl_c_while_pulling(pair: tuple[Small, Small], words: str, at: str) -> None:
    """What came before is kept."""
    first, second = pair
    with cache_server() as server:
        assert with_cache(first, f"{server.address}?write").do("cache", "push").status == 0
        server.seen.clear()

        def fault(_method: str, path: str) -> Fault | None:
            records = sum(each.startswith("/ac/") for each in server.paths("GET"))
            return Stall(100) if path.startswith(at) and records == (3 if at == "/ac/" else 1) else None

        server.fault = fault
        reader = with_cache(second, server.address)
        interrupted(reader, server, *words.split())
        records = list((reader.folder / "outputs/store/records").iterdir())
        assert len(records) == (2 if at == "/ac/" else 1)
        whole(reader)
        server.fault = lambda _method, _path: None
        assert reader.do("cache", "pull").status == 0


@pytest.mark.parametrize("words", ["cache push", "build"])
def test_ctrl_c_while_pushing(pair: tuple[Small, Small], words: str) -> None:
    """A build has all its outputs then."""
    first, second = pair
    with cache_server() as server:
        server.fault = lambda method, path: Stall(0) if method == "PUT" and path.startswith("/cas/") else None
        writer = with_cache(first, f"{server.address}?write")
        if words == "build":
            remove_tree(first.folder / "outputs/store")
        interrupted(writer, server, *words.split())
        assert not any(path.startswith("/ac/") for path in server.files)
        whole(writer)
        server.fault = lambda _method, _path: None
        assert writer.do("build").status == 0
        assert writer.do("cache", "push").status == 0
        assert with_cache(second, server.address).do("build").steps() == {}


@pytest.mark.parametrize(
    ("mount", "said"),
    [
        ("mount -t tmpfs -o size=1m none {0}", "No space left on device"),
        ("mount --bind {0} {0} && mount -o remount,ro,bind {0}", "Read-only file system"),
    ],
    ids=["full", "read-only"],
)
def test_a_cache_that_takes_nothing(pair: tuple[Small, Small], tmp_path: Path, mount: str, said: str) -> None:
    first, _ = pair
    folder = tmp_path / "cache"
    folder.mkdir()
    remove_tree(first.folder / "outputs/store")
    writer = in_mounts(with_cache(first, f"file://{folder}?write"), mount.format(folder))
    built = writer.do("build")
    assert (built.status, "Traceback" in built.err) == (0, False)
    assert sorted(built.steps()) == ["base", "middle", "top"]
    assert f": {said}" in built.err.splitlines()[-1]
    pushed = writer.do("cache", "push")
    assert sentence(pushed) == "cache push: not all of it was pushed\n  hint: the lines above say why"


def test_a_store_that_takes_nothing(pair: tuple[Small, Small], tmp_path: Path) -> None:
    first, second = pair
    address = f"file://{tmp_path}/cache"
    assert with_cache(first, f"{address}?write").do("cache", "push").status == 0
    full = in_mounts(with_cache(second, address), "mkdir -p outputs; mount -t tmpfs -o size=2m none outputs")
    for words in (("build", "base"), ("cache", "pull")):
        assert "no space left on device" in sentence(full.do(*words)).lower()

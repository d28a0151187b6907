"""A cache over HTTP on loopback: what it is asked, and each fault of a server or of the network by itself."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from sandkube.build.cache import chunks, patience, web
from sandkube.build.cache.kind import Stalled
from sandkube.build.cache.patience import Patience
from sandkube.build.cache.web import Web
from sandkube.errors import Unusable
from sandkube.tree import remove_tree
from tests.caches import Made, Person, index_of, made, pulled
from tests.faults import CacheServer, Fault, Flip, Length, Raw, cache_server, clients_closed
from tests.servers import Cut, Drip, Other, Reset, Stall, Status, only_loopback

SOME = random.Random(5).randbytes(600_000)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    only_loopback(monkeypatch, tmp_path)
    monkeypatch.setattr(web, "STALL", 0.2)
    monkeypatch.setattr(web, "PAUSES", (0.0, 0.0, 0.0))
    with clients_closed(monkeypatch):
        yield


@pytest.fixture
def cache() -> Iterator[CacheServer]:
    with cache_server() as made:
        yield made


@pytest.fixture
def ci(tmp_path: Path) -> Person:
    return Person.at(tmp_path / "ci")


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Made]:
    at = made(tmp_path / "tree", {"a": SOME})
    yield at
    remove_tree(at.tree)


@pytest.fixture
def pushed(ci: Person, one: Made, cache: CacheServer) -> Made:
    assert ci.push(one, cache.address) == [f"cache {cache.address}: 0.6 MB pushed"]
    cache.seen.clear()
    return one


def once(method: str, part: str, fault: Fault, times: int = 1) -> Callable[[str, str], Fault | None]:
    """A fault of the first requests of a method for paths with a part in them."""
    left = [fault] * times

    def chosen(asked: str, path: str) -> Fault | None:
        return left.pop() if asked == method and part in path and left else None

    return chosen


def test_paths(ci: Person, pushed: Made, cache: CacheServer, tmp_path: Path) -> None:
    caches = ci.caches(cache.address)
    assert pulled(caches, pushed.record, tmp_path / "got") == pushed.record.output
    index = index_of(cache.files[f"/ac/{pushed.record.key}"], pushed.record.key)
    listed = [f"/cas/{each.blob.sha256}" for each in chunks.decode(cache.files[f"/cas/{index}"])]
    assert cache.seen[:2] == [("GET", f"/ac/{pushed.record.key}"), ("GET", f"/cas/{index}")]
    assert sorted(cache.paths("GET")[2:]) == sorted(listed)
    assert (cache.paths("PUT"), cache.paths("HEAD")) == ([], [])
    cache.seen.clear()
    assert ci.push(pushed, cache.address) == []
    assert cache.seen == [("GET", f"/ac/{pushed.record.key}"), ("HEAD", f"/cas/{index}")]


@pytest.mark.parametrize("part", ["/ac/", "/cas/"])
@pytest.mark.parametrize(
    "fault",
    [Reset(0), Reset(10), Reset(150), Stall(0), Stall(130), Status(500), Status(503), Status(429), Raw(b""), Raw(b"x")],
    ids=str,
)
def test_what_passes_is_met_by_asking_again(
    ci: Person, pushed: Made, cache: CacheServer, tmp_path: Path, part: str, fault: Fault
) -> None:
    cache.fault = once("GET", part, fault)
    caches = ci.caches(cache.address)
    assert pulled(caches, pushed.record, tmp_path / "got") == pushed.record.output
    assert caches.places[0].faults == 0


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Reset(100), "Connection reset by peer"),
        (Stall(100), "no byte for 0.2 s"),
        (Status(502), "status 502"),
        (Status(403), "status 403"),
        (Other(b"other"), "has other bytes"),
        (Other(b"x" * 700_000), "has other bytes"),
        (Length(1000), "without sending complete message body"),
        (Length(-1), "has other bytes"),
        (Flip(200), "has other bytes"),
        (Raw(b"garbage\r\n\r\n"), "127.0.0.1: "),
    ],
    ids=str,
)
def test_what_stays_is_told_and_is_a_miss(
    ci: Person, pushed: Made, cache: CacheServer, tmp_path: Path, fault: Fault, said: str
) -> None:
    cache.fault = once("GET", "/cas/", fault, times=100)
    caches = ci.caches(cache.address)
    assert pulled(caches, pushed.record, tmp_path / "got") is None
    (line,) = caches.report()
    assert said in line
    assert "\n" not in line


def test_a_blob_that_is_not_there(ci: Person, pushed: Made, cache: CacheServer, tmp_path: Path) -> None:
    cache.fault = once("GET", "/cas/", Status(404), times=100)
    caches = ci.caches(cache.address)
    assert pulled(caches, pushed.record, tmp_path / "got") is None
    assert list(caches.report()) == []


def test_a_cache_that_is_away_is_asked_no_more(ci: Person, cache: CacheServer) -> None:
    cache.fault = once("GET", "", Status(500), times=1000)
    caches = ci.caches(cache.address)
    for number in range(10):
        assert caches.record(f"n{number}", f"{number}" * 64) is None
    assert len(cache.seen) == 9  # three times three
    (said,) = caches.report()
    assert said == f"cache {cache.address}: 3 faults, the first: 127.0.0.1: status 500; not asked any more"


def test_a_body_without_end(ci: Person, pushed: Made, cache: CacheServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then is no silence, and yet has an end."""
    monkeypatch.setattr(web, "PATIENCE", 0.2)
    cache.fault = once("GET", "/ac/", Drip(0.002, after=130), times=100)
    caches = ci.caches(cache.address)
    assert caches.record("one", pushed.record.key) is None
    assert caches.places[0].fault == "127.0.0.1: less than 1024 bytes a second"


def test_headers_without_end(ci: Person, pushed: Made, cache: CacheServer) -> None:
    """All of them have one deadline, however often a byte of them comes."""
    cache.fault = once("GET", "/ac/", Drip(0.05), times=3)
    caches = ci.caches(cache.address)
    assert caches.record("one", pushed.record.key) is None
    assert (caches.places[0].fault, len(cache.paths("GET"))) == ("127.0.0.1: no answer for 0.2 s", 3)


def test_headers_without_end_by_a_proxy(cache: CacheServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{cache.port}")
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{cache.port}")
    cache.fault = once("GET", "", Drip(0.05), times=3)
    with pytest.raises(Unusable, match=r"^cache\.example\.org: no answer for 0\.2 s$"):
        Web({}).get("http://cache.example.org/a", 10)
    assert len(cache.seen) == 3


@pytest.mark.parametrize("after", [0, 10, 130], ids=["nothing", "headers", "body"])
def test_a_silent_cache_is_given_up(
    ci: Person, cache: CacheServer, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """By one request's attempts, and to all who ask."""
    monkeypatch.setattr(patience, "GIVEN_UP", 0.5)
    cache.fault = once("GET", "", Stall(after), times=1000)
    cache.files |= {f"/ac/{number * 64}": b"x" * 1000 for number in "0123456789"}
    caches = ci.caches(f"{cache.address}?write")
    for number in range(10):
        assert caches.record(f"n{number}", f"{number}" * 64) is None
    assert 0 < len(cache.seen) <= 3
    (said,) = caches.report()
    assert said == f"cache {cache.address}: 1 faults, the first: 127.0.0.1: no answer for 0.5 s; not asked any more"
    assert not caches.places[0].writable


def test_a_cache_that_answers_somebody_is_not_silent(cache: CacheServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal is an answer, too."""
    monkeypatch.setattr(patience, "GIVEN_UP", 0.3)
    one = Web({})
    for path in ("a", "b", "c"):
        cache.fault = once("GET", path, Stall(0))
        assert one.get(f"{cache.address}/{path}", 10) is None
        cache.fault = once("GET", path, Status(500), times=3)
        with pytest.raises(Unusable, match="status 500"):
            one.get(f"{cache.address}/{path}", 10)


def test_how_long_a_silence_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many wait at once, the first silence is what counts, and a whole answer ends it."""
    now = [1000.0]
    monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=lambda: now[0]))
    one = Patience()
    assert one.allowed("a", 5) == 5
    now[0] += 5
    one.silent("a", 5)
    now[0] += 7
    assert one.allowed("a", 5) == 2.5
    one.silent("a", 5)
    one.heard()
    assert one.allowed("a", 5) == 5
    now[0] += 65  # a long body, and then a silence
    one.silent("a", 5)
    assert one.allowed("a", 5) == 5
    now[0] += 9.5
    for ask in (lambda: one.silent("a", 5), lambda: one.allowed("a", 5)):
        with pytest.raises(Stalled, match=r"^a: no answer for 14\.5 s$"):
            ask()


@pytest.mark.parametrize("to", ["http://xn--/", "http://a..b/", "http://[/", "file:///etc/passwd", "ftp://x/"])
def test_redirects_that_lead_nowhere(ci: Person, cache: CacheServer, to: str) -> None:
    head = f"HTTP/1.1 302 x\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()
    cache.fault = once("GET", "", Raw(head), times=10)
    caches = ci.caches(cache.address)
    assert caches.record("one", "0" * 64) is None
    assert caches.places[0].faults == 1
    assert "\n" not in caches.places[0].fault


def test_pushing_meets_faults_too(ci: Person, one: Made, cache: CacheServer, tmp_path: Path) -> None:
    cache.fault = once("PUT", "/cas/", Status(503))
    assert ci.push(one, cache.address) == [f"cache {cache.address}: 0.6 MB pushed"]
    assert pulled(ci.caches(cache.address), one.record, tmp_path / "got") == one.record.output
    cache.files.clear()
    cache.fault = once("PUT", "/cas/", Status(405), times=100)
    (said,) = ci.push(one, cache.address)
    assert "1 faults, the first: 127.0.0.1: status 405" in said
    assert not any(path.startswith("/ac/") for path in cache.files)


def test_credentials_come_from_netrc(tmp_path: Path, cache: CacheServer) -> None:
    path = tmp_path / ".netrc"
    path.write_text("machine 127.0.0.1 login me password secret\n")
    assert Web({"HOME": str(tmp_path)}).get(f"{cache.address}/ac/x", 10) is None
    assert cache.credentials[-1] == "Basic bWU6c2VjcmV0"
    path.write_text("machine 127.0.0.1 nonsense\n")
    with pytest.raises(Unusable, match=r"netrc: line \d is not understood"):
        Web({"HOME": str(tmp_path)}).get(f"{cache.address}/ac/x", 10)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(Unusable, match="netrc"):
        Web({"NETRC": str(path)}).get(f"{cache.address}/ac/x", 10)


def test_bytes_that_end_early_without_a_length(ci: Person, pushed: Made, cache: CacheServer, tmp_path: Path) -> None:
    """As HTTP/1.0 has it: nothing tells that there should be more, but the size of the blob."""
    cache.fault = once("GET", "/cas/", Cut(1000))
    caches = ci.caches(cache.address)
    assert pulled(caches, pushed.record, tmp_path / "got") is None or caches.places[0].faults == 0

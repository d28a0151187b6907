"""A shared cache on loopback, as bazel-remote answers, and what stands between it and its clients: any fault."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.servers import Cut, Drip, Other, Reset, Server, Silent, Stall, Status, dripped


@dataclass(frozen=True)
class Flip:
    """Change a byte of the answer, counted from its start, modulo its length."""

    at: int


@dataclass(frozen=True)
class Length:
    """Announce a length that is wrong by so many bytes."""

    by: int


@dataclass(frozen=True)
class Raw:
    """Say this in place of an answer, then close."""

    said: bytes


Fault = Reset | Cut | Stall | Drip | Status | Other | Flip | Length | Raw


@dataclass
class CacheServer:
    """What it holds by path, what goes wrong, and what it did. `after` of faults counts the bytes of whole answers."""

    files: dict[str, bytes] = field(default_factory=dict)
    fault: Callable[[str, str], Fault | None] = lambda _method, _path: None
    """The fault of a request, by its method and path."""
    seen: list[tuple[str, str]] = field(default_factory=list)
    credentials: list[str] = field(default_factory=list)
    """The Authorization of each request, or ""."""
    sent: int = 0
    """Bytes of answers that left."""
    port: int = 0
    waits: threading.Event = field(default_factory=threading.Event)
    """Set as soon as it stalls."""
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def address(self) -> str:
        """http://127.0.0.1:PORT/cache"""
        return f"http://127.0.0.1:{self.port}/cache"

    def paths(self, method: str) -> list[str]:
        """What was asked for by a method, in order."""
        return [path for asked, path in self.seen if asked == method]


class _Handler(Silent):
    cache: CacheServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        with contextlib.suppress(ConnectionError):
            self._do(self.rfile.read(int(self.headers.get("Content-Length", "0"))))

    do_HEAD = do_PUT = do_GET

    def _do(self, data: bytes) -> None:
        path = self.path.removeprefix("/cache")
        with self.cache.lock:
            self.cache.seen.append((self.command, path))
            self.cache.credentials.append(self.headers.get("Authorization", ""))
            fault = self.cache.fault(self.command, path)
        if self.command == "PUT" and fault is None:
            self.cache.files[path] = data
        content = self.cache.files.get(path)
        status = 404 if content is None else 200
        if isinstance(fault, Status):
            status, content = fault.code, b"a page that says what went wrong"
        if isinstance(fault, Other):
            status, content = 200, fault.content
        self._answer(status, b"" if content is None or self.command == "PUT" else content, fault)

    def _answer(self, status: int, body: bytes, fault: Fault | None) -> None:
        size = len(body) + (fault.by if isinstance(fault, Length) else 0)
        length = "" if isinstance(fault, Cut) else f"Content-Length: {max(size, 0)}\r\n"
        text = f"HTTP/1.1 {status} x\r\n{length}Content-Type: application/octet-stream\r\n\r\n"
        whole = text.encode() + (b"" if self.command == "HEAD" else body)
        match fault:
            case Reset(after):
                self._send(whole[: after % len(whole)])
                self.reset()
            case Stall(after):
                self._send(whole[: after % len(whole)])
                self.cache.waits.set()
                self.cache.ended.wait()
            case Drip():
                dripped(whole, fault, self._send, self.cache.ended)
            case Cut(after):
                self._send(whole[: after % len(whole)])
            case Flip(at):
                at %= len(whole)
                self._send(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
            case Raw(said):
                self._send(said)
            case _:
                self._send(whole)
                if not isinstance(fault, Length):
                    return
        self.close_connection = True

    def _send(self, data: bytes) -> None:
        self.wfile.write(data)
        with self.cache.lock:
            self.cache.sent += len(data)


class _Server(Server):
    daemon_threads = True  # connections are kept open by clients that end later
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no event."""


@contextlib.contextmanager
def cache_server() -> Iterator[CacheServer]:
    """GET, HEAD and PUT of `/cache/ac/KEY` and `/cache/cas/SHA256`."""
    cache = CacheServer()
    handler = type("Handler", (_Handler,), {"cache": cache})
    with _Server(("127.0.0.1", 0), handler) as server:
        cache.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield cache
        finally:
            cache.ended.set()
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def clients_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close at the end what clients of this process have opened: a command leaves that to its own end."""
    made: list[httpx.Client] = []

    class Client(httpx.Client):
        def __init__(self, *words: Any, **settings: Any) -> None:
            super().__init__(*words, **settings)
            made.append(self)

    with monkeypatch.context() as patch:
        patch.setattr(httpx, "Client", Client)
        yield
    for each in made:
        each.close()


def any_fault(some: random.Random, cache: CacheServer) -> Fault:
    """One of all kinds."""
    at = some.randrange(1 << 20)
    others = [content for path, content in cache.files.items() if path.startswith("/cas/")]
    return some.choice(
        (
            *(Reset(at), Cut(at), Stall(at), Flip(at), Length(some.choice((-10, -1, 1, 1000, -(1 << 30))))),
            *(Status(404), Status(500), Status(503), Status(403), Status(302), Status(429)),
            *(Other(some.choice(others)), Other(b""), Other(some.randbytes(some.randrange(2000)))),
            *(Raw(b""), Raw(b"HTTP/9"), Raw(some.randbytes(300)), Raw(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n")),
        )
    )


def passing_fault(some: random.Random) -> Fault:
    """One that another attempt mends."""
    at = some.randrange(1 << 20)
    return some.choice((Reset(at), Stall(at), Status(500), Status(503), Status(429), Raw(b"")))

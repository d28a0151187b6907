"""Servers on loopback for tests of fetching: files with ranges and tags, and the faults a network can have.

Each request takes the next fault from its path's list; when the list is empty, the file is served as it is.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import struct
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest


@dataclass(frozen=True)
class Reset:
    """Send this many bytes of the body, then reset the connection (RST)."""

    after: int


@dataclass(frozen=True)
class Cut:
    """Announce no length, send this many bytes, then close as if all had been sent (HTTP/1.0)."""

    after: int


@dataclass(frozen=True)
class Stall:
    """Send this many bytes, then nothing until the client goes away or the server ends."""

    after: int


@dataclass(frozen=True)
class Drip:
    """Send so many bytes (`after`) at once, then one each time the client has taken the last, `pause` seconds apart."""

    pause: float
    after: int = 0


@dataclass(frozen=True)
class Status:
    """Answer with this status and no file."""

    code: int


@dataclass(frozen=True)
class Other:
    """Serve these bytes in place of the file, with their right length."""

    content: bytes


@dataclass(frozen=True)
class Shift:
    """Answer a request for a range with the range that starts this many bytes later."""

    by: int


Fault = Reset | Cut | Stall | Drip | Status | Other | Shift


@dataclass
class Served:
    """What a server has, what goes wrong, and what it was asked: (path, Range header or "")."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    seen: list[tuple[str, str]] = field(default_factory=list)
    port: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def address(self) -> str:
        """http://127.0.0.1:PORT"""
        return f"http://127.0.0.1:{self.port}"

    def ranges(self, path: str) -> list[str]:
        """The Range headers of the requests for a path, in order."""
        return [found for asked, found in self.seen if asked == path]


class Silent(BaseHTTPRequestHandler):
    """A handler that logs nothing and can end a connection as a network does."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def reset(self) -> None:
        """End the connection by a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Both files made from the socket keep it open; a reset is sent when the last is closed.
        self.wfile.close()
        self.rfile.close()
        self.connection.close()


class Server(ThreadingHTTPServer):
    """A server whose handlers may have reset their connection."""

    def shutdown_request(self, request: object) -> None:
        """A request whose handler has reset the connection has nothing left to shut down."""
        with contextlib.suppress(OSError):
            super().shutdown_request(request)  # type: ignore[arg-type]


def dripped(data: bytes, fault: Drip, send: Callable[[bytes], object], ended: threading.Event) -> None:
    """Send as the fault says, until the server ends."""
    send(data[: fault.after])
    for at in range(fault.after, len(data)):
        if ended.wait(fault.pause):
            return
        send(data[at : at + 1])


class _Handler(Silent):
    served: Served

    def _begin(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        path = unquote(self.path)
        self.served.seen.append((path, asked))
        waiting = self.served.faults.get(path, [])
        fault = waiting.pop(0) if waiting else None
        content = self.served.files.get(path)
        if content is None:
            content = self.served.files.get(path.partition("?")[0])
        if isinstance(fault, Other):
            content = fault.content
        if isinstance(fault, Status) or content is None:
            self._begin(fault.code if isinstance(fault, Status) else 404, {"Content-Length": "0"})
            return
        self._answer(content, asked, fault)

    def _answer(self, content: bytes, asked: str, fault: Fault | None) -> None:
        tag = f'"{len(content)}-{sum(content)}"'
        headers = {"ETag": tag}
        body, status = content, 200
        found = re.fullmatch(r"bytes=(\d+)-", asked)
        if found and self.headers.get("If-Range", tag) == tag:
            start = int(found[1]) + (fault.by if isinstance(fault, Shift) else 0)
            if start >= len(content):
                self._begin(416, {"Content-Length": "0", "Content-Range": f"bytes */{len(content)}"})
                return
            body, status = content[start:], 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if isinstance(fault, Cut):
            headers["Connection"] = "close"
        else:
            headers["Content-Length"] = str(len(body))
        if path_type := {".html": "text/html", ".mod": "text/plain"}.get(Path(self.path).suffix):
            headers["Content-Type"] = path_type
        if self.path.endswith("/"):
            headers["Content-Type"] = "text/html"
        self._begin(status, headers)
        self._send(body, fault)

    def _send(self, body: bytes, fault: Fault | None) -> None:
        with contextlib.suppress(ConnectionError):
            match fault:
                case Reset(after):
                    self.wfile.write(body[:after])
                    self.reset()
                case Cut(after):
                    self.wfile.write(body[:after])
                case Stall(after):
                    self.wfile.write(body[:after])
                    self.served.ended.wait()
                case Drip():
                    dripped(body, fault, self.wfile.write, self.served.ended)
                case _:
                    self.wfile.write(body)


class _Server(Server):
    daemon_threads = False
    block_on_close = True


@contextlib.contextmanager
def running(handler: type[BaseHTTPRequestHandler]) -> Iterator[_Server]:
    """Serve on a free port of loopback."""
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def file_server(files: Mapping[str, bytes] | None = None) -> Iterator[Served]:
    """Serve files by path ("/name") with ranges, tags and faults."""
    served = Served(dict(files or {}))

    class Handler(_Handler):
        pass

    Handler.served = served
    with running(Handler) as server:
        served.port = server.server_port
        try:
            yield served
        finally:
            served.ended.set()


@contextlib.contextmanager
def git_server(folder: Path, *, failing: list[int] | None = None) -> Iterator[str]:
    """Serve the bare repositories below a folder by git's smart protocol (`git http-backend`); yields the address.

    `failing`: statuses to answer the first requests with.
    """
    waiting = failing if failing is not None else []

    class Handler(Silent):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if waiting:
                self.send_response(waiting.pop(0))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            path, _, query = self.path.partition("?")
            env = {
                **{"PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(folder), "GIT_HTTP_EXPORT_ALL": "1"},
                **{"REQUEST_METHOD": self.command, "PATH_INFO": path, "QUERY_STRING": query},
                **{"CONTENT_TYPE": self.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(len(body))},
                **{"GIT_PROTOCOL": self.headers.get("Git-Protocol", ""), "GIT_CONFIG_GLOBAL": os.devnull},
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            }
            done = subprocess.run(["git", "http-backend"], env=env, input=body, capture_output=True, check=False)
            head, _, rest = done.stdout.partition(b"\r\n\r\n")
            fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
            self.send_response(int(fields.pop("Status", "200 OK").split()[0]))
            for name, value in fields.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest)

    with running(Handler) as server:
        yield f"http://127.0.0.1:{server.server_port}"


def only_loopback(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """An environment in which no setting of this machine or user reaches a fetch."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith(("PIP_", "GO", "GIT_", "SANDKUBE_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("GOSUMDB", "off")


def zip_of(files: Mapping[str, bytes]) -> bytes:
    """A zip with the same bytes each time it is made."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return sink.getvalue()


def wheel(project: str, version: str) -> tuple[str, bytes]:
    """Name and bytes of a wheel that pip takes."""
    info = f"{project}-{version}.dist-info"
    files = {
        f"{project}/__init__.py": b"",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    return f"{project}-{version}-py3-none-any.whl", zip_of(files)


def go_module(path: str, version: str, files: Mapping[str, str], *, needs: str = "") -> dict[str, bytes]:
    """What a Go module proxy serves of one module, by path."""
    mod = f"module {path}\n\ngo 1.24\n{needs}".encode()
    inner = {f"{path}@{version}/{name}": text.encode() for name, text in files.items()}
    return {
        f"/{path}/@v/{version}.info": f'{{"Version":"{version}"}}'.encode(),
        f"/{path}/@v/{version}.mod": mod,
        f"/{path}/@v/{version}.zip": zip_of({f"{path}@{version}/go.mod": mod} | inner),
    }

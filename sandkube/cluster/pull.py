"""What gives a cluster's containerd parts of images: a registry of our own for it, on streams from the node, that asks
the real ones.

    python -m sandkube.cluster.pull FOLDER

The socket of packets on standard input leads to the node's program in the role `pull` (native/node/relay/pull.go): each
packet from there asks for a stream, and is answered by one end of a pair. It ends when that socket is closed. What the
registries are shown stays here; a pull secret comes along with containerd's request.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sandkube.cluster import development
from sandkube.cluster.configured import configured_of
from sandkube.cluster.place import Place
from sandkube.cluster.settings import REGISTRY
from sandkube.errors import Unusable, one_line
from sandkube.registry.images import Anonymous, Refused, Registries, Wanted, named
from sandkube.registry.tokens import Denied

MODULE = "sandkube.cluster.pull"
_PR_SET_PDEATHSIG = 1
_AT_ONCE = 64  # streams; containerd fetches three layers of an image at once
_BLOCK = 1 << 18
_SENTENCE = 400  # characters
_HANDED_ON = ("Accept", "Accept-Encoding", "Range", "User-Agent")
_HANDED_BACK = (
    *("Content-Type", "Content-Length", "Content-Encoding", "Content-Range", "Accept-Ranges"),
    *("Docker-Content-Digest", "ETag", "Retry-After"),
)


def _log(text: object) -> None:
    """A line of the component's log."""
    sys.stderr.write(f"{one_line(text)}\n")
    sys.stderr.flush()


class _Handler(BaseHTTPRequestHandler):
    """One request of containerd's, on a stream of its own. What goes wrong is said in the status line: an answer to
    HEAD has no other place, and containerd puts it into the pod's events.
    """

    protocol_version = "HTTP/1.1"
    timeout = 60
    registries: Registries

    def do_GET(self) -> None:
        """Pass a part of an image on."""
        began, wanted = time.monotonic(), self._wanted()
        if wanted is None:
            return self._say(404, "no part of an image")
        try:
            with self.registries.open(wanted) as answer:
                self._pass(wanted, answer)
        except Refused as error:
            self._say(403, error.message)
        except Anonymous as error:
            self._say(401, error.message, f'Basic realm="{wanted.registry}"')
        except Denied as error:
            self._say(403, error.message)
        except Unusable as error:
            self._say(502, error.message)
        name = f"{wanted.registry}/{wanted.repository}/{wanted.part}"
        return self.log_message("%s %s: %.2f s", wanted.method, name, time.monotonic() - began)

    do_HEAD = do_GET

    def _wanted(self) -> Wanted | None:
        parts = urlsplit(self.path)
        found, (registry, *more) = named(parts.path), parse_qs(parts.query).get("ns", [""])
        if found is None or more or not REGISTRY.fullmatch(registry):
            return None
        headers = {name: ", ".join(self.headers.get_all(name, ())) for name in _HANDED_ON if name in self.headers}
        return Wanted(self.command, registry, *found, headers, self.headers.get("Authorization", ""))

    def _say(self, status: int, sentence: str, challenge: str = "") -> None:
        line = one_line(sentence).encode("ascii", "replace").decode()[:_SENTENCE]
        body = json.dumps({"errors": [{"code": "DENIED" if status < 500 else "UNKNOWN", "message": line}]}).encode()
        self.log_message("%d %s", status, line)
        self._begin(status, line, {"Content-Type": "application/json", "Content-Length": str(len(body))}, challenge)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _begin(self, status: int, line: str, headers: dict[str, str], challenge: str = "") -> None:
        self.close_connection = True
        self.send_response_only(status, line)
        for name, value in {**headers, **({"WWW-Authenticate": challenge} if challenge else {})}.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()

    def _pass(self, wanted: Wanted, answer: http.client.HTTPResponse) -> None:
        headers = {name: answer.headers[name] for name in _HANDED_BACK if name in answer.headers}
        line = http.client.responses.get(answer.status, "")
        if answer.status >= 400:
            line = f"{line or 'refused'}, says {wanted.registry}"
            self.log_message("%d %s", answer.status, line)
        length = headers.get("Content-Length", "")
        chunked = not length and self.command != "HEAD"
        self._begin(answer.status, line, headers | ({"Transfer-Encoding": "chunked"} if chunked else {}))
        if self.command == "HEAD":
            return
        sent = 0
        while piece := self._piece(answer):
            sent += len(piece)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if not chunked and sent != int(length):
            raise ConnectionAbortedError(f"{wanted.registry} ended after {sent} of {length} bytes")
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    @staticmethod
    def _piece(answer: http.client.HTTPResponse) -> bytes:
        try:
            return answer.read(_BLOCK)
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionAbortedError(str(error)) from None

    def log_message(self, format: str, *words: Any) -> None:  # noqa: A002 - the library's own name
        """A line of the component's log."""
        _log(format % words)


def serve(stream: socket.socket, registries: Registries) -> None:
    """Answer the request on a stream, and close it; one that is cut short ends without the rest."""
    handler = type("Handler", (_Handler,), {"registries": registries})
    with stream:
        try:
            handler(stream, ("node", 0), None)
        except ConnectionAbortedError as error:
            _log(error)
        except (ConnectionError, TimeoutError):  # containerd went away
            return


def _served(stream: socket.socket, registries: Registries, slots: threading.Semaphore) -> None:
    try:
        serve(stream, registries)
    except Exception as error:  # noqa: BLE001 - of one request, which ends with it
        _log(f"a request ended: {error!r}")
    finally:
        slots.release()


def answer_all(control: socket.socket, registries: Registries) -> None:
    """Hand a stream to the node for each packet, until its end is closed."""
    slots = threading.Semaphore(_AT_ONCE)
    while control.recv(16):
        slots.acquire()
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(control, [b"\1"], [theirs.fileno()])
        threading.Thread(target=_served, args=(ours, registries, slots), daemon=True).start()


def main(arguments: list[str]) -> int:
    """Serve one cluster, and end with its supervisor."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return 1
    configured = configured_of(Place(Path(arguments[0])))
    wanted, own = configured.pull, configured.registry
    plain = [development.address(own.port)] if own.enabled else []
    allowed = wanted.from_ if wanted.enabled else plain
    registries = Registries(os.environ, allowed, wanted.mirrors, wanted.authorities, plain)
    with socket.socket(fileno=0) as control, contextlib.suppress(ConnectionError):
        answer_all(control, registries)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

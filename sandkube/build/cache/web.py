"""HTTP as caches need it: small bodies, bounded, asked for again after a fault; credentials come from ~/.netrc, unless
who asks shows its own.
"""

from __future__ import annotations

import contextlib
import io
import netrc
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from sandkube.build.cache.kind import Stalled
from sandkube.build.cache.patience import Patience
from sandkube.errors import Unusable
from sandkube.later import later
from sandkube.registry.logins import netrc_file
from sandkube.run import go_on, wait

if TYPE_CHECKING:
    import httpx
else:
    httpx = later("httpx")

T = TypeVar("T")
STALL = 5.0  # seconds until an answer begins, and without a byte of its body
PATIENCE, SLOWEST = 5.0, 1024  # seconds after which a body must come faster than so many bytes a second
PAUSES = (0.0, 0.1, 0.5)  # seconds before each attempt
LONGEST_PAUSE = 10.0  # seconds: a server that asks for more (Retry-After) is left alone
CONNECTIONS = 16
_PASSING = (408, 425, 429)


class _Passing(Exception):
    """A fault that another attempt may mend, after a pause in seconds that the server asked for."""

    def __init__(self, fault: str, pause: float = 0.0) -> None:
        super().__init__(fault)
        self.pause = pause


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said: `body` is one byte longer than was allowed where it has more than that.

    `address`: who said it, after all redirects.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    address: str


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds; a date counts as nothing."""
    said = headers.get("Retry-After", "")
    return float(said) if said.isascii() and said.isdigit() else 0.0


def _check_passing(response: httpx.Response) -> None:
    if response.status_code >= 500 or response.status_code in _PASSING:
        raise _Passing(f"status {response.status_code}", _retry_after(response.headers))


def _pieces(response: httpx.Response, limit: int) -> Iterator[bytes]:
    """A body as it comes, not much more than `limit` bytes of it. Raises Stalled for one that comes too slowly."""
    size, until = 0, time.monotonic() + PATIENCE
    for piece in response.iter_raw():
        go_on()
        yield piece
        size += len(piece)
        if size > limit:
            return
        if time.monotonic() > until + size / SLOWEST:
            raise Stalled(f"{response.url.host}: less than {SLOWEST} bytes a second")


def _take(response: httpx.Response, limit: int, sink: BinaryIO) -> None:
    """Write a body to a file, in place of what an attempt before this one has left there."""
    sink.seek(0)
    sink.truncate()
    for piece in _pieces(response, limit):
        sink.write(piece)


@contextlib.contextmanager
def _content(data: bytes | Path | None) -> Iterator[bytes | BinaryIO | None]:
    """The body of a request, as httpx takes it; its length is told in either case."""
    if not isinstance(data, Path):
        yield data
        return
    with data.open("rb") as stream:
        yield stream


def _why(error: OSError) -> str:
    """What is wrong with a file of certificates."""
    return "holds no certificate" if isinstance(error, ssl.SSLError) else str(error.strerror)


class Web:
    """One client for all that is asked of one cache. Faults are Unusable, with the host and no credential in it.

    `authorities`: files of certificates that count beside the usual ones. `by_netrc`: whether ~/.netrc is used.
    """

    def __init__(
        self, environment: Mapping[str, str] = os.environ, *, authorities: Sequence[Path] = (), by_netrc: bool = True
    ) -> None:
        self._environment = environment
        self._authorities = authorities
        self._netrc = netrc_file(environment) if by_netrc else None
        self._patience = Patience()
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None

    def _opened(self) -> httpx.Client:
        with self._lock:
            if self._client is None:
                self._client = httpx.Client(
                    timeout=httpx.Timeout(STALL, pool=None),
                    limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
                    auth=self._auth(),
                    verify=self._verifier(),
                    follow_redirects=True,
                )
                self._patience.bound(self._client)
            return self._client

    def _auth(self) -> httpx.Auth | None:
        try:
            return httpx.NetRCAuth(str(self._netrc)) if self._netrc else None
        except netrc.NetrcParseError as error:
            raise Unusable(
                f"{self._netrc}: line {error.lineno} is not understood"
            ) from None  # nor told: it may be a password
        except (OSError, UnicodeError) as error:
            raise Unusable(f"{self._netrc} cannot be read: {error}") from None

    def _verifier(self) -> ssl.SSLContext:
        try:
            context = httpx.create_ssl_context()
        except OSError as error:  # it says no name
            name = "SSL_CERT_FILE" if os.environ.get("SSL_CERT_FILE") else "SSL_CERT_DIR"
            raise Unusable(f"{name}: {_why(error)}") from None
        for each in self._authorities:
            try:
                context.load_verify_locations(each)
            except OSError as error:
                raise Unusable(f"{each}: {_why(error)}") from None
        return context

    def ask(
        self,
        method: str,
        address: str,
        *,
        limit: int = 0,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One answer, whatever its status; faults that pass are met by asking again. Raises Unusable."""
        return self.tried(address, lambda: self.once(method, address, limit=limit, data=data, headers=headers))

    def once(
        self,
        method: str,
        address: str,
        *,
        limit: int = 0,
        data: bytes | Path | None = None,
        headers: Mapping[str, str] | None = None,
        longer: float = 0.0,
        sink: BinaryIO | None = None,
    ) -> Answer:
        """As `ask`, in one attempt, to be called within `tried`. `longer`: seconds until it answers, beside `STALL`.

        `data`: a body, or the file that holds it. `sink`: an empty file, where the body of an answer with status 200
        goes in place of the answer's `body`.
        """
        host = httpx.URL(address).host
        stall = STALL + longer if longer else self._patience.allowed(host, STALL)
        plain = {"Accept-Encoding": "identity", **(headers or {})}
        timeout = httpx.Timeout(stall, connect=STALL, pool=None)
        kept, late = io.BytesIO(), f"no answer for {stall:.1f} s"
        try:
            with _content(data) as content, contextlib.ExitStack() as stack:
                with self._patience.until_headers(stall):
                    asked = self._opened().stream(method, address, content=content, headers=plain, timeout=timeout)
                    response = stack.enter_context(asked)
                late = f"no byte for {stall:.1f} s"
                _check_passing(response)
                _take(response, limit, sink if sink is not None and response.status_code == 200 else kept)
        except httpx.TimeoutException:
            if not longer:
                self._patience.silent(host, stall)
            raise _Passing(late) from None
        except (_Passing, httpx.TransportError):
            self._patience.heard()
            raise
        self._patience.heard()
        return Answer(response.status_code, response.headers, kept.getvalue()[: limit + 1], str(response.url))

    def tried(self, address: str, once: Callable[[], T]) -> T:
        """What `once` gives, called again after a fault that may pass. Raises Unusable."""
        try:
            host, fault, asked = httpx.URL(address).host, "", 0.0
        except (httpx.InvalidURL, UnicodeError):
            raise Unusable(f"an address that is none: {address!r:.80}") from None
        for pause in PAUSES:
            wait(max(pause, asked))
            try:
                return once()
            except _Passing as passing:
                fault, asked = str(passing), passing.pause
                if asked > LONGEST_PAUSE:
                    raise Unusable(f"{host}: {fault}, for {asked:g} s") from None
            except httpx.TransportError as error:
                fault, asked = str(error) or type(error).__name__, 0.0
            except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:  # ValueError: names that idna refuses
                raise Unusable(f"{host}: {error}") from None
        raise Unusable(f"{host}: {fault}")

    def get(self, address: str, limit: int) -> bytes | None:
        """A body of `limit` bytes at most, and one more where it is longer; None where there is nothing."""
        answer = self.ask("GET", address, limit=limit)
        if answer.status == 404:
            return None
        return self.expect(address, answer, 200).body

    def has(self, address: str, size: int | None = None) -> bool:
        """Whether something is there, in that size if one is given and the server tells one."""
        answer = self.ask("HEAD", address)
        if answer.status == 404:
            return False
        self.expect(address, answer, 200)
        return size is None or answer.headers.get("Content-Length", str(size)) == str(size)

    def put(self, address: str, data: bytes) -> None:
        """Store a body."""
        self.expect(address, self.ask("PUT", address, data=data), 200, 201, 204)

    def receive(self, address: str, sink: BinaryIO, limit: int) -> bool:
        """`get` to an empty file, for bodies of any size; whether there is anything."""
        answer = self.tried(address, lambda: self.once("GET", address, limit=limit, sink=sink))
        return answer.status != 404 and self.expect(address, answer, 200).status == 200

    def send(self, address: str, path: Path) -> None:
        """`put` of a file of any size."""
        answer = self.tried(address, lambda: self.once("PUT", address, data=path))
        self.expect(address, answer, 200, 201, 204)

    def expect(self, address: str, answer: Answer, *wanted: int) -> Answer:
        """An answer with one of these statuses. Raises Unusable for any other."""
        if answer.status not in wanted:
            raise Unusable(f"{httpx.URL(address).host}: status {answer.status}")
        return answer

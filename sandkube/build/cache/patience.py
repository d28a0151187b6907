"""How long a cache is waited for: an answer's headers have one deadline in all, and a cache that is silent to everybody
is given up.

httpx bounds each read by itself, so that headers which come byte by byte would have no end. The reads are bounded here,
where httpcore lets its connections be made by somebody else (https://www.encode.io/httpcore/network-backends/).
"""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from sandkube.build.cache.kind import Stalled
from sandkube.later import later

if TYPE_CHECKING:
    import httpcore
    import httpx
else:
    httpcore = later("httpcore")

GIVEN_UP = 14.5  # seconds without an answer to anybody


class _Budget(threading.local):
    """Seconds that this thread waits still until the headers of an answer are there; None while it waits for none."""

    left: float | None = None

    @contextlib.contextmanager
    def spending(self, timeout: float | None, late: type[Exception]) -> Iterator[float | None]:
        """The time that one call may take. Raises `late` where nothing is left."""
        if self.left is None:
            yield timeout
            return
        if self.left <= 0:
            raise late
        began = time.monotonic()
        try:
            yield self.left if timeout is None else min(timeout, self.left)
        finally:
            self.left -= time.monotonic() - began


class _Stream:
    """As httpcore.NetworkStream."""

    def __init__(self, inner: httpcore.NetworkStream, budget: _Budget) -> None:
        self._inner, self._budget = inner, budget

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with self._budget.spending(timeout, httpcore.ReadTimeout) as allowed:
            return self._inner.read(max_bytes, allowed)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, timeout)  # who takes a body has heard of us

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> _Stream:
        with self._budget.spending(timeout, httpcore.ConnectTimeout) as allowed:
            return _Stream(self._inner.start_tls(ssl_context, server_hostname, allowed), self._budget)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Backend:
    """As httpcore.NetworkBackend."""

    def __init__(self, budget: _Budget) -> None:
        self._inner, self._budget = httpcore.SyncBackend(), budget

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> _Stream:
        with self._budget.spending(timeout, httpcore.ConnectTimeout) as allowed:
            made = self._inner.connect_tcp(host, port, allowed, local_address, socket_options)
        return _Stream(made, self._budget)


class Patience:
    """What is waited for answers of one cache. Thread-safe."""

    def __init__(self) -> None:
        self._budget = _Budget()
        self._lock = threading.Lock()
        self._since: float | None = None
        """When a silence began that no whole answer has ended."""

    def bound(self, client: httpx.Client) -> None:
        """Have the connections of a client made here, those by a proxy as well."""
        for transport in (client._transport, *client._mounts.values()):
            pool = getattr(transport, "_pool", None)
            if pool is not None:  # httpx hands on all else that a pool takes, but not this
                pool._network_backend = _Backend(self._budget)

    @contextlib.contextmanager
    def until_headers(self, seconds: float) -> Iterator[None]:
        """Around a request until the headers of its answer are there: it may wait so long in all, beside the time that
        sending takes.
        """
        self._budget.left = seconds
        try:
            yield
        finally:
            self._budget.left = None

    def allowed(self, host: str, stall: float) -> float:
        """The silence in seconds that a request may meet: `stall`, or less where the cache is given up before. Raises
        Stalled.
        """
        with self._lock:
            left = stall if self._since is None else self._since + GIVEN_UP - time.monotonic()
        if left <= 0:
            raise self._stalled(host)
        return min(stall, left)

    def heard(self) -> None:
        """It gave a whole answer, or refused to."""
        with self._lock:
            self._since = None

    def silent(self, host: str, seconds: float) -> None:
        """It was silent to a request for so long. Raises Stalled where that was so to all requests for long enough."""
        with self._lock:
            now = time.monotonic()
            self._since = now - seconds if self._since is None else self._since
            if now < self._since + GIVEN_UP:
                return
        raise self._stalled(host)

    def _stalled(self, host: str) -> Stalled:
        return Stalled(f"{host}: no answer for {GIVEN_UP:g} s")

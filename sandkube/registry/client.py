"""A registry as one asks it for an image: by this machine's proxies and certificates, redirects followed."""

from __future__ import annotations

import contextlib
import http.client
import ssl
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from sandkube.errors import Unusable
from sandkube.registry.certificates import authorities

_SILENCE = 30.0  # seconds


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said, with a body that was read."""

    status: int
    body: bytes


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Keeps the method, and never goes from TLS to none."""

    def redirect_request(  # noqa: PLR0913, PLR0917 - the library's own signature
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        parts = urlsplit(newurl)
        if parts.scheme != "https" and (parts.scheme, req.type) != ("http", "http"):
            raise Unusable(f"{req.host} redirects to {parts.scheme}://{parts.hostname}, which is not https")
        made = super().redirect_request(req, fp, code, msg, headers, newurl)
        if made is not None:
            made.method = req.get_method()
        return made


def _why(error: BaseException, host: str) -> str:
    """What is wrong with a server, as a sentence."""
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"{host}: its certificate does not count here: {reason.verify_message}"
    if isinstance(reason, ssl.SSLError):
        return f"{host}: it speaks no TLS ({(reason.reason or 'no reason given').lower().replace('_', ' ')})"
    if isinstance(reason, TimeoutError):
        return f"{host}: no answer for {_SILENCE:.0f} s"
    if isinstance(reason, OSError):
        return f"{host}: {reason.strerror or reason}"
    return f"{host}: {reason or type(reason).__name__}"


class Client:
    """What asks one registry, HOST or HOST:PORT. `more` are certificates of authorities beside this machine's, as PEM.

    Thread-safe. Faults are Unusable.
    """

    def __init__(self, host: str, environment: Mapping[str, str], more: str = "") -> None:
        self._host = host
        context = ssl.create_default_context()
        files = [*authorities(host, environment)]
        try:
            for each in files:
                context.load_verify_locations(each)
            if more:
                context.load_verify_locations(cadata=more)
        except OSError as error:
            where = ", ".join(map(str, files)) or "the authorities of --pull-authority"
            raise Unusable(f"{where}: {error.strerror or error}") from None
        self._opener = urllib.request.build_opener(_Redirects, urllib.request.HTTPSHandler(context=context))

    @contextlib.contextmanager
    def open(self, method: str, address: str, headers: Mapping[str, str]) -> Iterator[http.client.HTTPResponse]:
        """An answer, whatever its status, its body to be read. Authorization is shown to this address only."""
        request = urllib.request.Request(address, method=method)  # noqa: S310 - http and https only, by its callers
        for name, value in headers.items():
            add = request.add_unredirected_header if name == "Authorization" else request.add_header
            add(name, value)
        try:
            answer = self._opener.open(request, timeout=_SILENCE)
        except HTTPError as error:
            answer = error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unusable(_why(error, self._host)) from None
        with answer:
            yield answer

    def ask(self, method: str, address: str, *, limit: int, headers: Mapping[str, str]) -> Answer:
        """One answer, `limit` bytes of its body and one more."""
        with self.open(method, address, headers) as answer:
            try:
                return Answer(answer.status, answer.read(limit + 1))
            except (OSError, http.client.HTTPException) as error:
                raise Unusable(_why(error, self._host)) from None

"""What a registry is shown: nothing until it asks for something, then a login, or a token that a login gives.

https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlencode, urlsplit

from sandkube.documents import parse_json
from sandkube.errors import Unusable
from sandkube.registry.logins import Login

_LIMIT = 1 << 20  # bytes of an answer with a token
_LIFE = 60  # seconds of a token that says nothing of it, or nothing sane
_LONGEST = 1 << 31
_USED = 0.8  # of its life, then another one is asked for
_WORD = re.compile(
    r'(?P<scheme>[A-Za-z]+)\s+(?=[A-Za-z_]+\s*=)|(?P<key>[A-Za-z_]+)\s*=\s*(?:"(?P<quoted>[^"]*)"|(?P<bare>[^\s,"]+))'
)
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750; else an error of the header's could show it


def is_loopback(host: str | None) -> bool:
    """Whether a host is this machine by its name or address."""
    return host is not None and (host in ("localhost", "::1") or bool(re.fullmatch(r"127(\.\d+){3}", host)))


def challenges(header: str) -> Mapping[str, Mapping[str, str]]:
    """What a header WWW-Authenticate asks for: parameters by scheme, in lower case."""
    found: dict[str, dict[str, str]] = {}
    rows: dict[str, str] = {}
    for each in _WORD.finditer(header):
        if each["scheme"]:
            rows = found.setdefault(each["scheme"].lower(), {})
        else:
            rows[each["key"].lower()] = each["bare"] or each["quoted"] or ""
    return found


class Said(Protocol):
    """An answer: `body` is one byte longer than was allowed where it has more than that."""

    @property
    def status(self) -> int: ...  # noqa: D102

    @property
    def body(self) -> bytes: ...  # noqa: D102


class Asks(Protocol):
    """What asks servers. Raises Unusable."""

    def ask(self, method: str, address: str, *, limit: int, headers: Mapping[str, str]) -> Said:
        """One answer, whatever its status."""
        ...


class Denied(Unusable):
    """A login, or the want of one, is not good enough."""


@dataclass(frozen=True, slots=True, repr=False)
class _Held:
    header: str
    until: float


class Tokens:
    """Values of the Authorization header for one repository, to read or to write. Thread-safe.

    `find` is asked once, when a registry wants a login; `clock` tells seconds.
    """

    def __init__(
        self, web: Asks, repository: str, find: Callable[[], Login | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._web = web
        self._repository = repository
        self._find = find
        self._clock = clock
        self._lock = threading.Lock()
        self._asked: Mapping[str, Mapping[str, str]] = {}
        self._held: dict[bool, _Held] = {}
        self._login: Login | None = None
        self._looked = False

    def header(self, address: str, *, write: bool) -> str:
        """What to show of one's own accord: "" before the registry at an address has asked. Raises Unusable."""
        with self._lock:
            held = self._held.get(write)
            if held is not None and self._clock() < held.until:
                return held.header
            return self._new(address, write) if self._asked else ""

    def again(self, address: str, refused: str, asks: str, *, write: bool) -> str:
        """What to show after a refusal; what was refused where there is nothing else. Raises Unusable."""
        with self._lock:
            held = self._held.get(write)
            if held is not None and held.header != refused:  # another thread was first
                return held.header
            self._asked = challenges(asks)
            return self._new(address, write)

    def told(self) -> str:
        """Whose login was shown, for a sentence."""
        return f"with the login of {self._login.origin}" if self._login else "without a login, for none was found"

    def _new(self, address: str, write: bool) -> str:
        if not self._looked:
            self._login, self._looked = self._find(), True
        if "bearer" in self._asked:
            self._held[write] = self._token(address, self._asked["bearer"], write)
        elif "basic" in self._asked:
            self._held[write] = _Held(self._login.basic() if self._login else "", float("inf"))
        else:
            raise Unusable(f"{urlsplit(address).hostname}: wants a login of a kind that is not known")
        return self._held[write].header

    def _token(self, address: str, asked: Mapping[str, str], write: bool) -> _Held:
        host, realm = urlsplit(address).hostname, asked.get("realm", "")
        try:
            parts = urlsplit(realm)
        except ValueError:
            parts = urlsplit("")
        in_the_open = parts.scheme == "http" and address.startswith("http:") and is_loopback(parts.hostname)
        if not parts.hostname or not (parts.scheme == "https" or in_the_open):
            raise Unusable(f"{host}: wants the login sent to an address that is not https")
        scope = f"repository:{self._repository}:{'pull,push' if write else 'pull'}"
        query = {**({"service": asked["service"]} if "service" in asked else {}), "scope": scope}
        headers = {"Authorization": self._login.basic()} if self._login else {}
        before = self._clock()
        place = f"{realm}{'&' if parts.query else '?'}{urlencode(query)}"
        answer = self._web.ask("GET", place, limit=_LIMIT, headers=headers)
        if answer.status != 200:
            kind = Denied if answer.status in (401, 403) else Unusable
            raise kind(f"{parts.hostname}: gives no token, status {answer.status}, {self.told()}")
        try:
            said = parse_json(answer.body)
            token, life = said.get("token") or said.get("access_token"), said.get("expires_in")
        except (ValueError, AttributeError):
            token, life = None, None
        if not (isinstance(token, str) and _TOKEN.fullmatch(token)):
            raise Unusable(f"{parts.hostname}: gives no token")
        return _Held(
            f"Bearer {token}", before + _USED * (life if isinstance(life, int) and 0 < life < _LONGEST else _LIFE)
        )

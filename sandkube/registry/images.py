"""Parts of images, from registries that may be asked and from mirrors of theirs, with this user's logins.

A registry is what an image's name begins with, HOST or HOST:PORT; docker.io has its servers elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import http.client
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from sandkube.errors import Unusable
from sandkube.registry import logins
from sandkube.registry.client import Client
from sandkube.registry.logins import Login
from sandkube.registry.tokens import Denied, Tokens

_SERVERS = {"docker.io": ".".join(("registry-1", "docker", "io"))}
"""Where a registry is that is not at its name. (A file names no server of others whole: tests/unit/test_readme.py.)"""
_LOGINS = {"docker.io": ("docker.io", "index.docker.io", "https://index.docker.io/v1/")}
"""docker.io, as podman and docker keep its logins."""
_REMEMBERED = 256  # repositories with their tokens

PART = r"manifests/[A-Za-z0-9_][\w.-]{0,127}|(?:manifests|blobs)/[a-z0-9]+(?:[+._-][a-z0-9]+)*:[A-Fa-f0-9]{32,128}"
REPOSITORY = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"


class Refused(Unusable):
    """A registry that may not be asked."""


class Anonymous(Unusable):
    """A registry that wants a login, and none was given."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A part of an image: a manifest or a blob of a repository. `shown` is a value of Authorization, or ""."""

    method: str
    registry: str
    repository: str
    part: str
    headers: Mapping[str, str] = field(default_factory=dict)
    shown: str = ""


def _given(shown: str) -> Login | None:
    """The login of a pod's pull secret."""
    scheme, _, text = shown.partition(" ")
    try:
        name, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return Login(name, password, "the pull secret") if scheme.lower() == "basic" and colon else None


def _found(host: str, repository: str, environment: Mapping[str, str]) -> Login | None:
    names = _LOGINS.get(host, (host,))
    return next(filter(None, (logins.find(each, repository, environment) for each in names)), None)


class Registries:
    """Those that may be asked: `allowed` are HOST, HOST:PORT, or http://HOST:PORT for one without TLS; none for all
    that speak TLS. `mirrors` are addresses that are asked before a registry itself, `plain` are registries that may be
    asked in any case, and without TLS. Thread-safe.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        allowed: Sequence[str] = (),
        mirrors: Mapping[str, Sequence[str]] | None = None,
        authorities: str = "",
        plain: Sequence[str] = (),
    ) -> None:
        self._environment = environment
        self._plain = frozenset(plain)
        self._allowed = frozenset(allowed)
        self._mirrors = mirrors or {}
        self._authorities = authorities
        self._lock = threading.Lock()
        self._clients: dict[str, Client] = {}
        self._tokens: dict[tuple[str, str], Tokens] = {}

    def _places(self, registry: str) -> list[str]:
        """Addresses to ask, in order. Raises Refused."""
        plain = registry in self._plain or f"http://{registry}" in self._allowed
        if self._allowed and not plain and registry not in self._allowed:
            raise Refused(f"this cluster may not pull from {registry}; run-cluster --pull-from {registry} allows it")
        server = _SERVERS.get(registry, registry)
        return [*self._mirrors.get(registry, ()), f"{'http' if plain else 'https'}://{server}"]

    @contextlib.contextmanager
    def open(self, wanted: Wanted) -> Iterator[http.client.HTTPResponse]:
        """The answer of the first place that has a part, else of the last one. Raises Unusable."""
        *mirrors, last = self._places(wanted.registry)
        with contextlib.ExitStack() as stack:
            for each in mirrors:
                with contextlib.suppress(Unusable):
                    answer = stack.enter_context(self._asked(each, wanted, ""))
                    if answer.status < 400:
                        yield answer
                        return
                    stack.close()
            yield stack.enter_context(self._asked(last, wanted, wanted.shown))

    @contextlib.contextmanager
    def _asked(self, place: str, wanted: Wanted, shown: str) -> Iterator[http.client.HTTPResponse]:
        parts = urlsplit(place)
        prefix = f"{parts.path.strip('/')}/".lstrip("/")
        repository = prefix + wanted.repository
        base = f"{parts.scheme}://{parts.netloc}/v2/{repository}"
        client = self._client(parts.netloc)
        host = wanted.registry if parts.netloc == _SERVERS.get(wanted.registry) else parts.netloc
        given = _given(shown)
        tokens = self._remembered(
            (base, shown),
            lambda: Tokens(client, repository, lambda: given or _found(host, repository, self._environment)),
        )

        def ask(authorization: str) -> contextlib.AbstractContextManager[http.client.HTTPResponse]:
            own = {"Authorization": authorization} if authorization else {}
            return client.open(wanted.method, f"{base}/{wanted.part}", {**wanted.headers, **own})

        with contextlib.ExitStack() as stack:
            try:
                first = tokens.header(base, write=False)
                answer = stack.enter_context(ask(first))
                if answer.status == 401:
                    asks = answer.headers.get("WWW-Authenticate", "")
                    stack.close()
                    answer = stack.enter_context(ask(tokens.again(base, first, asks, write=False)))
                if answer.status == 401:
                    raise Denied(f"{host} refuses {wanted.repository}, {tokens.told()}")
            except Denied as denied:
                raise (denied if shown else Anonymous(denied.message)) from None
            yield answer

    def _client(self, host: str) -> Client:
        with self._lock:
            if host not in self._clients:
                self._clients[host] = Client(host, self._environment, self._authorities)
            return self._clients[host]

    def _remembered(self, key: tuple[str, str], make: Callable[[], Tokens]) -> Tokens:
        with self._lock:
            if len(self._tokens) >= _REMEMBERED:
                self._tokens.clear()
            return self._tokens.setdefault(key, make())


_PATH = re.compile(rf"/v2/(?P<repository>{REPOSITORY})/(?P<part>{PART})", re.ASCII)


def named(path: str) -> tuple[str, str] | None:
    """The repository and the part that a path names."""
    found = _PATH.fullmatch(path)
    return (found["repository"], found["part"]) if found and len(path) < 1024 else None

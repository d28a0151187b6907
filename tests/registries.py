"""A small OCI registry on loopback, with the ways in which real ones differ and fail."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from tests.servers import Silent, running

USER, PASSWORD = "someone", "sesame-never-shown"


@dataclass(frozen=True)
class Asked:
    """A request: its method, path with query, and header Authorization or ""."""

    method: str
    path: str
    shown: str


@dataclass
class Registry:
    """What a registry has, how it behaves, and what it was asked."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    wants: str = ""
    """"", "basic" or "bearer"."""
    life: int | None = 300
    tokens: set[str] = field(default_factory=set)
    given: int = 0
    location: str = "/v2/{name}/blobs/uploads/u{number}?state=a%2Bb"
    storage: str = ""
    """Where blobs are redirected to."""
    realm: str = ""
    faults: dict[str, list[tuple[int, dict[str, str]]]] = field(default_factory=dict)
    """Statuses and headers that are answered instead, by method and path; status 0 closes the connection."""
    seen: list[Asked] = field(default_factory=list)
    uploads: int = 0
    port: int = 0

    @property
    def address(self) -> str:
        """http://127.0.0.1:PORT"""
        return f"http://127.0.0.1:{self.port}"

    @property
    def cache(self) -> str:
        """The address of a cache in it."""
        return f"oci://127.0.0.1:{self.port}/team/cache"

    def asked(self, method: str, part: str = "") -> list[Asked]:
        """Requests by method, with some part of a path."""
        return [each for each in self.seen if each.method == method and part in each.path]


class Handler(Silent):
    registry: Registry

    def answer(self, status: int, body: bytes = b"", /, **headers: str) -> None:
        """Send an answer; underscores in names of headers are dashes."""
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_any(self) -> None:
        registry = self.registry
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        shown = self.headers.get("Authorization", "")
        registry.seen.append(Asked(self.command, self.path, shown))
        path = urlsplit(self.path).path
        if waiting := registry.faults.get(f"{self.command} {path}"):
            status, headers = waiting.pop(0)
            if status == 0:
                self.close_connection = True
                return
            self.answer(status, b"", **headers)
        elif path == "/token":
            self.token(shown)
        elif not self.allowed(shown):
            self.answer(401, b'{"errors":[{"code":"UNAUTHORIZED"}]}', WWW_Authenticate=self.challenge())
        else:
            self.serve(path, body)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def challenge(self) -> str:
        if self.registry.wants == "basic":
            return 'Basic realm="a, b"'
        realm = self.registry.realm or f"{self.registry.address}/token"
        return f'Bearer realm="{realm}",service="here, and there",scope="repository:team/cache:pull"'

    def basic(self, shown: str) -> bool:
        return shown == f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"

    def allowed(self, shown: str) -> bool:
        if self.registry.wants == "bearer":
            return shown.removeprefix("Bearer ") in self.registry.tokens
        return self.basic(shown) if self.registry.wants == "basic" else True

    def token(self, shown: str) -> None:
        if not self.basic(shown):
            self.answer(401, b"{}")
            return
        self.registry.given += 1
        token = f"token.{self.registry.given}"
        self.registry.tokens.add(token)
        said = {"token": token} | ({} if self.registry.life is None else {"expires_in": self.registry.life})
        self.answer(200, json.dumps(said).encode())

    def serve(self, path: str, body: bytes) -> None:
        registry = self.registry
        found = re.fullmatch(r"/v2/([a-z0-9/]+)/(blobs|manifests)/(.*)", path)
        if found is None:
            self.answer(404)
        elif self.command == "POST":
            registry.uploads += 1
            self.answer(202, Location=registry.location.format(name=found[1], number=registry.uploads))
        elif self.command == "PUT" and found[2] == "blobs":
            query = parse_qs(urlsplit(self.path).query)
            sound = query.get("digest") == [f"sha256:{hashlib.sha256(body).hexdigest()}"] and query["state"] == ["a+b"]
            if sound:
                registry.blobs[query["digest"][0]] = body
            self.answer(201 if sound else 400)
        elif self.command == "PUT":
            registry.manifests[found[3]] = body
            registry.types[found[3]] = self.headers["Content-Type"]
            self.answer(201)
        else:
            self.read(found[2], found[3])

    def read(self, kind: str, name: str) -> None:
        data = (self.registry.blobs if kind == "blobs" else self.registry.manifests).get(name)
        if data is None:
            self.answer(404, b'{"errors":[{"code":"NAME_UNKNOWN"}]}')
        elif kind == "blobs" and self.registry.storage:
            self.answer(307, Location=f"{self.registry.storage}/v2/storage/blobs/{name}")
        else:
            told = {"Content_Type": self.registry.types[name]} if name in self.registry.types else {}
            self.answer(200, data, **told)


def handler(one: Registry) -> type[Handler]:
    """What answers for a registry."""

    class Own(Handler):
        registry = one

    return Own


@contextlib.contextmanager
def registry() -> Iterator[Registry]:
    """Serve an empty one."""
    one = Registry()

    with running(handler(one)) as server:
        one.port = server.server_port
        yield one

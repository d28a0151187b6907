"""A real registry as a shared cache: pushed to, collected, fetched from, killed."""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from sandkube.build.lock import File, Pin
from sandkube.digest import sha256_bytes
from tests.certificates import Certificates, certificates
from tests.clones import Clone
from tests.real_registries import AUTH, HTPASSWD, Running, debians, started
from tests.registries import PASSWORD, USER
from tests.servers import Served, Silent, Status, file_server, running, zip_of
from tests.small import RECIPES, Said, Small, small

ZIPS = {"words.zip": zip_of({"words": b"some words\n" * 90_000}), "more.zip": zip_of({"more": b"more\n"})}


@pytest.fixture(scope="session", params=["Debian's", "v3"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 2 of the distribution project's registry and version 3.

    The first is Debian's, fetched as a recipe's source is, whatever this machine is; the second is a recipe's product.
    """
    if request.param == "v3":
        made: Clone = request.getfixturevalue("here")
        return (made.folder / "outputs/result/registry/bin/registry").resolve()
    return debians(tmp_path_factory.mktemp("registry"))


one_is_enough = pytest.mark.parametrize("program", ["Debian's"], indirect=True)
"""For what a registry has no part in."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def registry(program: Path, made: Certificates, tmp_path: Path) -> Iterator[Running]:
    """One that wants a name and a password."""
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    auth = {"htpasswd": {"realm": "tests", "path": str(tmp_path / "htpasswd")}}
    with started(program, tmp_path, made, auth) as one:
        yield one


def checkout(folder: Path, served: Served | None) -> Small:
    """With the usual recipes, or with those of two files that a server has."""
    if served is None:
        return small(folder)
    tree = 'description = "d"\nsource = "url:%s"\n[build]\nkind = "tree"\n'
    recipes = {name.removesuffix(".zip"): tree % f"{served.address}/{name}" for name in ZIPS}
    pins = {
        name.removesuffix(".zip"): Pin("", files=(File(name, sha256_bytes(content), len(content)),))
        for name, content in ZIPS.items()
    }
    return small(folder, recipes, pins)


def writer(folder: Path, port: int, made: Certificates, served: Served | None = None) -> tuple[Small, str]:
    """A checkout that pushes, with the files of docker and podman in its home; and its key."""
    one = checkout(folder / "writer", served)
    home = Path(one.env["HOME"])
    (home / ".docker").mkdir()
    (home / ".docker/config.json").write_text(json.dumps({"auths": {f"127.0.0.1:{port}": {"auth": AUTH}}}))
    trusted = home / f".config/containers/certs.d/127.0.0.1:{port}/ca.crt"
    trusted.parent.mkdir(parents=True)
    trusted.write_bytes(made.authority.read_bytes())
    cache = {"SANDKUBE_CACHE": f"oci://127.0.0.1:{port}/team/cache?write"}
    one = replace(one, env={**one.env, **cache})
    return one, one.do("key", "new", "ours").out.strip()


def reader(folder: Path, name: str, port: int, key: str, made: Certificates, served: Served | None = None) -> Small:
    """A checkout with a home that has a login in .netrc and a key to trust."""
    one = checkout(folder / name, served)
    Path(one.env["HOME"], ".netrc").write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    cache = {"SANDKUBE_CACHE": f"oci://127.0.0.1:{port}/team/cache", "SSL_CERT_FILE": str(made.authority)}
    one = replace(one, env={**one.env, **cache})
    assert one.do("key", "trust", key).status == 0
    return one


def outputs(one: Small) -> dict[str, str]:
    return {name: (one.folder / "outputs/result" / name).resolve().name for name in RECIPES}


def built(one: Small, *names: str) -> Said:
    said = one.do("build", *(names or RECIPES))
    assert said.status == 0, said.err
    assert PASSWORD not in said.err + said.out
    assert AUTH not in said.err + said.out
    return said


def cache_lines(said: Said) -> list[str]:
    return [line for line in said.err.splitlines() if line.startswith("cache ")]


def test_what_one_pushes_another_fetches(registry: Running, made: Certificates, tmp_path: Path) -> None:
    ours, key = writer(tmp_path, registry.port, made)
    first = built(ours)
    assert set(first.steps()) == set(RECIPES)
    (line,) = cache_lines(first)
    assert re.fullmatch(rf"cache oci://127\.0\.0\.1:{registry.port}/team/cache: [\d.]+ MB pushed", line)
    assert "blob eligible for deletion" not in registry.collect()
    theirs = reader(tmp_path, "reader", registry.port, key, made)
    second = built(theirs)
    assert second.steps() == {}
    assert outputs(theirs) == outputs(ours)
    (line,) = cache_lines(second)
    assert re.fullmatch(rf"cache oci://127\.0\.0\.1:{registry.port}/team/cache: 3 trees fetched \([\d.]+ MB\)", line)


@pytest.fixture
def served() -> Iterator[Served]:
    with file_server({f"/{name}": content for name, content in ZIPS.items()}) as one:
        yield one


def gone(served: Served) -> None:
    """Upstream has its files no more."""
    served.seen.clear()
    served.faults = {f"/{name}": [Status(404)] * 9 for name in ZIPS}


def test_sources_that_upstream_has_no_more(
    registry: Running, made: Certificates, served: Served, tmp_path: Path
) -> None:
    """What one fetches is given to the registry, which keeps it; another, who trusts nobody, takes it from there."""
    ours, key = writer(tmp_path, registry.port, made, served)
    built(ours, "words", "more")
    assert "blob eligible for deletion" not in registry.collect()
    gone(served)
    theirs = reader(tmp_path, "reader", registry.port, key, made, served)
    assert theirs.do("key", "revoke", "ours").status == 0
    said = built(theirs, "words", "more")
    assert set(said.steps()) == {"words", "more"}
    assert (theirs.folder / "outputs/result/more/more").read_text() == "more\n"
    line, *_ = cache_lines(said)
    assert re.search(r"/team/cache: 2 files of sources fetched \([\d.]+ MB\)$", line)
    assert served.seen == []


@one_is_enough
@pytest.mark.parametrize("gets", [0, 1, 2])
def test_a_registry_that_is_killed_with_sources(
    gets: int, registry: Running, made: Certificates, served: Served, tmp_path: Path
) -> None:
    """`gets`: blobs that are answered before; a build that trusts nobody asks for two records and two files."""
    ours, key = writer(tmp_path, registry.port, made, served)
    built(ours, "words", "more")
    with front(registry, made, gets) as port:
        theirs = reader(tmp_path, "reader", port, key, made, served)
        assert theirs.do("key", "revoke", "ours").status == 0
        said = built(theirs, "words", "more")
    assert set(said.steps()) == {"words", "more"}
    assert (theirs.folder / "outputs/result/words/words").read_bytes() == b"some words\n" * 90_000
    line, *_ = cache_lines(said)
    assert re.search(r"\d faults( with sources)?, the first: 127\.0\.0\.1: ", line)


@contextlib.contextmanager
def front(registry: Running, made: Certificates, gets: int) -> Iterator[int]:
    """The port of a server that hands requests on, and kills the registry when a blob is asked for once more."""
    context = ssl.create_default_context(cafile=str(made.authority))
    seen: list[str] = []

    class Handler(Silent):
        def do_GET(self) -> None:
            if "/blobs/" in self.path:
                seen.append(self.path)
                if len(seen) > gets:
                    registry.kill()
            connection = HTTPSConnection("127.0.0.1", registry.port, context=context)
            try:
                connection.request("GET", self.path, headers=dict(self.headers.items()))
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, HTTPException):
                return  # which closes the connection
            finally:
                connection.close()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    with running(Handler) as server:
        yield server.server_port


@one_is_enough
@pytest.mark.parametrize("gets", [0, 3, 4, 6])
def test_a_registry_that_is_killed(gets: int, registry: Running, made: Certificates, tmp_path: Path) -> None:
    """`gets`: records, indexes and chunks that are answered before; a build asks for nine."""
    ours, key = writer(tmp_path, registry.port, made)
    built(ours)
    with front(registry, made, gets) as port:
        theirs = reader(tmp_path, "reader", port, key, made)
        said = built(theirs)
    assert said.steps()
    assert outputs(theirs) == outputs(ours)
    (line,) = cache_lines(said)
    assert re.search(r"[123] faults, the first: 127\.0\.0\.1: ", line)


def _token(made: Certificates, query: Mapping[str, list[str]]) -> str:
    """As https://distribution.github.io/distribution/spec/auth/jwt/ wants it, signed by the server's key."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    key = serialization.load_pem_private_key(made.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    certificate = x509.load_pem_x509_certificate(made.server.read_bytes())
    chain = [base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()]
    kind, name, actions = query["scope"][0].split(":")
    now = int(datetime.datetime.now(datetime.UTC).timestamp())
    claims = {
        **{"iss": "tests", "sub": USER, "aud": query["service"][0], "jti": "1"},
        **{"iat": now, "nbf": now - 60, "exp": now + 300},
        "access": [{"type": kind, "name": name, "actions": actions.split(",")}],
    }
    head = {"typ": "JWT", "alg": "ES256", "x5c": chain}
    signed = ".".join(part(json.dumps(each).encode()) for each in (head, claims))
    numbers = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{part(b''.join(each.to_bytes(32, 'big') for each in numbers))}"


@contextlib.contextmanager
def token_server(made: Certificates, scopes: list[str]) -> Iterator[str]:
    """Gives tokens to who logs in, and notes their scopes; yields the realm."""

    class Handler(Silent):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            known = self.headers.get("Authorization") == f"Basic {AUTH}"
            scopes.append(query["scope"][0])
            body = json.dumps({"token": _token(made, query)} if known else {}).encode()
            self.send_response(200 if known else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with running(Handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made.server, made.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        yield f"https://127.0.0.1:{server.server_port}/token"


def test_tokens(program: Path, made: Certificates, tmp_path: Path) -> None:
    scopes: list[str] = []
    with token_server(made, scopes) as realm:
        auth = {"realm": realm, "service": "here", "issuer": "tests", "rootcertbundle": str(made.authority)}
        with started(program, tmp_path, made, {"token": auth}) as registry:
            ours, key = writer(tmp_path, registry.port, made)
            built(ours)
            assert scopes == ["repository:team/cache:pull", "repository:team/cache:pull,push"]
            theirs = reader(tmp_path, "reader", registry.port, key, made)
            assert built(theirs).steps() == {}
            assert outputs(theirs) == outputs(ours)
    assert scopes[2:] == ["repository:team/cache:pull"]

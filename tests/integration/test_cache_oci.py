"""OCI registries as caches: what is asked of them, what they are shown, and what is said of their faults."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from sandkube import run
from sandkube.build.cache import oci
from sandkube.build.cache.kind import Blob
from sandkube.build.cache.oci import Oci
from sandkube.build.cache.settings import settings
from sandkube.build.cache.web import Answer, Web
from sandkube.errors import Unusable, UserError
from sandkube.registry import logins, tokens
from sandkube.registry.logins import Login
from sandkube.registry.tokens import Tokens
from tests.certificates import certificates
from tests.registries import PASSWORD, USER, Registry, handler, registry
from tests.servers import file_server, only_loopback, running

KEY = "ab" * 32
RECORD = b'{"a": "record"}'
AUTH = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def blob_of(data: bytes) -> Blob:
    return Blob(hashlib.sha256(data).hexdigest(), len(data))


def digest(data: bytes) -> str:
    return f"sha256:{blob_of(data).sha256}"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    only_loopback(monkeypatch, tmp_path / "home")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def one(home: Path) -> Iterator[Registry]:
    del home
    with registry() as made:
        yield made


def log_in(home: Path, host: str, auth: str = AUTH) -> None:
    (home / ".docker").mkdir()
    (home / ".docker/config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def opened(one: Registry, home: Path) -> Oci:
    return Oci(one.cache, {"HOME": str(home), "PATH": "/usr/bin:/bin"})


@pytest.fixture
def logged_in(one: Registry, home: Path) -> Oci:
    log_in(home, f"127.0.0.1:{one.port}")
    return opened(one, home)


def test_a_record_holds_its_blobs(one: Registry, home: Path) -> None:
    cache, blobs = opened(one, home), [b"index", b"chunk", b"chunk"]
    names = [blob_of(each) for each in blobs]
    assert cache.record(KEY) is None, "a repository that is not there reads as nothing"
    assert cache.blob(names[0]) is None
    assert cache.missing(names[:2]) == names[:2]
    cache.put(names[0], blobs[0])
    cache.put(names[1], blobs[1])
    assert cache.missing(names) == []
    assert cache.missing([Blob(names[0].sha256, 4)]) == [Blob(names[0].sha256, 4)]
    cache.publish(KEY, RECORD, names)
    assert (cache.record(KEY), cache.blob(names[1])) == (RECORD, b"chunk")
    manifest = json.loads(one.manifests[KEY])
    assert one.types[KEY] == manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest["artifactType"] == manifest["config"]["mediaType"] == "application/vnd.sandkube.record.v1+json"
    assert [each["digest"] for each in manifest["layers"]] == [digest(b"index"), digest(b"chunk")]
    assert {each.shown for each in one.seen} == {""}


def test_a_blob_is_not_read_beyond_its_size(one: Registry, home: Path) -> None:
    one.blobs[digest(b"chunk")] = b"chunk and more of it"
    assert opened(one, home).blob(blob_of(b"chunk")) == b"chunk "


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (b"<html>", "a manifest that is not understood"),
        (b"[" * 100_000, "a manifest that is not understood"),
        (b'{"manifests": []}', "a manifest that is not understood"),
        (oci.manifest_of(blob_of(RECORD), []).replace(b"sandkube", b"other"), "a manifest without a record"),
        (oci.manifest_of(Blob("../" + "0" * 61, 1), []), "a manifest without a record"),
        (oci.manifest_of(Blob("0" * 64, 5 << 20), []), "a manifest without a record"),
        (oci.manifest_of(blob_of(RECORD), []), "a manifest whose record is gone"),
    ],
    ids=["no JSON", "deep", "index", "other's", "odd digest", "too large", "gone"],
)
def test_tags_without_a_record(manifest: bytes, said: str, one: Registry, home: Path) -> None:
    one.manifests[KEY] = manifest
    with pytest.raises(UserError) as caught:
        opened(one, home).record(KEY)
    assert (caught.value.message, isinstance(caught.value, Unusable)) == (said, False)


CONTENT = bytes(range(256)) * 9000


def got(cache: Oci, name: str, folder: Path, limit: int = len(CONTENT)) -> bytes | None:
    """What a cache gives by the name of a source."""
    with (folder / "got").open("w+b") as sink:
        found = cache.source(name, sink, limit)
    return (folder / "got").read_bytes() if found else None


def put(cache: Oci, name: str, folder: Path, content: bytes = CONTENT) -> None:
    (folder / "file").write_bytes(content)
    cache.put_source(name, folder / "file")


@pytest.mark.parametrize("name", [blob_of(CONTENT).sha256, f"h1-{KEY}", f"git-{'ab' * 20}"])
def test_a_source_is_a_layer(name: str, one: Registry, logged_in: Oci, tmp_path: Path) -> None:
    """Of a manifest that the specification allows; a record's tag is never a source's."""
    one.wants = "bearer"
    assert (got(logged_in, name, tmp_path), logged_in.has_source(name)) == (None, False)
    put(logged_in, name, tmp_path)
    assert (got(logged_in, name, tmp_path), logged_in.has_source(name)) == (CONTENT, True)
    assert got(logged_in, KEY, tmp_path) is None
    assert logged_in.record(name) is None
    manifest = json.loads(one.manifests[f"source-{name}"])
    assert one.types[f"source-{name}"] == manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest["artifactType"] == "application/vnd.sandkube.source.v1"
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(b"{}"), "size": 2}
    assert (manifest["config"], one.blobs[digest(b"{}")]) == (empty, b"{}")
    assert [each["digest"] for each in manifest["layers"]] == [digest(CONTENT)]
    put(logged_in, name, tmp_path, b"other")
    assert got(logged_in, name, tmp_path) == b"other", "what had other bytes is replaced"
    put(logged_in, "empty", tmp_path, b"")
    assert got(logged_in, "empty", tmp_path) == b""


def test_a_source_is_not_read_beyond_what_was_said(one: Registry, home: Path, tmp_path: Path) -> None:
    cache = opened(one, home)
    put(cache, "a", tmp_path)
    found = got(cache, "a", tmp_path, 1000)
    assert found is not None
    assert 1000 < len(found) < len(CONTENT), "no more than a piece above the limit is read"
    one.blobs[digest(CONTENT)] = CONTENT * 2
    found = got(cache, "a", tmp_path, 1 << 30)
    assert found is not None
    assert len(CONTENT) < len(found) < 2 * len(CONTENT), "nor above the manifest's size"


def test_a_source_without_its_blob(one: Registry, home: Path, tmp_path: Path) -> None:
    """Is none, so that somebody puts it there again."""
    cache = opened(one, home)
    put(cache, "a", tmp_path)
    one.blobs.clear()
    assert (got(cache, "a", tmp_path), cache.has_source("a")) == (None, False)


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (b"<html>", "a manifest that is not understood"),
        (b"[" * 100_000, "a manifest that is not understood"),
        (b'{"layers": 3}', "a manifest that is not understood"),
        (b'{"layers": [{}, {}]}', "a manifest that is not understood"),
        (oci.manifest_of(blob_of(RECORD), []), "a manifest that is not understood"),
        (oci.manifest_of(blob_of(RECORD), [blob_of(b"a")]), "a manifest without a file of a source"),
        (oci.source_manifest_of(Blob("../" + "0" * 61, 1)), "a manifest without a file of a source"),
        (oci.source_manifest_of(Blob("0" * 64, -1)), "a manifest without a file of a source"),
    ],
    ids=["no JSON", "deep", "no list", "two", "no layer", "a record's", "odd digest", "odd size"],
)
def test_tags_without_a_source(manifest: bytes, said: str, one: Registry, home: Path, tmp_path: Path) -> None:
    """Each is a fault for who reads, and replaced by who writes."""
    one.manifests["source-a"] = manifest
    cache = opened(one, home)
    with pytest.raises(UserError) as caught:
        got(cache, "a", tmp_path)
    assert (caught.value.message, isinstance(caught.value, Unusable)) == (said, False)
    assert not cache.has_source("a")
    put(cache, "a", tmp_path)
    assert got(cache, "a", tmp_path) == CONTENT


def test_faults_with_sources(one: Registry, home: Path, tmp_path: Path) -> None:
    """Whole files are sent and asked for again, from their start; what stays is told."""
    cache, blob = opened(one, home), f"/v2/team/cache/blobs/{digest(CONTENT)}"
    one.faults["PUT /v2/team/cache/blobs/uploads/u1"] = [(0, {})]
    one.faults["PUT /v2/team/cache/blobs/uploads/u2"] = [(503, {})]
    one.faults["PUT /v2/team/cache/manifests/source-a"] = [(500, {})]
    put(cache, "a", tmp_path)
    assert one.blobs[digest(CONTENT)] == CONTENT
    one.faults[f"GET {blob}"] = [(0, {}), (503, {})]
    assert got(cache, "a", tmp_path) == CONTENT
    one.faults[f"GET {blob}"] = [(403, {})]
    with pytest.raises(Unusable, match=r"^127\.0\.0\.1: status 403, without a login, for none was found$"):
        got(cache, "a", tmp_path)
    one.faults["HEAD " + blob] = [(500, {})] * 3
    with pytest.raises(Unusable, match=r"^127\.0\.0\.1: status 500$"):
        cache.has_source("a")


def test_a_page_of_a_refusal_is_no_source(one: Registry, home: Path, tmp_path: Path) -> None:
    """Neither is it left in the file."""
    put(opened(one, home), "a", tmp_path)
    one.wants = "basic"
    with (tmp_path / "got").open("w+b") as sink, pytest.raises(Unusable, match="UNAUTHORIZED"):
        opened(one, home).source("a", sink, len(CONTENT))
    assert (tmp_path / "got").read_bytes() == b""


def test_a_refusal_of_many_brackets() -> None:
    assert oci._code(Answer(500, {}, b"[" * 4096, "")) == ""


def test_a_manifest_that_no_registry_takes(one: Registry, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oci, "MANIFEST_LIMIT", 400)
    with pytest.raises(Unusable, match=r"^a manifest of 1 layers has \d+ bytes, registries take 4 MB$"):
        opened(one, home).publish(KEY, RECORD, [blob_of(b"index")])
    assert one.seen == []


@pytest.mark.parametrize("where", ["relative", "absolute", "elsewhere"])
def test_uploads_go_where_the_registry_says(where: str, one: Registry, logged_in: Oci) -> None:
    one.wants = "basic"
    with registry() as other:
        base = {"relative": "", "absolute": one.address, "elsewhere": other.address}[where]
        one.location = base + one.location
        logged_in.put(blob_of(b"chunk"), b"chunk")
        holder = other if where == "elsewhere" else one
        assert holder.blobs == {digest(b"chunk"): b"chunk"}
        assert [each.shown for each in holder.asked("PUT")] == ["" if where == "elsewhere" else f"Basic {AUTH}"]


@pytest.mark.parametrize("location", [None, "http://[a", "http://a:b/", "ftp://a/", "//", "http://127.0.0.1:0/\x01"])
def test_uploads_that_go_nowhere(location: str | None, one: Registry, home: Path) -> None:
    one.faults["POST /v2/team/cache/blobs/uploads/"] = [(202, {"Location": location} if location else {})] * 3
    with pytest.raises(Unusable):
        opened(one, home).put(blob_of(b"chunk"), b"chunk")


@pytest.mark.parametrize(
    "address", ["https://Registry.Example.org:443/v2/team/cache", "https://registry.example.org/x"]
)
def test_one_origin_by_several_names(address: str) -> None:
    assert oci._origin(address) == ("https", "registry.example.org", 443)


def test_an_upload_begins_anew(one: Registry, home: Path) -> None:
    one.faults["PUT /v2/team/cache/blobs/uploads/u1"] = [(0, {})]
    one.faults["PUT /v2/team/cache/blobs/uploads/u2"] = [(503, {"Retry-After": "0"})]
    opened(one, home).put(blob_of(b"chunk"), b"chunk")
    assert [urlsplit(each.path).path[-2:] for each in one.asked("PUT")] == ["u1", "u2", "u3"]
    assert one.blobs == {digest(b"chunk"): b"chunk"}


@pytest.mark.parametrize("status", [429, 503])
def test_pauses_that_a_registry_asks_for(
    status: int, one: Registry, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    monkeypatch.setattr("sandkube.build.cache.web.wait", pauses.append)
    one.faults[f"GET /v2/team/cache/manifests/{KEY}"] = [(status, {"Retry-After": "7"}), (status, {})]
    assert opened(one, home).record(KEY) is None
    assert pauses == [0, 7, 0.5]
    one.faults[f"GET /v2/team/cache/manifests/{KEY}"] = [(status, {"Retry-After": "3600"})]
    with pytest.raises(Unusable) as caught:
        opened(one, home).record(KEY)
    assert caught.value.message == f"127.0.0.1: status {status}, for 3600 s"


def test_tokens_are_kept_and_renewed(one: Registry, logged_in: Oci) -> None:
    one.wants = "bearer"
    for _ in range(3):
        assert logged_in.record(KEY) is None
    logged_in.put(blob_of(b"chunk"), b"chunk")
    logged_in.publish(KEY, RECORD, [blob_of(b"chunk")])
    asked = [parse_qs(urlsplit(each.path).query) for each in one.asked("GET", "/token")]
    assert asked == [
        {"service": ["here, and there"], "scope": [f"repository:team/cache:{actions}"]}
        for actions in ("pull", "pull,push")
    ]
    assert {each.shown for each in one.asked("PUT")} == {"Bearer token.2"}
    one.tokens.clear()
    assert logged_in.record(KEY) == RECORD, "a token that is refused is replaced"
    logged_in.put(blob_of(b"other"), b"other")
    assert one.given == 4


def test_a_token_is_replaced_between_post_and_put(one: Registry, logged_in: Oci) -> None:
    one.wants = "bearer"
    challenge = f'Bearer realm="{one.address}/token"'
    one.faults["PUT /v2/team/cache/blobs/uploads/u1"] = [(401, {"WWW-Authenticate": challenge})]
    logged_in.put(blob_of(b"chunk"), b"chunk")
    assert [each.shown for each in one.asked("PUT")] == ["Bearer token.1", "Bearer token.2"]
    assert one.uploads == 1


@pytest.mark.parametrize(
    ("life", "asked"), [(100, [1, 1, 2]), (None, [1, 2, 3]), (10**400, [1, 2, 3])], ids=["short", "none", "endless"]
)
def test_tokens_expire(life: int | None, asked: list[int], one: Registry) -> None:
    one.life, now = life, [1000.0]
    shower = Tokens(Web(by_netrc=False), "team/cache", lambda: Login(USER, PASSWORD, "x"), lambda: now[0])
    base = f"{one.address}/v2/team/cache"
    assert shower.header(base, write=False) == ""
    given = []
    for number, later in enumerate((0, 50, 50)):
        now[0] += later
        if number == 0:
            shower.again(base, "", f'Bearer realm="{one.address}/token"', write=False)
        assert shower.header(base, write=False) == f"Bearer token.{one.given}"
        given.append(one.given)
    assert given == asked


def test_threads_share_a_token(one: Registry, logged_in: Oci) -> None:
    one.wants = "bearer"
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: logged_in.record(KEY), range(32))) == {None}
    assert one.given == 1


@pytest.mark.parametrize("wants", ["basic", "bearer"])
def test_another_host_is_shown_nothing(wants: str, one: Registry, logged_in: Oci) -> None:
    one.wants = wants
    one.blobs[digest(b"chunk")] = b"chunk"
    with registry() as storage:
        one.storage = storage.address
        storage.blobs[digest(b"chunk")] = b"chunk"
        assert logged_in.blob(blob_of(b"chunk")) == b"chunk"
        storage.wants = "basic"
        with pytest.raises(Unusable) as caught:
            logged_in.blob(blob_of(b"chunk"))
        assert caught.value.message.startswith("127.0.0.1: status 401")
        storage.wants = "bearer"
        with pytest.raises(Unusable):
            logged_in.blob(blob_of(b"chunk"))
        assert {each.shown for each in storage.seen} == {""}
        assert storage.asked("GET", "/token") == []


@pytest.mark.parametrize(
    "realm", ["http://auth.example.org/token", "/token", "ftp://a/b", "http://127.0.0.1/token", "https://[a"]
)
def test_a_login_is_not_sent_in_the_open(realm: str) -> None:
    shower = Tokens(Web(by_netrc=False), "team/cache", lambda: Login(USER, PASSWORD, "x"))
    with pytest.raises(Unusable) as caught:
        shower.again("https://registry.example.org/v2/team/cache", "", f'Bearer realm="{realm}"', write=False)
    assert caught.value.message == "registry.example.org: wants the login sent to an address that is not https"


@pytest.mark.parametrize("realm", ["https://a:b/", "https://\x01/", "https://xn--/t", f"https://{'a' * 70000}/"])
def test_realms_that_are_no_address(realm: str) -> None:
    shower = Tokens(Web(by_netrc=False), "team/cache", lambda: None)
    with pytest.raises(Unusable, match=r"^an address that is none: "):
        shower.again("https://registry.example.org/v2/team/cache", "", f'Bearer realm="{realm}"', write=False)


@pytest.mark.parametrize(
    ("wants", "said"),
    [
        ("basic", "127.0.0.1: status 401, UNAUTHORIZED, with the login of {path}"),
        ("bearer", "127.0.0.1: gives no token, status 401, with the login of {path}"),
    ],
)
def test_refused_logins_are_not_shown(wants: str, said: str, one: Registry, home: Path) -> None:
    one.wants = wants
    wrong = base64.b64encode(b"someone:wrong-and-secret").decode()
    log_in(home, f"127.0.0.1:{one.port}", wrong)
    with pytest.raises(Unusable) as caught:
        opened(one, home).record(KEY)
    assert caught.value.message == said.format(path=home / ".docker/config.json")
    assert "secret" not in repr(Login("someone", "wrong-and-secret", "x"))


@pytest.mark.parametrize("location", ["https://xn--/", "https://a:b/", "http://[a", "//\x01"])
def test_redirects_that_go_nowhere(location: str, one: Registry, home: Path) -> None:
    one.faults[f"GET /v2/team/cache/manifests/{KEY}"] = [(307, {"Location": location})] * 3
    with pytest.raises(Unusable, match=r"^127\.0\.0\.1: "):
        opened(one, home).record(KEY)


def test_without_a_login(one: Registry, home: Path) -> None:
    one.wants = "basic"
    with pytest.raises(Unusable) as caught:
        opened(one, home).put(blob_of(b"x"), b"x")
    assert caught.value.message == "127.0.0.1: status 401, UNAUTHORIZED, without a login, for none was found"
    assert [each.shown for each in one.seen] == [""]


@pytest.mark.parametrize(
    "token", ["two\r\nX-Lines: 1", "", 3, None, "blank s", "ä", b"[" * 100_000], ids=lambda each: repr(each)[:9]
)
def test_tokens_that_are_none(token: object, home: Path) -> None:
    del home
    body = token if isinstance(token, bytes) else json.dumps({"token": token}).encode()
    with file_server({"/token": body}) as served:
        shower = Tokens(Web(by_netrc=False), "team/cache", lambda: None)
        with pytest.raises(Unusable) as caught:
            shower.again(f"{served.address}/v2/a", "", f'Bearer realm="{served.address}/token"', write=False)
    assert caught.value.message == "127.0.0.1: gives no token"


def test_challenges() -> None:
    read = tokens.challenges
    assert read('Bearer realm="https://a/t?x=1,2",service="s",scope="repository:a:pull,push"') == {
        "bearer": {"realm": "https://a/t?x=1,2", "service": "s", "scope": "repository:a:pull,push"}
    }
    assert read('Basic realm="Bearer realm=x", BEARER Realm = https://a , error="e"') == {
        "basic": {"realm": "Bearer realm=x"},
        "bearer": {"realm": "https://a", "error": "e"},
    }
    assert read("") == read("Negotiate") == {}
    shower = Tokens(Web(by_netrc=False), "a", lambda: None)
    with pytest.raises(Unusable, match=r"^a\.example: wants a login of a kind that is not known$"):
        shower.again("https://a.example/v2/a", "", "Negotiate", write=False)


def auths(**rows: str) -> str:
    return json.dumps(
        {"auths": {key: {"auth": base64.b64encode(text.encode()).decode()} for key, text in rows.items()}}
    )


HOST = "registry.example.org:5000"
FILES: Mapping[str, tuple[Mapping[str, str], Mapping[str, str], str]] = {
    "docker": ({".docker/config.json": auths(**{HOST: "a:b:c"})}, {}, "a:b:c"),
    "an old docker": ({".docker/config.json": auths(**{f"https://{HOST}/v1/": "a:b"})}, {}, "a:b"),
    "DOCKER_CONFIG": ({"d/config.json": auths(**{HOST: "a:b"})}, {"DOCKER_CONFIG": "d"}, "a:b"),
    "podman": (
        {
            ".config/containers/auth.json": auths(**{HOST: "host:x", f"{HOST}/team": "team:x", f"{HOST}/te": "te:x"}),
            ".docker/config.json": auths(**{HOST: "docker:x"}),
        },
        {},
        "team:x",
    ),
    "XDG_RUNTIME_DIR": ({"r/containers/auth.json": auths(**{HOST: "a:b"})}, {"XDG_RUNTIME_DIR": "r"}, "a:b"),
    "REGISTRY_AUTH_FILE": (
        {"only.json": auths(other="a:b"), ".docker/config.json": auths(**{HOST: "a:b"})},
        {"REGISTRY_AUTH_FILE": "only.json"},
        "",
    ),
    "another host": ({".docker/config.json": auths(**{"registry.example.org": "a:b"})}, {}, ""),
    "netrc": ({".netrc": "machine registry.example.org login a password b\n"}, {}, "a:b"),
    "NETRC": ({"n": "machine registry.example.org login a password b\n"}, {"NETRC": "n"}, "a:b"),
    "a helper": ({".docker/config.json": json.dumps({"credHelpers": {HOST: "try"}})}, {}, f"{HOST}:helped"),
    "a store": (
        {".docker/config.json": json.dumps({"auths": {HOST: {}}, "credsStore": "try"})},
        {},
        f"{HOST}:helped",
    ),
    "a store without it": (
        {".docker/config.json": '{"credsStore": "none"}', ".netrc": "default login a password b\n"},
        {},
        "a:b",
    ),
    "a helper that is not there": ({".docker/config.json": '{"credsStore": "missing"}'}, {}, ""),
    "none": ({}, {}, ""),
}


@pytest.mark.parametrize("case", FILES)
def test_where_logins_are_kept(case: str, tmp_path: Path) -> None:
    files, variables, wanted = FILES[case]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for name, script in {
        "try": 'read -r host\nprintf \'{"ServerURL":"x","Username":"%s","Secret":"helped"}\' "$host"\n',
        "none": "echo credentials not found in native keychain\nexit 1\n",
    }.items():
        path = tmp_path / f"bin/docker-credential-{name}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}")
        path.chmod(0o755)
    places = {name: str(tmp_path / value) for name, value in variables.items()}
    environment = {"HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:/usr/bin:/bin", **places}
    found = logins.find(HOST, "team/cache", environment)
    assert (f"{found.name}:{found.password}" if found else "") == wanted


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (".docker/config.json", "{", "no JSON"),
        (".docker/config.json", "[" * 100_000, "no JSON"),
        (
            ".docker/config.json",
            json.dumps({"auths": {HOST: {"auth": "@@secret"}}}),
            "a login that is no base64 of text",
        ),
        (".netrc", "machine a\nlogin secret oops\n", "is not understood"),
    ],
)
def test_files_of_logins_that_are_damaged(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / name).write_text(text)
    with pytest.raises(Unusable) as caught:
        logins.find(HOST, "team/cache", {"HOME": str(tmp_path)})
    assert caught.value.message == f"{tmp_path / name}: {said}"


def _by_docker(home: Path, host: str, certificate: Path) -> None:
    folder = home / ".config/containers/certs.d" / host
    folder.mkdir(parents=True)
    (folder / "ca.crt").write_bytes(certificate.read_bytes())


@pytest.mark.parametrize("how", ["nothing", "certs.d", "SSL_CERT_FILE", "damaged"])
def test_authorities(how: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = certificates(tmp_path / "certificates")
    other = certificates(tmp_path / "other")
    with registry() as one, running(handler(one)) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made.server, made.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        one.port = server.server_port
        if how == "damaged":
            other.authority.write_text("no certificate")
        named = {"certs.d": made, "damaged": other}.get(how, other)
        _by_docker(home, f"127.0.0.1:{one.port}", named.authority)
        if how == "SSL_CERT_FILE":
            monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
        cache = opened(one, home)
        if how in ("certs.d", "SSL_CERT_FILE"):
            assert cache.record(KEY) is None
            return
        with pytest.raises(Unusable) as caught:
            cache.record(KEY)
        wanted = "certificate verify failed" if how == "nothing" else "ca.crt: holds no certificate"
        assert wanted in caught.value.message
        assert one.seen == []


@pytest.mark.parametrize(("text", "said"), [(None, "No such file or directory"), ("x", "holds no certificate")])
def test_certificates_that_are_none(
    text: str | None, said: str, one: Registry, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text:
        (home / "ca.pem").write_text(text)
    monkeypatch.setenv("SSL_CERT_FILE", str(home / "ca.pem"))
    with pytest.raises(Unusable) as caught:
        opened(one, home).record(KEY)
    assert caught.value.message == f"SSL_CERT_FILE: {said}"


def test_a_netrc_that_is_damaged(one: Registry, home: Path) -> None:
    (home / ".netrc").write_text("machine a\nlogin secret oops\n")
    with pytest.raises(Unusable) as caught:
        Web({"HOME": str(home)}).get(one.address, 1)
    assert caught.value.message == f"{home}/.netrc: line 3 is not understood"


def test_a_registry_that_says_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is it taken for one without TLS."""
    monkeypatch.setattr(oci, "STALL", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cache = Oci(f"oci://127.0.0.1:{silent.getsockname()[1]}/team/cache", {"HOME": str(home)})
        with pytest.raises(Unusable, match=r"^127\.0\.0\.1: no answer for 0\.1 s$"):
            cache.record(KEY)


def test_a_registry_that_is_away(home: Path) -> None:
    with registry() as one:
        cache = opened(one, home)
    with pytest.raises(Unusable) as caught:
        cache.record(KEY)
    assert caught.value.message == "127.0.0.1: [Errno 111] Connection refused"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("oci://registry.example.org/sandkube", ""),
        ("oci://localhost:5000/team/sand-kube__a.b", ""),
        ("oci://[::1]:5000/team", ""),
        ("oci://Registry.Example.org/team", ""),
        ("oci://registry.example.org", "names no repository, such as team/sandkube"),
        ("oci://registry.example.org/", "names no repository, such as team/sandkube"),
        ("oci://registry.example.org/Team", "names no repository, such as team/sandkube"),
        ("oci://registry.example.org/team/", "names no repository, such as team/sandkube"),
        ("oci://registry.example.org/team:tag", "names no repository, such as team/sandkube"),
        ("oci://registry.example.org:port/team", "is no address"),
        ("oci:///team", "names no host"),
        ("oci://registry_1/team", "names no host"),
        ("oci://me:secret@registry.example.org/team", "holds a credential, which belongs in ~/.netrc"),
    ],
)
def test_addresses(address: str, said: str) -> None:
    if not said:
        (found,) = settings({"SANDKUBE_CACHE": f"{address}?write"})
        assert (found.address, found.write) == (address, True)
        assert isinstance(found.open(), Oci)
        return
    with pytest.raises(UserError) as caught:
        settings({"SANDKUBE_CACHE": f"{address}?write"})
    assert caught.value.message == f"SANDKUBE_CACHE: '{address.replace('me:secret@', '…@')}' {said}"


def test_who_waits_for_a_registry_leaves_when_asked_to(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it is silent; nor does the process wait for it at its end."""
    silent, seen = threading.Event(), []

    def has(_self: Oci, _one: Blob) -> bool:
        seen.append(threading.current_thread().daemon)
        return silent.wait(20)

    monkeypatch.setattr(Oci, "_has", has)
    monkeypatch.setattr(run, "_asked", True)
    with pytest.raises(run.Interrupted):
        Oci("oci://registry.example.org/team/cache", {"HOME": str(home)}).missing([blob_of(b"a")])
    silent.set()
    assert seen == [True]

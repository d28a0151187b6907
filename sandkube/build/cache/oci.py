"""An OCI registry as a cache (https://github.com/opencontainers/distribution-spec).

A record is an image manifest, tagged by its key: its config is the record, and its layers are the blobs that the record
stands for, so that a registry which collects garbage keeps them. Nothing of it is believed: a record is signed, and who
reads a blob hashes it.
"""

from __future__ import annotations

import functools
import os
import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import SplitResult, urldefrag, urlencode, urljoin, urlsplit

from sandkube.build.cache import logins
from sandkube.build.cache.kind import RECORD_LIMIT, Blob, Unusable
from sandkube.build.cache.threads import Threads
from sandkube.build.cache.tokens import Tokens, is_loopback
from sandkube.build.cache.web import STALL, Answer, Web
from sandkube.digest import canonical_json, sha256_bytes
from sandkube.documents import parse_json
from sandkube.errors import UserError

MANIFEST_LIMIT = 4 << 20
"""Bytes of a manifest: what the specification wants a registry to take, and what distribution and zot take at most."""
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
RECORD = "application/vnd.sandkube.record.v1+json"
LAYER = "application/vnd.sandkube.blob.v1"
_A_LAYER = 0.02  # seconds: a registry may ask its storage for each layer before it takes a manifest
_AT_ONCE = 8  # questions for a blob
_SAID = 4096  # bytes of a refusal that are read
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_CERTIFICATES = ("/etc/docker/certs.d", "/etc/containers/certs.d")
_CODE = re.compile(r"[A-Z_]{1,40}")


def fault(parts: SplitResult) -> str:
    """What is wrong with an address, which has neither credentials nor a query; "" for a sound one."""
    try:
        sound = parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound or not re.fullmatch(r"[A-Za-z0-9.-]+(:\d+)?|\[[0-9a-fA-F:]+\](:\d+)?", parts.netloc):
        return "names no host"
    name = parts.path.removeprefix("/")
    return "" if len(name) < 256 and _REPOSITORY.fullmatch(name) else "names no repository, such as team/sandkube"


def _authorities(host: str, environment: Mapping[str, str]) -> Iterator[Path]:
    """Certificates of authorities for a host (HOST or HOST:PORT), where docker and podman look for them."""
    home = environment.get("HOME") or "/nonexistent"
    for folder in (*_CERTIFICATES, f"{home}/.config/containers/certs.d"):
        yield from sorted(Path(folder, host).glob("*.crt"))


def _speaks_tls(host: str, port: int) -> bool:
    """Whether a server on this machine does. Its certificate is checked later, by who asks it for something."""
    try:
        ssl.get_server_certificate((host, port), timeout=STALL)
    except OSError:
        return False
    return True


def _origin(address: str) -> tuple[str, str | None, int | None]:
    """Raises ValueError for what is no address."""
    parts = urlsplit(address)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _place(opened: Answer) -> str:
    """Where an upload goes."""
    try:
        place = urldefrag(urljoin(opened.address, opened.headers["Location"])).url
        _origin(place)
    except (KeyError, ValueError):
        raise Unusable(f"{urlsplit(opened.address).hostname}: names no place to upload to") from None
    return place


def _code(answer: Answer) -> str:
    """What a registry calls its refusal."""
    try:
        code = parse_json(answer.body)["errors"][0]["code"]
    except (ValueError, LookupError, TypeError):
        return ""
    return f", {code}" if isinstance(code, str) and _CODE.fullmatch(code) else ""


def _config(manifest: bytes) -> Blob:
    """The blob of the record. Raises UserError for what is no manifest of ours."""
    try:
        config = parse_json(manifest)["config"]
        kind, digest, size = config["mediaType"], config["digest"], config["size"]
    except (ValueError, LookupError, TypeError):
        raise UserError("a manifest that is not understood") from None
    known = isinstance(digest, str) and re.fullmatch(r"sha256:[0-9a-f]{64}", digest)
    if kind != RECORD or not known or type(size) is not int or not 0 < size <= RECORD_LIMIT:
        raise UserError("a manifest without a record")
    return Blob(digest.removeprefix("sha256:"), size)


def manifest_of(record: Blob, blobs: Sequence[Blob]) -> bytes:
    """The manifest of a record, which names each blob once."""

    def descriptor(kind: str, one: Blob) -> dict[str, str | int]:
        return {"mediaType": kind, "digest": f"sha256:{one.sha256}", "size": one.size}

    layers = [descriptor(LAYER, each) for each in dict.fromkeys(blobs)]
    return canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": RECORD,
            "config": descriptor(RECORD, record),
            "layers": layers,
        }
    )


class Oci:
    """The cache in one repository, which is made when something is first pushed to it."""

    def __init__(self, address: str, environment: Mapping[str, str] = os.environ) -> None:
        parts = urlsplit(address)
        self._parts = parts._replace(netloc=parts.netloc.lower())
        host, repository = self._parts.netloc, self._parts.path.removeprefix("/")
        self._repository = repository
        self._web = Web(environment, authorities=tuple(_authorities(host, environment)), by_netrc=False)
        self._threads = Threads(_AT_ONCE, "registry")
        self._tokens = Tokens(self._web, repository, lambda: logins.find(host, repository, environment))

    @functools.cached_property
    def _base(self) -> str:
        """https, on this machine also what a server there speaks."""
        host = self._parts.hostname or ""
        plain = is_loopback(host) and not _speaks_tls(host, self._parts.port or 443)
        return f"{'http' if plain else 'https'}://{self._parts.netloc}/v2/{self._repository}"

    def _once(
        self,
        method: str,
        address: str,
        *,
        write: bool = False,
        limit: int = _SAID,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        longer: float = 0.0,
    ) -> Answer:
        """One answer, with a login if the registry wants one; nobody else is shown it."""

        def ask(shown: str) -> Answer:
            own = {**(headers or {}), **({"Authorization": shown} if shown else {})}
            return self._web.once(method, address, limit=limit, data=data, headers=own, longer=longer)

        if _origin(address) != _origin(self._base):
            return ask("")
        shown = self._tokens.header(self._base, write=write)
        answer = ask(shown)
        if answer.status == 401 and _origin(answer.address) == _origin(self._base):
            asks = answer.headers.get("WWW-Authenticate", "")
            other = self._tokens.again(self._base, shown, asks, write=write)
            if other != shown:
                return ask(other)
        return answer

    def _expect(self, answer: Answer, *wanted: int) -> Answer:
        """An answer with one of these statuses. Raises Unusable for any other."""
        if answer.status in wanted:
            return answer
        whose = f", {self._tokens.told()}" if answer.status in (401, 403) else ""
        raise Unusable(f"{urlsplit(answer.address).hostname}: status {answer.status}{_code(answer)}{whose}")

    def _get(self, place: str, limit: int, accept: str = "*/*") -> bytes | None:
        address = f"{self._base}/{place}"
        answer = self._web.tried(address, lambda: self._once("GET", address, limit=limit, headers={"Accept": accept}))
        return None if answer.status == 404 else self._expect(answer, 200).body

    def _has(self, one: Blob) -> bool:
        address = f"{self._base}/blobs/sha256:{one.sha256}"
        answer = self._web.tried(address, lambda: self._once("HEAD", address))
        if answer.status == 404:
            return False
        return self._expect(answer, 200).headers.get("Content-Length", str(one.size)) == str(one.size)

    def record(self, key: str) -> bytes | None:
        """The config of the manifest with this tag. Raises UserError for a tag that has none."""
        manifest = self._get(f"manifests/{key}", MANIFEST_LIMIT, MANIFEST)
        if manifest is None:
            return None
        found = self.blob(_config(manifest))
        if found is None:
            raise UserError("a manifest whose record is gone")
        return found

    def blob(self, one: Blob) -> bytes | None:
        """GET of a blob."""
        return self._get(f"blobs/sha256:{one.sha256}", one.size)

    def missing(self, blobs: Sequence[Blob]) -> list[Blob]:
        """HEAD of each blob, several at once: most of the time is the way there and back. Raises Interrupted."""
        return [each for each, has in zip(blobs, self._threads.map(self._has, blobs), strict=True) if not has]

    def put(self, one: Blob, data: bytes) -> None:
        """Open an upload, and put all of the blob where the registry wants it."""
        self._web.tried(self._base, lambda: self._upload(one, data))

    def _upload(self, one: Blob, data: bytes) -> None:
        """In one attempt: after a fault nobody knows how much of it an upload has, so the next one opens another."""
        opened = self._expect(self._once("POST", f"{self._base}/blobs/uploads/", write=True), 202)
        place = _place(opened)
        address = f"{place}{'&' if '?' in place else '?'}{urlencode({'digest': f'sha256:{one.sha256}'})}"
        headers = {"Content-Type": "application/octet-stream"}
        self._expect(self._once("PUT", address, write=True, data=data, headers=headers), 201, 204)

    def publish(self, key: str, record: bytes, blobs: Sequence[Blob]) -> None:
        """Put the record, then the manifest under its tag."""
        own = Blob(sha256_bytes(record), len(record))
        manifest = manifest_of(own, blobs)
        if len(manifest) > MANIFEST_LIMIT:
            raise Unusable(f"a manifest of {len(blobs)} layers has {len(manifest)} bytes, registries take 4 MB")
        if self.missing([own]):
            self.put(own, record)
        address, headers = f"{self._base}/manifests/{key}", {"Content-Type": MANIFEST}
        longer = _A_LAYER * len(blobs)

        def once() -> Answer:
            return self._once("PUT", address, write=True, data=manifest, headers=headers, longer=longer)

        self._expect(self._web.tried(address, once), 201)

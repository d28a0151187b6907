"""An OCI registry as a cache (https://github.com/opencontainers/distribution-spec).

A record is an image manifest, tagged by its key: its config is the record, and its layers are the blobs that the record
stands for, so that a registry which collects garbage keeps them. A file of a source is the only layer of a manifest,
tagged `source-<name>`, without a config. Nothing of it is believed: a record is signed, who reads a blob hashes it, and
the name of a source says which bytes it must have.
"""

from __future__ import annotations

import functools
import os
import re
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import SplitResult, urldefrag, urlencode, urljoin, urlsplit

from sandkube.build.cache.kind import RECORD_LIMIT, Blob
from sandkube.build.cache.threads import Threads
from sandkube.build.cache.web import STALL, Answer, Web
from sandkube.digest import Json, canonical_json, sha256_bytes, sha256_file
from sandkube.documents import parse_json
from sandkube.errors import Unusable, UserError
from sandkube.registry import logins
from sandkube.registry.certificates import authorities
from sandkube.registry.tokens import Tokens, is_loopback

MANIFEST_LIMIT = 4 << 20
"""Bytes of a manifest: what the specification wants a registry to take, and what distribution and zot take at most."""
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
RECORD = "application/vnd.sandkube.record.v1+json"
LAYER = "application/vnd.sandkube.blob.v1"
SOURCE = "application/vnd.sandkube.source.v1"
NOTHING = "application/vnd.oci.empty.v1+json"
_NOTHING = b"{}"
"""What the specification wants as config where there is none."""
_TAG = "source-"
_A_LAYER = 0.02  # seconds: a registry may ask its storage for each layer before it takes a manifest
_A_SECOND = 20 << 20  # bytes that a registry hashes and moves in a second before it answers for a whole upload
_AT_ONCE = 8  # questions for a blob
_SAID = 4096  # bytes of a refusal that are read
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
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


def speaks_tls(host: str, port: int) -> bool:
    """Whether a server on this machine does. Its certificate is checked later, by who asks it for something.

    Raises Unusable for one that says nothing.
    """
    try:
        ssl.get_server_certificate((host, port), timeout=STALL)
    except TimeoutError:
        raise Unusable(f"{host}: no answer for {STALL:.1f} s") from None
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


def _blob(descriptor: Any, kind: str) -> Blob | None:
    """What a descriptor of this kind names. Raises LookupError, TypeError for what is no descriptor."""
    digest, size = descriptor["digest"], descriptor["size"]
    known = isinstance(digest, str) and re.fullmatch(r"sha256:[0-9a-f]{64}", digest)
    if descriptor["mediaType"] != kind or not known or type(size) is not int or size < 0:
        return None
    return Blob(digest.removeprefix("sha256:"), size)


def _config(manifest: bytes) -> Blob:
    """The blob of the record. Raises UserError for what is no manifest of ours."""
    try:
        found = _blob(parse_json(manifest)["config"], RECORD)
    except (ValueError, LookupError, TypeError):
        raise UserError("a manifest that is not understood") from None
    if found is None or not 0 < found.size <= RECORD_LIMIT:
        raise UserError("a manifest without a record")
    return found


def _file(manifest: bytes) -> Blob:
    """The blob of a source's file. Raises UserError for what is no manifest of ours."""
    try:
        (layer,) = parse_json(manifest)["layers"]
        found = _blob(layer, SOURCE)
    except (ValueError, LookupError, TypeError):
        raise UserError("a manifest that is not understood") from None
    if found is None:
        raise UserError("a manifest without a file of a source")
    return found


def _manifest(kind: str, config: Json, layers: Sequence[Json]) -> bytes:
    return canonical_json(
        {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind, "config": config, "layers": layers}
    )


def _descriptor(kind: str, one: Blob) -> Json:
    return {"mediaType": kind, "digest": f"sha256:{one.sha256}", "size": one.size}


def manifest_of(record: Blob, blobs: Sequence[Blob]) -> bytes:
    """The manifest of a record, which names each blob once."""
    layers = [_descriptor(LAYER, each) for each in dict.fromkeys(blobs)]
    return _manifest(RECORD, _descriptor(RECORD, record), layers)


def source_manifest_of(file: Blob) -> bytes:
    """The manifest of a source's file."""
    nothing = Blob(sha256_bytes(_NOTHING), len(_NOTHING))
    return _manifest(SOURCE, _descriptor(NOTHING, nothing), [_descriptor(SOURCE, file)])


class Oci:
    """The cache in one repository, which is made when something is first pushed to it."""

    def __init__(self, address: str, environment: Mapping[str, str] = os.environ) -> None:
        parts = urlsplit(address)
        self._parts = parts._replace(netloc=parts.netloc.lower())
        host, repository = self._parts.netloc, self._parts.path.removeprefix("/")
        self._repository = repository
        self._web = Web(environment, authorities=tuple(authorities(host, environment)), by_netrc=False)
        self._threads = Threads(_AT_ONCE, "registry")
        self._tokens = Tokens(self._web, repository, lambda: logins.find(host, repository, environment))

    @functools.cached_property
    def _base(self) -> str:
        """https, on this machine also what a server there speaks."""
        host = self._parts.hostname or ""
        plain = is_loopback(host) and not speaks_tls(host, self._parts.port or 443)
        return f"{'http' if plain else 'https'}://{self._parts.netloc}/v2/{self._repository}"

    def _once(
        self,
        method: str,
        address: str,
        *,
        write: bool = False,
        limit: int = _SAID,
        data: bytes | Path | None = None,
        headers: Mapping[str, str] | None = None,
        longer: float = 0.0,
        sink: BinaryIO | None = None,
    ) -> Answer:
        """One answer, with a login if the registry wants one; nobody else is shown it."""

        def ask(shown: str) -> Answer:
            own = {**(headers or {}), **({"Authorization": shown} if shown else {})}
            return self._web.once(method, address, limit=limit, data=data, headers=own, longer=longer, sink=sink)

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

    def _get(self, place: str, limit: int, accept: str = "*/*", sink: BinaryIO | None = None) -> bytes | None:
        address, headers = f"{self._base}/{place}", {"Accept": accept}
        once = functools.partial(self._once, "GET", address, limit=limit, headers=headers, sink=sink)
        answer = self._web.tried(address, once)
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

    def _upload(self, one: Blob, data: bytes | Path) -> None:
        """In one attempt: after a fault nobody knows how much of it an upload has, so the next one opens another."""
        opened = self._expect(self._once("POST", f"{self._base}/blobs/uploads/", write=True), 202)
        place = _place(opened)
        address = f"{place}{'&' if '?' in place else '?'}{urlencode({'digest': f'sha256:{one.sha256}'})}"
        headers = {"Content-Type": "application/octet-stream"}
        longer = one.size / _A_SECOND
        self._expect(self._once("PUT", address, write=True, data=data, headers=headers, longer=longer), 201, 204)

    def publish(self, key: str, record: bytes, blobs: Sequence[Blob]) -> None:
        """Put the record, then the manifest under its tag."""
        own = Blob(sha256_bytes(record), len(record))
        manifest = manifest_of(own, blobs)
        if len(manifest) > MANIFEST_LIMIT:
            raise Unusable(f"a manifest of {len(blobs)} layers has {len(manifest)} bytes, registries take 4 MB")
        if self.missing([own]):
            self.put(own, record)
        self._tag(key, manifest, len(blobs))

    def _tag(self, tag: str, manifest: bytes, layers: int) -> None:
        address, headers = f"{self._base}/manifests/{tag}", {"Content-Type": MANIFEST}
        longer = _A_LAYER * layers

        def once() -> Answer:
            return self._once("PUT", address, write=True, data=manifest, headers=headers, longer=longer)

        self._expect(self._web.tried(address, once), 201)

    def _source(self, name: str) -> Blob | None:
        """The blob of a source's file. Raises UserError for a tag that has none."""
        manifest = self._get(f"manifests/{_TAG}{name}", MANIFEST_LIMIT, MANIFEST)
        return None if manifest is None else _file(manifest)

    def source(self, name: str, sink: BinaryIO, limit: int) -> bool:
        """GET of the blob that the manifest with this tag names; not more of it than was said there. Raises UserError
        for a tag that has none.
        """
        one = self._source(name)
        return one is not None and self._get(f"blobs/sha256:{one.sha256}", min(limit, one.size), sink=sink) is not None

    def has_source(self, name: str) -> bool:
        """Whether there are a manifest and its blob. A tag that has none of ours is as good as nothing."""
        try:
            one = self._source(name)
        except Unusable:
            raise
        except UserError:
            return False
        return one is not None and self._has(one)

    def put_source(self, name: str, path: Path) -> None:
        """Put the file, then its manifest under the tag."""
        one, nothing = Blob(sha256_file(path), path.stat().st_size), Blob(sha256_bytes(_NOTHING), len(_NOTHING))
        self._web.tried(self._base, lambda: self._upload(one, path))
        if not self._has(nothing):
            self.put(nothing, _NOTHING)
        self._tag(f"{_TAG}{name}", source_manifest_of(one), 1)

"""`oci:` sources: an image of a registry, by its repository and digest; each blob of it is pinned by its SHA-256.

A recipe says `oci:docker.io/library/busybox@sha256:DIGEST`, a tag may stand before the `@`, and finds an OCI layout of
one image. A digest of an index stands for its image for our platform. Registries are asked as for pulls of a cluster,
with this user's logins.
"""

from __future__ import annotations

import functools
import http.client
import json
import os
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from sandkube import images, log
from sandkube.build.cache.oci import speaks_tls
from sandkube.build.lock import File, Pin
from sandkube.build.sources import blobs
from sandkube.build.sources.kind import Ask, Source, SourceKind
from sandkube.build.sources.settings import PATIENCE, Patience
from sandkube.decode import decoded, looks_like
from sandkube.digest import sha256_file
from sandkube.documents import parse_json
from sandkube.errors import HashMismatch, Unusable, UserError
from sandkube.files import locked
from sandkube.registry.images import REPOSITORY, Anonymous, Registries, Wanted
from sandkube.registry.tokens import Denied, is_loopback
from sandkube.run import go_on, wait

_NAME = re.compile(
    rf"(?P<registry>(?:localhost|[a-z0-9-]+(?:\.[a-z0-9-]+)+|[a-z0-9-]+(?=:))(?::\d{{1,5}})?)/(?P<repository>{REPOSITORY})"
    r"(?::[A-Za-z0-9_][\w.-]{0,127})?",
    re.ASCII,
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PIECE = 1 << 16
_PASSING = (408, 425, 429)
Digest = Annotated[str, looks_like("a SHA-256", lambda v: bool(_DIGEST.fullmatch(v)))]
Amount = Annotated[int, looks_like("a number of bytes", lambda v: 0 <= v < 1 << 40)]


class _Passing(Exception):
    """A fault that another attempt may mend."""


@dataclass(frozen=True, slots=True)
class _Named:
    """An image's name."""

    registry: str
    repository: str


def _named(source: Source) -> _Named:
    found = _NAME.fullmatch(source.name)
    assert found
    return _Named(found["registry"], found["repository"])


@functools.cache
def _registries(registry: str) -> Registries:
    """What asks one registry: without TLS only where that is this machine, and speaks none."""
    host, _, port = registry.partition(":")
    plain = is_loopback(host) and not speaks_tls(host, int(port or 443))
    return Registries(os.environ, [f"http://{registry}" if plain else registry])


def _check_status(status: int, what: str, registry: str) -> None:
    if status >= 500 or status in _PASSING:
        raise _Passing(f"{registry}: status {status}")
    if status not in (200, 206):
        raise UserError(f"{what}: {registry} has it not: status {status}", hint="is the digest one of that repository?")


@dataclass(frozen=True, slots=True)
class _Part:
    """A manifest or a blob on its way into a file."""

    recipe: str
    image: _Named
    path: str
    into: Path
    size: int
    """Bytes at most."""

    @property
    def _told(self) -> str:
        return f"{self.recipe}: {self.path} of {self.image.registry}/{self.image.repository}"

    def attempt(self) -> None:
        """One request, which goes on where an earlier one was cut. Raises _Passing, UserError."""
        have = self.into.stat().st_size if self.into.exists() else 0
        if have >= self.size:
            return
        headers = {"Accept": ", ".join((*images.INDEXES, *images.MANIFESTS))}
        headers |= {"Range": f"bytes={have}-"} if have else {}
        wanted = Wanted("GET", self.image.registry, self.image.repository, self.path, headers)
        try:
            with _registries(self.image.registry).open(wanted) as answer:
                if answer.status == 416:
                    self.into.unlink()
                    raise _Passing(f"{self.image.registry} has no byte {have}, which came before")
                _check_status(answer.status, self._told, self.image.registry)
                self._receive(answer, have if answer.status == 206 else 0)
        except (Anonymous, Denied) as error:
            raise UserError(f"{self._told}: {error.message}", hint="podman login or docker login has one") from None
        except (Unusable, OSError, http.client.HTTPException) as error:
            raise _Passing(str(error) or type(error).__name__) from None

    def _receive(self, answer: http.client.HTTPResponse, start: int) -> None:
        spoken = time.monotonic()
        with self.into.open("r+b" if start else "wb") as sink:
            sink.seek(start)
            while (piece := answer.read1(_PIECE)) and sink.tell() <= self.size:
                sink.write(piece)
                go_on()
                if time.monotonic() - spoken > PATIENCE.silence:
                    spoken = time.monotonic()
                    log.download(self.recipe, self.image.registry, sink.tell(), self.size)

    def get(self, patience: Patience, *, whole: bool = True) -> None:
        """Try until it is there, `whole` with all of its bytes. Raises UserError."""
        for attempt in range(patience.attempts):
            try:
                self.attempt()
                if not whole or self.into.stat().st_size >= self.size:
                    return
                raise _Passing(f"{self.into.stat().st_size} of {self.size} bytes")
            except _Passing as fault:
                if attempt + 1 == patience.attempts:
                    raise UserError(
                        f"{self._told} could not be fetched: {fault} ({patience.attempts} attempts)",
                        hint="is the network reachable? logins are those of docker and podman",
                    ) from None
                log.step(self.recipe, f"{fault}; trying again")
            wait(patience.pause * 2**attempt)


@dataclass(frozen=True, slots=True)
class _Descriptor:
    """What a document says of another one, or of a layer."""

    digest: Digest
    size: Amount

    def file(self, name: str) -> File:
        """The file that it is of."""
        return File(name, self.digest.removeprefix("sha256:"), self.size)


def _mismatch(recipe: str, image: _Named, path: str, got: str) -> HashMismatch:
    where = f"{image.registry}/{image.repository}"
    return HashMismatch(f"{recipe}: {path}", expected=path.rpartition(":")[2], got=got, origin=where)


def _document(ask: Ask, digest: str, patience: Patience) -> tuple[dict[str, Any], int]:
    """A manifest or an index, checked and kept in the cache, and its size. Raises UserError."""
    image, path = _named(ask.source), f"manifests/{digest}"
    with tempfile.TemporaryDirectory() as temporary:
        into = Path(temporary) / "document"
        _Part(ask.recipe, image, path, into, images.DOCUMENT).get(patience, whole=False)
        if (got := sha256_file(into)) != digest.removeprefix("sha256:"):
            raise _mismatch(ask.recipe, image, path, got)
        blobs.put(ask.cache, into)
        try:
            found = parse_json(into.read_bytes())
        except ValueError as error:
            raise UserError(f"{ask.recipe}: {path}: {error}") from None
        if not isinstance(found, dict):
            raise UserError(f"{ask.recipe}: {path} is no manifest of an image")
        return found, into.stat().st_size


def _descriptor(ask: Ask, table: object) -> _Descriptor:
    """Strict in what counts: a descriptor may say more."""
    known = {key: table.get(key) for key in ("digest", "size")} if isinstance(table, dict) else {}
    return decoded(_Descriptor, known, f"{ask.recipe}: a part of {ask.source}")


def _ours(ask: Ask, index: dict[str, Any]) -> _Descriptor:
    """The image of an index that is for our platform. Raises UserError."""
    rows = [each for each in index.get("manifests") or () if isinstance(each, dict)]
    by_platform = {f"{each.get('os')}/{each.get('architecture')}": row for row in rows if (each := row.get("platform"))}
    if images.PLATFORM not in by_platform:
        known = ", ".join(sorted(map(str, {*by_platform} - {"unknown/unknown"}))) or "none"
        raise UserError(f"{ask.recipe}: {ask.source} has nothing for {images.PLATFORM}; its platforms: {known}")
    return _descriptor(ask, by_platform[images.PLATFORM])


def resolve(ask: Ask, patience: Patience = PATIENCE) -> Pin:
    """The digests of all parts; layers are not fetched for it."""
    digest, files = ask.source.version, list[File]()
    found, size = _document(ask, digest, patience)
    if isinstance(found.get("manifests"), list):
        files.append(_Descriptor(digest, size).file("index.json"))
        digest = _ours(ask, found).digest
        found, size = _document(ask, digest, patience)
    files.append(_Descriptor(digest, size).file("manifest.json"))
    if not isinstance(found.get("layers"), list):
        raise UserError(f"{ask.recipe}: {ask.source} is no image: its manifest has no layers")
    files.append(_descriptor(ask, found.get("config")).file("config.json"))
    for at, each in enumerate(found["layers"], 1):
        files.append(_descriptor(ask, each).file(f"layer-{at}"))
    return Pin("", files=tuple({each.sha256: each for each in files}.values()))


def fetch(ask: Ask, patience: Patience = PATIENCE) -> None:
    """Bring all parts into the cache."""
    image = _named(ask.source)
    for file in ask.pin.files:
        if blobs.sound(ask.cache, file, ask.recipe):
            continue
        kind = "manifests" if file.name in ("index.json", "manifest.json") else "blobs"
        path, partial = f"{kind}/sha256:{file.sha256}", ask.cache / "partial" / file.sha256
        partial.parent.mkdir(parents=True, exist_ok=True)
        with locked(partial.with_name(f"{file.sha256}.lock"), passing=True):
            if blobs.sound(ask.cache, file, ask.recipe):  # another step or command was faster
                continue
            log.step(ask.recipe, f"fetching {file.name} of {ask.source.name}")
            _Part(ask.recipe, image, path, partial, file.size).get(patience)
            if (got := sha256_file(partial)) != file.sha256:
                partial.unlink()
                raise _mismatch(ask.recipe, image, path, got)
            blobs.put(ask.cache, partial)
            partial.unlink()


def snapshot(ask: Ask, into: Path) -> str:
    """An OCI layout of one image, which has no name in it."""
    folder = into / "blobs/sha256"
    folder.mkdir(parents=True)
    for each in ask.pin.files:
        if each.name == "index.json":  # the image for our platform is all of it that counts
            continue
        shutil.copyfile(blobs.checked(ask.cache, each, ask.recipe), folder / each.sha256)
    manifest = next(each for each in ask.pin.files if each.name == "manifest.json")
    kind = parse_json((folder / manifest.sha256).read_bytes()).get("mediaType") or images.MANIFESTS[0]
    entry = {"mediaType": kind, "digest": f"sha256:{manifest.sha256}", "size": manifest.size}
    index = {"schemaVersion": 2, "mediaType": images.INDEXES[0], "manifests": [entry]}
    (into / "index.json").write_text(json.dumps(index, sort_keys=True))
    (into / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
    return blobs.identity("oci", ask.pin.files)


def _check(source: Source) -> str:
    if not _NAME.fullmatch(source.name):
        return f"{source.name!r} is no full name of an image, such as docker.io/library/busybox"
    if not _DIGEST.fullmatch(source.version):
        return f"an image is pinned by its digest, @sha256: and 64 digits, got {source.version!r}"
    return ""


def _misfit(source: Source, pin: Pin) -> str:
    if any(each.in_archive for each in pin.files):
        return "only a deb: source has pool, suite, component and sha1"
    names = [each.name for each in pin.files]
    if "manifest.json" not in names or "config.json" not in names:
        return f"expected a manifest and a configuration, got {', '.join(names)}"
    first = f"sha256:{pin.files[0].sha256}"
    return "" if first == source.version else f"its digest is {first}"


KIND = SourceKind(
    identity=lambda ask: blobs.identity("oci", ask.pin.files),
    resolve=resolve,
    fetch=fetch,
    snapshot=snapshot,
    code=("build/sources/oci", "images", "image_files", "plain_tar"),
    misfit=_misfit,
    check=_check,
)

"""Container images as people have them: archives of `docker save` and OCI image layouts, packed or as folders.

They are read in place, for what they hold and whether it fits; what a node lacks of it is written anew as one plain
tar. Containerd reads that (native/ctr) and checks every byte. https://github.com/opencontainers/image-spec
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sandkube.documents import parse_json
from sandkube.errors import UserError, one_line
from sandkube.image_files import PIECE, Files

PLATFORM = "linux/amd64"
_LAYOUT, _INDEX, _MANIFEST = "oci-layout", "index.json", "manifest.json"
DOCUMENT = 20 << 20  # bytes; containerd reads no longer one
_DEPTH = 4  # indexes in each other
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_FULL_NAME = "io.containerd.image.name"
_NAME = "org.opencontainers.image.ref.name"
INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_COPY = "was it copied to its end? Copy it again, or have it made anew"
_MAKE = "docker save, podman save and skopeo copy make one"


@dataclass(frozen=True, slots=True)
class Image:
    """One image for our platform: the digest of its configuration, its names as the archive has them, and its files.

    `blobs` are those of its files that are named by their digest, by that.
    """

    config: str
    names: tuple[str, ...]
    files: tuple[str, ...]
    blobs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Held:
    """What an archive or a folder holds: images with names, and files that say which."""

    files: Files
    images: tuple[Image, ...]
    heads: tuple[str, ...]

    def parts(self, lacks: Collection[str]) -> list[str]:
        """Files to send where the blobs `lacks` are missing: heads and all that has no digest for a name are."""
        found = dict.fromkeys(self.heads)
        for each in self.images:
            there = {name for digest, name in each.blobs.items() if digest not in lacks}
            found |= dict.fromkeys(name for name in each.files if name not in there)
        return list(found)

    def size(self, parts: Sequence[str]) -> int:
        """Bytes of files, each counted once."""
        return sum(self.files.size(name) for name in {self.files.origin(name): name for name in parts}.values())

    def packed(self, parts: Sequence[str]) -> Iterator[bytes]:
        """Some of the files as a tar. Raises UserError."""
        written: dict[str, str] = {}
        for name in parts:
            member = tarfile.TarInfo(name)
            first = written.setdefault(self.files.origin(name), name)
            if first != name:
                member.type, member.linkname = tarfile.SYMTYPE, posixpath.relpath(first, posixpath.dirname(name) or ".")
                yield member.tobuf(tarfile.GNU_FORMAT)
                continue
            member.size = self.files.size(name)
            yield member.tobuf(tarfile.GNU_FORMAT)
            yield from self.files.pieces(name, PIECE)
            yield bytes(-member.size % tarfile.BLOCKSIZE)
        yield bytes(2 * tarfile.BLOCKSIZE)


def held(files: Files, tag: str) -> Held:
    """What there is in an archive or a folder; `tag` is a name for its only image. Raises UserError."""
    if files.has(_LAYOUT) and files.has(_INDEX):
        found = _of_layout(files)
    elif files.has(_MANIFEST):
        found = _of_docker(files)
    else:
        raise UserError(
            f"{files.name} is no image: it is neither an archive of docker save nor an OCI layout", hint=_MAKE
        )
    return replace(found, images=_named(files.name, found.images, tag))


def _named(name: str, found: Sequence[Image], tag: str) -> tuple[Image, ...]:
    if tag:
        if len({each.config for each in found}) > 1:
            raise UserError(f"{name} holds {len(found)} images: --tag names one", hint="leave it out")
        return (replace(found[0], names=(tag,)),)
    named = tuple(each for each in found if each.names)
    if not named:
        raise UserError(f"{name} holds no image with a name", hint="give it one: --tag NAME:VERSION")
    return named


class _Reader:
    """Reads the documents of one archive."""

    def __init__(self, files: Files) -> None:
        self.files = files

    def wrong(self, text: str) -> UserError:
        """An error about the archive."""
        return UserError(f"{self.files.name}: {text}", hint=_COPY)

    def document(self, name: str, digest: str = "") -> tuple[Any, bytes]:
        """A JSON document, and its bytes, whose digest is checked if there is one."""
        if not self.files.has(name):
            raise self.wrong(f"{_shown(name)} is missing")
        if self.files.size(name) > DOCUMENT:
            raise self.wrong(f"{_shown(name)} is longer than any document of an image")
        data = b"".join(self.files.pieces(name, PIECE))
        if digest and _digest(data) != digest:
            raise self.wrong(f"the bytes of {_shown(name)} have another digest")
        try:
            return parse_json(data), data
        except ValueError as error:
            raise self.wrong(f"{_shown(name)}: {error}") from None

    def get(self, place: str, table: object, key: str, kind: type, default: Any = None) -> Any:
        """A field of a document, which may be left out or null if there is a default."""
        value = table.get(key) if isinstance(table, dict) else None
        if value is None and default is not None and isinstance(table, dict):
            return default
        if not isinstance(value, kind):
            raise self.wrong(f"{_shown(place)}: {key!r} is not what it is in an image")
        return value

    def blob(self, place: str, descriptor: object) -> tuple[str, str]:
        """Digest and file of what a descriptor describes, which is there and has its size."""
        digest, size = self.get(place, descriptor, "digest", str), self.get(place, descriptor, "size", int)
        if not _DIGEST.fullmatch(digest):
            raise self.wrong(f"{_shown(place)}: {digest[:80]!r} is no SHA-256")
        name = f"blobs/sha256/{digest.removeprefix('sha256:')}"
        if not self.files.has(name):
            raise self.wrong(f"{name} is missing")
        if self.files.size(name) != size:
            raise self.wrong(f"{name} has {self.files.size(name)} bytes, not {size}")
        return digest, name

    def names(self, place: str, entry: object) -> tuple[str, ...]:
        """Names of an image in an index. A mere tag is none: nobody knows of what."""
        notes = self.get(place, entry, "annotations", dict, {})
        if full := self.get(place, notes, _FULL_NAME, str, ""):
            return (full,)
        name = self.get(place, notes, _NAME, str, "")
        return (name,) if re.search("[/:]", name) else ()


def _shown(name: str) -> str:
    return one_line(name)[:120]


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _platform(reader: _Reader, place: str, table: object) -> str:
    """The platform of a configuration or a descriptor."""
    return f"{reader.get(place, table, 'os', str, '')}/{reader.get(place, table, 'architecture', str, '')}"


class _Layout:
    """The images of an OCI layout; `others` are platforms that are not ours."""

    def __init__(self, files: Files) -> None:
        self.reader = _Reader(files)
        self.others: set[str] = set()

    def image(self, place: str, entry: object, depth: int = 0) -> Image | None:
        """The image of ours that a descriptor leads to, without its names; None where there is none."""
        reader = self.reader
        kind = reader.get(place, entry, "mediaType", str)
        platform = reader.get(place, entry, "platform", dict, {})
        if platform and _platform(reader, place, platform) != PLATFORM:
            self._other(_platform(reader, place, platform))
            return None
        if kind not in (*INDEXES, *MANIFESTS) or depth > _DEPTH:
            raise reader.wrong(f"{_shown(place)}: {kind[:80]!r} is no image")
        digest, name = reader.blob(place, entry)
        document, _ = reader.document(name, digest)
        if kind in MANIFESTS:
            return self._manifest(name, digest, document)
        for each in reader.get(name, document, "manifests", list):
            if found := self.image(name, each, depth + 1):
                return replace(found, files=(*found.files, name), blobs={**found.blobs, digest: name})
        return None

    def _other(self, platform: str) -> None:
        if platform != "unknown/unknown":  # attestations
            self.others.add(platform)

    def _manifest(self, name: str, digest: str, document: object) -> Image | None:
        reader = self.reader
        of_config = reader.get(name, document, "config", dict)
        layers = reader.get(name, document, "layers", list)
        config, file = reader.blob(name, of_config)
        found, _ = reader.document(file, config)
        platform = _platform(reader, file, found)
        if platform == "/":
            raise reader.wrong(f"{name} is no image: its configuration names no platform")
        if platform != PLATFORM:
            self._other(platform)
            return None
        blobs = dict([(digest, name), (config, file), *(reader.blob(name, each) for each in layers)])
        return Image(config, (), tuple(blobs.values()), blobs)


def _of_layout(files: Files) -> Held:
    layout, reader = _Layout(files), _Reader(files)
    version = reader.get(_LAYOUT, reader.document(_LAYOUT)[0], "imageLayoutVersion", str)
    if version != "1.0.0":
        raise UserError(f"{files.name}: an OCI layout of version {version[:80]!r} is not known, only 1.0.0")
    found: list[Image] = []
    missing: list[str] = []
    for entry in reader.get(_INDEX, reader.document(_INDEX)[0], "manifests", list):
        names = reader.names(_INDEX, entry)
        if (one := layout.image(_INDEX, entry)) is None:
            missing += names
        else:
            found.append(replace(one, names=names))
    having = {name for each in found for name in each.names}
    _check_platforms(files.name, bool(found), [each for each in missing if each not in having], layout.others)
    return Held(files, tuple(found), (_LAYOUT, _INDEX))


def _check_platforms(name: str, fits: object, missing: Sequence[str], others: Collection[str]) -> None:
    if not fits and not others:
        raise UserError(f"{name} holds no image", hint=_MAKE)
    if missing or not fits:
        what = f"{_shown(missing[0])} in {name}" if missing and fits else name
        raise UserError(
            f"{what} is for {', '.join(map(_shown, sorted(others))) or 'no platform'}, and a node runs {PLATFORM}",
            hint=f"build or pull it with --platform {PLATFORM}",
        )


def _of_docker(files: Files) -> Held:
    reader = _Reader(files)
    document, _ = reader.document(_MANIFEST)
    if not isinstance(document, list):
        raise reader.wrong(f"{_MANIFEST} is not what docker save writes")
    found: list[Image] = []
    missing: list[str] = []
    others: set[str] = set()
    for entry in document:
        file = _inner(reader.get(_MANIFEST, entry, "Config", str))
        names = tuple(map(str, reader.get(_MANIFEST, entry, "RepoTags", list, ())))
        layers = tuple(_inner(str(each)) for each in reader.get(_MANIFEST, entry, "Layers", list))
        config, data = reader.document(file)
        stem = posixpath.basename(file).removesuffix(".json")
        if re.fullmatch("[0-9a-f]{64}", stem) and _digest(data) != f"sha256:{stem}":
            raise reader.wrong(f"the bytes of {_shown(file)} have another digest")
        for each in layers:
            if not files.has(each):
                raise reader.wrong(f"{_shown(each)} is missing")
        if (platform := _platform(reader, file, config)) != PLATFORM:
            others.add(platform)
            missing += names
        else:
            found.append(Image(_digest(data), names, (file, *layers)))
    _check_platforms(files.name, found, missing, others)
    return Held(files, tuple(found), (_MANIFEST,))


def _inner(name: str) -> str:
    return posixpath.normpath(name)

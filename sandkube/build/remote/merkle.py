"""Merkle trees: what a command is shown, as an input root of REAPI v2 (`Directory` messages named by SHA-256).

They keep names, contents, symbolic links and the executable bit, as output hashes do; not times, owners, other modes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from sandkube.build.box import CACHE, TMP, ZIG, Mount
from sandkube.build.remote.stubs.build.bazel.remote.execution.v2 import remote_execution_pb2 as api
from sandkube.digest import sha256_bytes, sha256_file
from sandkube.run import go_on

KEPT_ELSEWHERE = (CACHE, ZIG)
"""What compilers keep for later steps writes no byte of an output: a worker gets it empty, and keeps it."""


class Impossible(Exception):
    """What an input root cannot hold, or what workers have not: the text says what the step needs."""


@dataclass(frozen=True, slots=True)
class Digest:
    """SHA-256 and size of a blob."""

    hash: str
    size: int

    def message(self) -> api.Digest:
        """As the protocol has it."""
        return api.Digest(hash=self.hash, size_bytes=self.size)

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """The digest of bytes."""
        return cls(sha256_bytes(data), len(data))

    @classmethod
    def said(cls, message: api.Digest) -> Digest:
        """From the protocol."""
        return cls(message.hash, message.size_bytes)


@dataclass(frozen=True, slots=True)
class File:
    """A regular file, and its bytes or where they are; None while they are only known by name."""

    digest: Digest
    executable: bool
    blob: bytes | Path | None


@dataclass(frozen=True, eq=False)
class Folder:
    """A folder. Never changed: `placed` makes another one."""

    files: Mapping[str, File] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    folders: Mapping[str, Folder] = field(default_factory=dict)

    @cached_property
    def data(self) -> bytes:
        """Its `Directory` message, in canonical form: names sorted."""
        made = api.Directory()
        for name, file in sorted(self.files.items()):
            made.files.add(name=name, digest=file.digest.message(), is_executable=file.executable)
        for name, folder in sorted(self.folders.items()):
            made.directories.add(name=name, digest=folder.digest.message())
        for name, aim in sorted(self.links.items()):
            made.symlinks.add(name=name, target=aim)
        return made.SerializeToString(deterministic=True)

    @cached_property
    def digest(self) -> Digest:
        """What names it and all that is in it."""
        return Digest.of(self.data)

    def blobs(self) -> Iterator[tuple[Digest, bytes | Path]]:
        """Every blob that it is made of; one that is there twice comes twice."""
        yield self.digest, self.data
        for file in self.files.values():
            if file.blob is not None:
                yield file.digest, file.blob
        for folder in self.folders.values():
            yield from folder.blobs()

    def walk(self, above: str = "") -> Iterator[tuple[str, File | str | Folder]]:
        """Every name below it, folders before what is in them; a link as its aim."""
        for table in (self.files, self.links):
            yield from ((above + name, each) for name, each in table.items())
        for name, folder in self.folders.items():
            yield above + name, folder
            yield from folder.walk(f"{above}{name}/")

    def at(self, parts: Sequence[str]) -> Folder:
        """The folder at a path, empty where there is none."""
        return self.folders.get(parts[0], Folder()).at(parts[1:]) if parts else self

    def placed(self, parts: Sequence[str], node: Folder | File) -> Folder:
        """The same with a folder or file at a path, in place of what was there."""
        first, *rest = parts
        files = {name: each for name, each in self.files.items() if name != first}
        links = {name: each for name, each in self.links.items() if name != first}
        folders = dict(self.folders)
        if rest:
            folders[first] = folders.get(first, Folder()).placed(rest, node)
        elif isinstance(node, Folder):
            folders[first] = node
        else:
            folders.pop(first, None)
            files[first] = node
        return Folder(files, links, folders)


def parts_of(inside: str) -> tuple[str, ...]:
    """The parts of an absolute path."""
    return tuple(each for each in inside.split("/") if each)


def _file(path: Path, status: os.stat_result) -> File:
    go_on()
    return File(Digest(sha256_file(path), status.st_size), bool(status.st_mode & stat.S_IXUSR), path)


def read_folder(path: Path) -> Folder:
    """A folder of this machine. Raises Impossible for what a Merkle tree cannot hold."""
    files, links, folders = {}, {}, {}
    with os.scandir(path) as found:
        entries = list(found)
    for entry in entries:
        name, status, here = entry.name, entry.stat(follow_symlinks=False), Path(entry.path)
        if not _is_text(name):
            raise Impossible(f"it is shown a file whose name is no UTF-8: {name!r}")
        if stat.S_ISREG(status.st_mode):
            files[name] = _file(here, status)
        elif stat.S_ISDIR(status.st_mode):
            folders[name] = read_folder(here)
        elif stat.S_ISLNK(status.st_mode):
            links[name] = os.readlink(here)  # noqa: PTH115
            if not _is_text(links[name]):
                raise Impossible(f"it is shown a link that leads to what is no UTF-8: {name!r}")
        else:
            raise Impossible(f"it is shown {name}, which is neither file, folder nor symbolic link")
    return Folder(files, links, folders)


def _is_text(name: str) -> bool:
    return name.isascii() or not any("\ud800" <= each <= "\udfff" for each in name)


@dataclass(slots=True)
class Trees:
    """Reads what commands are shown; folders below `fixed`, which do not change, once."""

    fixed: tuple[Path, ...] = ()
    _known: dict[Path, Folder] = field(default_factory=dict)

    def _node(self, mount: Mount) -> Folder | File:
        if mount.inside in KEPT_ELSEWHERE:
            return Folder()
        status = mount.host.stat()
        if stat.S_ISREG(status.st_mode) and not mount.writable:
            return _file(mount.host, status)
        if not stat.S_ISDIR(status.st_mode):
            raise Impossible(f"it is shown {mount.inside}, which is neither file nor folder")
        if mount.writable or not any(mount.host.is_relative_to(each) for each in self.fixed):
            return read_folder(mount.host)
        if mount.host not in self._known:
            self._known[mount.host] = read_folder(mount.host)
        return self._known[mount.host]

    def root(self, mounts: Sequence[Mount]) -> Folder:
        """The input root: mounts at their paths, and an empty /tmp. Raises Impossible."""
        root = Folder().placed(parts_of(TMP), Folder())
        for mount in mounts:
            root = root.placed(parts_of(mount.inside), self._node(mount))
        return root

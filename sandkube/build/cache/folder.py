"""A folder as a cache, on this machine or on a network file system: `ac/<key>`, `cas/<sha256>` and `sources/<name>`.

It is laid out as `http` asks for it, so a web server that shows the folder serves it to readers. Several may write at
once: a file is renamed into place when it is whole. A half-written one, left by a crash, is told by its size or hash.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sandkube.build.cache.kind import RECORD_LIMIT, Blob
from sandkube.errors import Unusable
from sandkube.files import copy_some, copy_whole, open_regular, sweep_old, write_whole


@functools.cache
def _sweep(folder: Path) -> None:
    """Once a run: remove what pushes that were killed have left, a day after."""
    sweep_old(folder, ".*")


@dataclass(frozen=True, slots=True)
class Folder:
    """The cache in one folder, which is made when something is first written."""

    path: Path

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Unusable(f"{error.filename or self.path}: {error.strerror}") from None

    def _read(self, kind: str, name: str, limit: int) -> bytes | None:
        with self._told():
            try:
                with open_regular(self.path / kind / name) as stream:
                    return stream.read(limit)
            except FileNotFoundError:
                return None

    def _write(self, kind: str, name: str, data: bytes) -> None:
        with self._told():
            target = self.path / kind / name
            target.parent.mkdir(parents=True, exist_ok=True)
            _sweep(target.parent)
            write_whole(target, data, sync=False)

    def record(self, key: str) -> bytes | None:
        """The file of a key, which counts as used now."""
        found = self._read("ac", key, RECORD_LIMIT + 1)
        if found is not None:
            with contextlib.suppress(OSError):  # where it may only be read
                os.utime(self.path / "ac" / key)
        return found

    def blob(self, one: Blob) -> bytes | None:
        """The file of a blob."""
        return self._read("cas", one.sha256, one.size + 1)

    def missing(self, blobs: Sequence[Blob]) -> list[Blob]:
        """By size; what has the size and other bytes is told by who reads it."""
        return [each for each in blobs if self._size(each) != each.size]

    def _size(self, one: Blob) -> int:
        with self._told():
            path = self.path / "cas" / one.sha256
            try:
                size = path.stat().st_size
            except FileNotFoundError:
                return -1
            with contextlib.suppress(OSError):  # where it may only be read; upkeep leaves what was asked for lately
                os.utime(path)
            return size

    def put(self, one: Blob, data: bytes) -> None:
        """Write a file."""
        self._write("cas", one.sha256, data)

    def publish(self, key: str, record: bytes, _blobs: Sequence[Blob]) -> None:
        """Write the file of a key. Upkeep (`sandkube.build.cache.upkeep`) finds its blobs by its index."""
        self._write("ac", key, record)

    def source(self, name: str, sink: BinaryIO, limit: int) -> bool:
        """Copy the file of a name."""
        with self._told():
            try:
                with open_regular(self.path / "sources" / name) as stream:
                    copy_some(stream, sink, limit + 1)
            except FileNotFoundError:
                return False
        return True

    def has_source(self, name: str) -> bool:
        """By its file."""
        with self._told():
            return (self.path / "sources" / name).is_file()

    def put_source(self, name: str, path: Path) -> None:
        """Copy a file."""
        with self._told():
            target = self.path / "sources" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_whole(path, target)

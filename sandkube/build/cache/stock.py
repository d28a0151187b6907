"""Files of sources in the caches of a user. Their names say which bytes they must have, so nobody need sign them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from pathlib import Path

from sandkube.build.cache.kind import SourceCache
from sandkube.build.cache.place import Place
from sandkube.build.cache.shared import Shared
from sandkube.build.cache.threads import result
from sandkube.errors import UserError
from sandkube.run import go_on

_LEAVE = 1.0
"""Seconds for those who are asking still, when the user asks to stop: a server may be silent."""


class Stock:
    """The caches that keep files of sources, asked in order. Thread-safe."""

    def __init__(self, shared: Shared | None) -> None:
        self._shared = shared

    def __bool__(self) -> bool:
        return any(self._usable())

    def _all(self) -> Iterator[tuple[Place, SourceCache]]:
        for each in self._shared.places if self._shared else ():
            if isinstance(each.cache, SourceCache):
                yield each, each.cache

    def _usable(self) -> Iterator[tuple[Place, SourceCache]]:
        return ((place, cache) for place, cache in self._all() if place.has_sources)

    def writable(self) -> bool:
        """Whether there is one that files can be given to."""
        return any(place.takes_sources for place, _ in self._all())

    def find_all(
        self, wanted: Sequence[tuple[str, int]], folder: Path, sound: Callable[[str, Path], bool]
    ) -> list[tuple[str, Path]]:
        """Files by (name, bytes at most) that a cache has, several at once, in a folder. `sound` judges their bytes.

        Raises Interrupted; nobody writes to the folder then, unless a server is silent.
        """
        if not self or self._shared is None:
            return []
        coming = [self._shared.threads.submit(self._find, *each, folder, sound) for each in wanted]
        try:
            return [found for each in coming if (found := result(each))]
        finally:
            wait([each for each in coming if not each.cancel()], _LEAVE)

    def _find(self, name: str, limit: int, folder: Path, sound: Callable[[str, Path], bool]) -> tuple[str, Path] | None:
        path = folder / name
        for place, cache in self._usable():
            go_on()
            if name in place.wrong_sources:
                continue
            try:
                with path.open("wb") as sink:
                    found, size = cache.source(name, sink, limit), sink.tell()
                good = found and size <= limit and sound(name, path)
            except (UserError, OSError) as error:  # or what it gives fills the disk: without it there may be room
                place.source_failed(error)
                continue
            if not found:
                continue
            place.moved(received=size)
            if good:
                place.sources += 1
                return name, path
            place.wrong_sources.add(name)
            place.source_failed(f"source {name[:12]} has other bytes")
        path.unlink(missing_ok=True)
        return None

    def give(self, name: str, path: Callable[[], Path | None]) -> None:
        """Give a file to the caches that may be written and have it not, or had other bytes; `path` makes it where one
        lacks it.
        """
        for place, cache in self._all():
            if not place.takes_sources:
                continue
            try:
                if (name in place.wrong_sources or not cache.has_source(name)) and (made := path()):
                    cache.put_source(name, made)
                    place.wrong_sources.discard(name)
                    place.moved(sent=made.stat().st_size)
            except (UserError, OSError) as error:  # or it is gone from this user's cache meanwhile
                place.source_failed(error, writing=True)

"""All caches of a user as one: records that are believed, trees that are hashed, and what went wrong on the way.

A cache that is away, full, lying or half-written costs time, and a line at the end; it never fails a build.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from sandkube import log
from sandkube.build.cache import chunks
from sandkube.build.cache.chunks import Chunk
from sandkube.build.cache.keys import Keys
from sandkube.build.cache.kind import Blob
from sandkube.build.cache.place import Found, Place
from sandkube.build.cache.settings import Setting
from sandkube.build.cache.statement import joined, kept
from sandkube.build.cache.threads import Threads, result
from sandkube.build.store import Record
from sandkube.digest import sha256_bytes
from sandkube.errors import Unusable, UserError
from sandkube.restore import BadNar, restore
from sandkube.run import go_on

_AT_ONCE = 8  # blobs on their way
_SILENCE = 5.0  # seconds between lines of progress
_AHEAD = 32  # chunks that are asked for before they are needed: 32 MB at most


_AtHand = Mapping[str, Callable[[], bytes]]
"""What reads a chunk that is here already, by its hash."""


class _Gone(Exception):
    """No cache has the bytes of a chunk."""


class Shared:
    """The caches of a user. Thread-safe."""

    def __init__(self, settings: Iterable[Setting], keys: Keys) -> None:
        self.places: list[Place] = []
        self.keys = keys
        self._found: dict[str, list[Found]] = {}
        self._quarrels: dict[str, str] = {}
        self.threads = Threads(_AT_ONCE, "cache")
        """Those that wait for caches."""
        chosen = tuple(settings)
        trusted = keys.trusted() if chosen else ()
        for each in chosen:
            if unknown := sorted(set(each.trust) - {one.name for one in trusted}):
                raise UserError(
                    f"{each.address}: no key {unknown[0]!r} is trusted", hint="./do key list shows those that are"
                )
            believed = tuple(one for one in trusted if not each.trust or one.name in each.trust)
            self.places.append(Place(each, each.open(), believed))

    def __bool__(self) -> bool:
        return bool(self.places)

    def report(self) -> Iterator[str]:
        """What happened with each cache, a line each; nothing for one that was not used and has no fault."""
        for each in self.places:
            yield from each.report()
        for name, text in sorted(self._quarrels.items()):
            yield f"warning: caches disagree on {name}, so none is used: {text}"

    def record(self, name: str, key: str) -> Record | None:
        """The record of a key, if one is found that is believed; none where two that are believed disagree."""
        if key not in self._found:
            found = [each for each in self.threads.map(lambda place: place.asked(name, key), self.places) if each]
            self._found[key] = found
            if len({each.signed.record.output for each in found}) > 1:
                self._quarrels[name] = "; ".join(
                    f"{each.signed.record.output[:12]} by {', '.join(each.signers)} in {each.place.setting.address}"
                    for each in found
                )
                self._found[key] = []
        return self._found[key][0].signed.record.record() if self._found[key] else None

    def signed(self, record: Record, known: bytes | None = None) -> bytes | None:
        """What caches keep of a record that they were asked for, with all signatures that were found on it.

        `known`: what was kept of it before.
        """
        found = kept(known, record)
        for each in self._found.get(record.key, ()):
            if each.signed.record.output == record.output:
                found = joined(found, each.signed)
        return found.encode() if found else None

    def has(self, name: str, record: Record) -> bool:
        """Whether some cache seems to have the tree of a record: what lists its chunks is there."""
        self.record(name, record.key)
        return any(
            found.signed.record.output == record.output and result(self.threads.submit(self._lists, found))
            for found in self._found[record.key]
        )

    def _lists(self, found: Found) -> bool:
        index = found.signed.index
        try:
            return index is not None and found.place.usable and not found.place.cache.missing([index.blob()])
        except Unusable as error:
            found.place.failed(error)
            return False

    def pull(self, name: str, record: Record, folder: Path, old: Path | None = None) -> tuple[Path, Place] | None:
        """Make the tree of a record in a staging folder, in its final form; with the cache that had it.

        `old`: a tree that may have some of the same bytes. None where no cache has all of the tree.
        """
        self.record(name, record.key)
        for count, found in enumerate(self._found[record.key]):
            index = found.signed.index
            if index is not None and found.signed.record.output == record.output and found.place.usable:
                try:
                    self._pull(found, index.blob(), at := folder / f"pulled-{count}", old)
                except _Gone:
                    found.place.lost.add(record.key)
                    continue
                found.place.trees += 1
                return at, found.place
        return None

    def _pull(self, found: Found, index: Blob, at: Path, old: Path | None) -> None:
        statement = found.signed.record
        if index.size > chunks.index_limit(statement.size):  # it would be held in memory to find out
            found.place.failed(f"{statement.name}: an index that is too large for what was signed")
            raise _Gone
        data = result(self.threads.submit(self._blob, found.place, index))
        if data is None:
            raise _Gone
        try:
            listed = list(chunks.decode(data))
            if sum(each.size for each in listed) != statement.size:
                raise UserError("an index that is not of the size that was signed")
            with (
                self._at_hand(old, listed) as held,
                contextlib.closing(self._pieces(statement.name, found.place, listed, held)) as pieces,
            ):
                made = restore(pieces, at)
        except (BadNar, UserError) as error:
            found.place.failed(f"{statement.name}: {error.message}")
            raise _Gone from None
        if made == statement.output and (at.is_symlink() or not at.is_dir()):  # no step makes such an output
            found.place.failed(f"{statement.name}: what it has is no folder")
            raise _Gone
        if made != statement.output:
            found.place.failed(f"{statement.name}: the tree that it has is not {statement.output[:12]}")
            raise _Gone

    def _blob(self, first: Place, one: Blob) -> bytes | None:
        """The bytes of a blob, hashed, from any cache that has it."""
        for place in (first, *(each for each in self.places if each is not first)):
            if not place.usable:
                continue
            try:
                data = place.cache.blob(one)
            except Unusable as error:
                place.failed(error)
                continue
            if data is None:
                continue
            place.moved(received=len(data))
            if len(data) == one.size and sha256_bytes(data) == one.sha256:
                return data
            place.wrong.add(one)
            place.failed(f"blob {one.sha256[:12]} has other bytes")
        return None

    def _chunk(self, place: Place, one: Chunk) -> bytes:
        data = self._blob(place, one.blob)
        if data is None or (unpacked := chunks.unpack(one, data)) is None:
            raise _Gone
        return unpacked

    def _pieces(self, name: str, place: Place, listed: Sequence[Chunk], held: _AtHand) -> Generator[bytes]:
        """The chunks in order, asked for ahead of their use; how far it is is told now and then."""
        coming: list[Future[bytes] | Callable[[], bytes]] = []
        size = sum(each.blob.size for each in listed if each.sha256 not in held)
        came, spoken = 0, time.monotonic()
        try:
            for at in range(len(listed) + _AHEAD):
                go_on()
                if at < len(listed):
                    each = listed[at]
                    coming.append(held.get(each.sha256) or self.threads.submit(self._chunk, place, each))
                if at < _AHEAD or not coming:
                    continue
                yield _ready(coming.pop(0))
                done = listed[at - _AHEAD]
                came += done.blob.size if done.sha256 not in held else 0
                if time.monotonic() - spoken > _SILENCE:
                    spoken = time.monotonic()
                    log.download(name, place.setting.address, came, size)
        finally:
            for one in coming:
                if isinstance(one, Future):
                    one.cancel()

    @contextlib.contextmanager
    def _at_hand(self, old: Path | None, listed: Sequence[Chunk]) -> Iterator[_AtHand]:
        """Chunks of a tree that is here already, by their hash."""
        held: dict[str, Callable[[], bytes]] = {}
        wanted = {each.sha256: each.size for each in listed}
        with tempfile.TemporaryFile() as sink:

            def take(data: bytes) -> None:
                name, size = sha256_bytes(data), len(data)
                if wanted.get(name) == size and name not in held:
                    held[name] = functools.partial(os.pread, sink.fileno(), size, sink.tell())
                    sink.write(data)

            if old is not None:
                with contextlib.suppress(OSError, UserError):  # damaged, or gone: it would only have helped
                    chunks.cut(old, take)
            sink.flush()
            yield held


def _ready(one: Future[bytes] | Callable[[], bytes]) -> bytes:
    return result(one) if isinstance(one, Future) else one()

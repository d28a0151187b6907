"""Giving caches what was built here: chunks that they lack, then the index, then the signed record."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from sandkube.build.cache import chunks
from sandkube.build.cache.chunks import Chunk
from sandkube.build.cache.keys import sign, signers
from sandkube.build.cache.kind import Blob
from sandkube.build.cache.place import Place
from sandkube.build.cache.shared import Shared
from sandkube.build.cache.statement import Index, Signed, Statement, joined, kept, read
from sandkube.build.cache.threads import Threads, result
from sandkube.build.store import Record
from sandkube.digest import sha256_bytes
from sandkube.errors import Unusable, UserError, told
from sandkube.run import go_on

T = TypeVar("T")
X = TypeVar("X")
_BATCH = 32  # chunks that are held at a time: 32 MB at most


NOBODY = "it was taken in without a signature that counts"
UNSIZED = "who signed it had not its tree"


class _Settled(Exception):
    """A cache needs nothing of a record."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """What is said of a record: our own word, to be signed by us, or that of others, with their signatures."""

    record: Record
    theirs: Signed | None
    keys: Mapping[str, Any]

    def signed(self, size: int, index: Index | None, known: Signed | None) -> Signed:
        """The document for a cache that says `known` of it already. `size`: of the NAR, 0 where nobody says."""
        if self.theirs is not None:
            mine = Signed(self.theirs.record, index, self.theirs.signatures)
            return mine if known is None or known.record != mine.record else joined(mine, known)
        one = Statement(self.record.key, self.record.name, self.record.output, size, self.record.preimage)
        # The same tree may be known by another recipe's name: what was signed stays as it is.
        same = known is not None and replace(known.record, name=one.name) == one
        statement, signatures = (known.record, known.signatures) if known is not None and same else (one, {})
        return Signed(statement, index, {**signatures, **sign(statement, self.keys)})

    def adds_to(self, known: Signed) -> bool:
        """Whether a cache that has a document, and its tree, lacks a signature of this claim."""
        if self.theirs is None:
            return not sign(known.record, self.keys).items() <= known.signatures.items()
        return known.record == self.theirs.record and not self.theirs.signatures.items() <= known.signatures.items()


class Pusher:
    """Pushes trees to those caches of a user that may be written, signed with the user's own keys; one at a time, in
    the background. Without a key it pushes nothing, unless what it pushes may go `unsigned`, signed by nobody here.

    Signed is what was built here. `theirs` gives what others signed of a record that was adopted, by its key: that is
    handed on as it is.
    """

    def __init__(
        self, shared: Shared, theirs: Callable[[str], bytes | None] = lambda _: None, *, unsigned: bool = False
    ) -> None:
        self._shared = shared
        self._theirs = theirs
        self._unsigned = unsigned
        self._worker = Threads(1, "push")
        self._waiting: list[tuple[str, Future[None]]] = []
        signs = not unsigned and any(each.setting.write for each in shared.places)
        self._keys: Mapping[str, Any] = shared.keys.own() if signs else {}

    @property
    def able(self) -> bool:
        """Whether there is a cache to write to, and a key to sign with."""
        return bool(self._keys) or self._unsigned

    def later(self, record: Record, tree: Path) -> None:
        """Push a record and its tree when those before it were pushed."""
        if self.able and record.shareable:
            self.behind(record.name, lambda: self.push(record, tree))

    def behind(self, name: str, work: Callable[[], None]) -> None:
        """Do something else for a recipe when what was to be pushed before is. What goes wrong is the caches' fault: no
        step fails for what others are given.
        """
        try:
            self._waiting.append((name, self._worker.submit(self._told, work)))
        except UserError as error:
            self._failed(error)

    def _told(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (UserError, OSError) as error:
            self._failed(error)

    def _failed(self, error: UserError | OSError) -> None:
        for place in self._writable():
            place.failed(error, writing=True)

    def drain(self) -> Iterator[str]:
        """Wait for what is under way, step by step; the name of each before the wait. Raises what went wrong."""
        try:
            for name, future in self._waiting:
                yield name
                result(future)
        finally:
            for _, future in self._waiting:
                future.cancel()
            self._waiting.clear()

    def push(self, record: Record, tree: Path) -> None:
        """Push a record and its tree to each cache that has it not, signed by us. Raises Interrupted."""
        if claim := self._claim(record):
            if claim.theirs is not None and not claim.theirs.record.size:
                return self._keep(record, self._writable(), UNSIZED)
            if todo := self._todo(claim, whole=True):
                self._send(claim, tree, todo)
        return None

    def tell(self, record: Record) -> None:
        """Publish a record without its tree, enough to decide by, where there is none. Raises Interrupted."""
        if claim := self._claim(record):
            for place, known in self._todo(claim, whole=False):
                signed = claim.signed(0, None, known)
                # One that lists a tree stays: a registry is told its blobs again only by who has them.
                if known is None or (known.index is None and known.record == signed.record):
                    self._publish(place, signed, [])

    def _writable(self) -> list[Place]:
        return [each for each in self._shared.places if each.writable]

    def _claim(self, record: Record) -> _Claim | None:
        """What may be said of a record; None where that is nothing, which is noted if it is to be told."""
        if not (record.shareable and self.able):
            return None
        theirs = kept(self._theirs(record.key), record) if record.adopted else None
        if record.adopted and theirs is None and not self._unsigned:
            self._keep(record, self._writable(), NOBODY)
            return None
        return _Claim(record, theirs, {} if record.adopted else self._keys)

    def _todo(self, claim: _Claim, *, whole: bool) -> list[tuple[Place, Signed | None]]:
        """Caches that are to be given something of a record, `whole` with its tree, and what each says of it now."""
        todo: list[tuple[Place, Signed | None]] = []
        for place in self._writable():
            with contextlib.suppress(_Settled):
                todo.append((place, self._before(place, claim, whole=whole)))
        return todo

    def _before(self, place: Place, claim: _Claim, *, whole: bool) -> Signed | None:
        """What a cache says of a key already. Raises _Settled where there is nothing to add to it."""
        record = claim.record
        try:
            data = self._asked(place.cache.record, record.key)
            found = None if data is None else read(data, record.key)
            if found is None:
                return None
            if found.record.output == record.output:
                if not claim.adds_to(found) and (not whole or self._whole(place, found)):
                    raise _Settled
                return found
        except Unusable as error:
            place.failed(error, writing=True)
            raise _Settled from None
        except UserError:  # damaged: it is replaced
            return None
        if names := signers(found, place.trusted):
            place.kept[record.name] = (
                f"{', '.join(names)} signed {found.record.output[:12]}, here it is {record.output[:12]}"
            )
            raise _Settled
        return None

    def _whole(self, place: Place, found: Signed) -> bool:
        """Whether a cache has the tree of a record, as far as is known."""
        if found.index is None or found.record.key in place.lost:
            return False
        return not self._asked(place.cache.missing, [found.index.blob()])

    def _asked(self, method: Callable[[X], T], value: X) -> T:
        return result(self._shared.threads.submit(method, value))

    def _send(self, claim: _Claim, tree: Path, todo: Sequence[tuple[Place, Signed | None]]) -> None:
        record, places = claim.record, [place for place, _ in todo]
        listed: list[Chunk] = []
        held: list[bytes] = []
        sending = [*places]
        whole = hashlib.sha256()

        def flush() -> None:
            go_on()
            packed = self._shared.threads.map(chunks.pack, held) if sending else []
            listed.extend(chunk for chunk, _ in packed)
            blobs = {chunk.blob: data for chunk, data in packed}
            sending[:] = [each for each in sending if self._give(each, blobs)]
            held.clear()

        def take(data: bytes) -> None:
            whole.update(data)
            held.append(data)
            if len(held) == _BATCH:
                flush()

        try:
            chunks.cut(tree, take)
            flush()
        except (OSError, UserError) as error:  # taken out meanwhile, or the disk fails
            return self._keep(record, places, told(error))
        if whole.hexdigest() != record.output:
            return self._keep(record, places, "the tree here is damaged")
        index = chunks.encode(listed)
        name = Blob(sha256_bytes(index), len(index))
        size = sum(each.size for each in listed)
        for place, known in todo:
            if place in sending and self._give(place, {name: index}):
                signed = claim.signed(size, Index(name.sha256, name.size), known)
                self._publish(place, signed, [name, *(each.blob for each in listed)])
        return None

    def _keep(self, record: Record, places: Sequence[Place], why: str) -> None:
        for place in places:
            place.kept[record.name] = why

    def _give(self, place: Place, blobs: Mapping[Blob, bytes]) -> bool:
        """Put the blobs that a cache lacks; whether it has them all now."""
        try:
            missing = {*self._asked(place.cache.missing, list(blobs)), *(each for each in blobs if each in place.wrong)}
            sent = {each: self._shared.threads.submit(place.cache.put, each, blobs[each]) for each in missing}
            for each, one in sent.items():
                result(one)
                place.moved(sent=each.size)
        except Unusable as error:
            place.failed(error, writing=True)
            return False
        return True

    def _publish(self, place: Place, signed: Signed, blobs: Sequence[Blob]) -> None:
        try:
            publish = place.cache.publish
            result(self._shared.threads.submit(publish, signed.record.key, signed.encode(), blobs))
        except Unusable as error:
            place.failed(error, writing=True)

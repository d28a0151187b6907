"""A cache in one file, to be carried: a plain tar with the layout of `folder`, `ac/<key>` and `cas/<sha256>`.

It is a closure: the records of all steps that the chosen ones need, so that who has it decides the whole graph, and
the trees of the chosen ones. The same store and keys make the same bytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sandkube import log, pack
from sandkube.build.cache.folder import Folder
from sandkube.build.cache.keys import Keys, PublicKey, signers
from sandkube.build.cache.kind import RECORD_LIMIT, Blob
from sandkube.build.cache.place import Found, Place
from sandkube.build.cache.push import NOBODY, Pusher
from sandkube.build.cache.settings import Setting
from sandkube.build.cache.shared import Shared
from sandkube.build.cache.statement import Signed, joined, kept, read
from sandkube.build.store import Condition, DamagedRecord, Record, Store
from sandkube.documents import regular_file_fault
from sandkube.errors import Problems, Unusable, UserError, one_line
from sandkube.plain_tar import Extent, extents

_UNSIGNED = "what was imported with --unsigned is handed on with --unsigned only, for nobody here knows who made it"
_LAYOUT = re.compile(r"(ac|cas)/[0-9a-f]{64}")


class Bundle:
    """The cache in a tar, which is only read."""

    def __init__(self, path: Path) -> None:
        self.name = one_line(path)
        if fault := regular_file_fault(path):
            raise UserError(f"{self.name}: {fault}")
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._files: Mapping[str, Extent] = extents(
            self._descriptor, self.name, lambda name: bool(_LAYOUT.fullmatch(name))
        )

    def steps(self) -> Sequence[str]:
        """The keys that it has records of."""
        return sorted(name.removeprefix("ac/") for name in self._files if name.startswith("ac/"))

    def _read(self, name: str, most: int) -> bytes | None:
        found = self._files.get(name)
        try:
            return None if found is None else found.read(self._descriptor, most)
        except OSError as error:
            raise Unusable(f"{self.name}: {error.strerror}") from None

    def record(self, key: str) -> bytes | None:
        """The file of a key."""
        return self._read(f"ac/{key}", RECORD_LIMIT + 1)

    def blob(self, one: Blob) -> bytes | None:
        """The file of a blob."""
        return self._read(f"cas/{one.sha256}", one.size + 1)

    def missing(self, blobs: Sequence[Blob]) -> list[Blob]:
        """All that it has not."""
        return [each for each in blobs if f"cas/{each.sha256}" not in self._files]

    def put(self, _one: Blob, _data: bytes) -> None:
        """Refuse."""
        raise Unusable(f"{self.name}: is only read")

    def publish(self, _key: str, _record: bytes, _blobs: Sequence[Blob]) -> None:
        """Refuse."""
        raise Unusable(f"{self.name}: is only read")


def write(
    target: Path, records: Mapping[str, Record], whole: Collection[str], store: Store, keys: Keys, *, unsigned: bool
) -> None:
    """Write records of recipes, and the trees of those that are `whole`; what was at `target` is replaced when all of
    it is written. Signed is what was built here, unless it goes `unsigned`; the rest has the signatures that it came
    with. Raises UserError, also where a record or a tree may not or cannot be handed on, and OSError.
    """
    if mine := sorted(name for name, each in records.items() if not each.shareable):
        raise UserError(
            f"export: made without the build sandbox, which nobody else is to believe: {', '.join(mine)}",
            hint="without --no-build-sandbox they are built anew",
        )
    shared = Shared((), keys)
    with store.staging() as staging:
        place = Place(Setting(one_line(target), write=True), Folder(staging / "cache"), ())
        shared.places.append(place)
        pusher = Pusher(shared, store.signed, unsigned=unsigned)
        if not pusher.able:
            raise UserError("there is no key to sign with", hint="./do key new NAME makes one; --unsigned goes without")
        _fill(pusher, place, records, whole, store)
        _put_in_place(staging / "cache", target)


def _fill(pusher: Pusher, place: Place, records: Mapping[str, Record], whole: Collection[str], store: Store) -> None:
    """Each key once, whole if some recipe with it is. Raises UserError where something is lacking then."""
    trees = {records[name].key for name in whole}
    named = {each.key: name for name, each in sorted(records.items(), key=lambda row: row[0] in whole)}
    for key, name in sorted(named.items(), key=lambda row: row[1]):
        one = replace(records[name], name=name)  # the record's own is that of whichever recipe was built last
        if key not in trees:
            pusher.tell(one)
            continue
        with log.running(name, "packing"):
            pusher.push(one, store.tree(one.output))
    if place.faults:
        raise UserError(place.fault)
    if place.kept:
        said = [f"export: {name}: {why}" for name, why in place.kept.items()]
        raise Problems(said, hint=_UNSIGNED if NOBODY in place.kept.values() else None)


def _put_in_place(folder: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        pack.write_tar({".": folder}, temporary, modes={}, mtime=0)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(target)
    except OSError as error:  # a full disk names no file
        raise OSError(error.errno, error.strerror, str(target)) from None
    finally:
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Taken:
    """What was taken in: how many records, the recipes whose trees came, and who signed."""

    records: int
    trees: Sequence[str]
    signers: Sequence[str]


def take_in(one: Bundle, store: Store, keys: Keys, *, signatures: int = 1, unsigned: bool = False) -> Taken:
    """Take all that a bundle has into the store: trees first, then records. `signatures`: of so many trusted keys are
    wanted; none if `unsigned`. Raises UserError before anything is taken where a record is not believed, and where a
    tree is not whole.
    """
    place = Place(Setting(one.name, signatures=0 if unsigned else signatures), one, keys.trusted())
    shared = Shared((), keys)
    shared.places.append(place)
    believed = [_believed(place, one, key) for key in one.steps()]
    if not believed:
        raise UserError(f"{one.name}: holds no record", hint="./do export writes such files")
    wanted = [each.signed for each in believed if _fits(store, each.signed.record.record())]
    trees = [each.record.record() for each in wanted if each.index is not None]
    for record in trees:
        if store.inspect(record.output) is not Condition.SOUND:
            _take_tree(shared, store, record)
    for found in believed:
        _adopt(store, found.signed, one.name, unsigned=unsigned)
    names = {name for each in believed for name in each.signers}
    return Taken(len(wanted), sorted(each.name for each in trees), sorted(names))


def _believed(place: Place, one: Bundle, key: str) -> Found:
    if found := place.asked(key, key):
        return found
    if place.fault:
        raise UserError(place.fault)
    why, data = place.refused.get(key, ""), one.record(key)
    try:
        signed = read(data or b"", key)
    except UserError as error:
        raise UserError(f"{one.name}: record {key[:12]}: {error.message}") from None
    strangers = [] if signers(signed, place.trusted) else list(_strangers(signed))
    if not strangers:
        raise UserError(f"{one.name}: {signed.record.name}: {why}", hint="--unsigned takes it all the same")
    raise UserError(
        f"{one.name}: {signed.record.name} is signed by a key that is not trusted here: {' and '.join(strangers)}",
        hint=f"if it is whose you think it is (./do key list shows it there): ./do key trust NAME:{strangers[0]}; "
        "--unsigned takes it all the same",
    )


def _strangers(signed: Signed) -> Iterator[str]:
    """Public keys whose signature is right."""
    for public in sorted(signed.signatures):
        yield from signers(signed, [PublicKey(public, public)])


def _known(store: Store, key: str) -> Record | None:
    """The record of a key that is here, sound, and counts whatever others say."""
    try:
        found = store.record(key)
    except DamagedRecord:
        return None
    return found if found and found.shareable else None


def _fits(store: Store, record: Record) -> bool:
    known = _known(store, record.key)
    return known is None or known.output == record.output


def _adopt(store: Store, one: Signed, name: str, *, unsigned: bool) -> None:
    """Keep a record. One that says something else than that which is here is not kept, and named; one's own stays."""
    record = one.record.record()
    waits = f"{record.name}: waiting for another command that builds it"
    with store.lock(record.key, lambda: log.say(waits)):
        known = _known(store, record.key)
        if known is None:
            store.adopt(record, None if unsigned else one.encode())
        elif known.output != record.output:
            here, there = known.output[:12], record.output[:12]
            log.say(f"warning: {record.name} is {here} here, and {there} in {name}; what is here stays")
        elif known.adopted and not unsigned:
            store.adopt(known, joined(kept(store.signed(record.key), known), one).encode())


def _take_tree(shared: Shared, store: Store, record: Record) -> None:
    if store.inspect(record.output) is Condition.DAMAGED:
        store.quarantine(record.output)
    (place,) = shared.places
    with store.staging() as staging, log.running(record.name, "unpacking"):
        found = shared.pull(record.name, record, staging)
        if found is None:
            why = place.fault or "its tree is not all there"
            raise UserError(f"{place.setting.address}: {record.name}: {why}", hint="have it made anew by ./do export")
        store.take(record, found[0])

"""`deb:` sources: Debian packages, on any distribution.

A pinned file comes from the first of these places that gives the pinned bytes: this user's cache, the mirror set in
SANDKUBE_DEB_MIRROR, the machine's apt (`deb_apt`), the default mirror, and the snapshot archive, which keeps what
mirrors have dropped (`deb_places`). The digest decides, so no key is needed.

Pins are made from the indexes of the same places, in the same order, with their signature checked (`deb_apt`,
`deb_mirror`): in the suite of the recipe's earlier pin first, then in the machine's own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import platform
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from sandkube import log
from sandkube.archive import unpack_deb, unpack_tar
from sandkube.build.lock import File, Pin
from sandkube.build.sources import blobs, deb_apt, deb_mirror, deb_places, url
from sandkube.build.sources.deb_control import Found, Index, find, in_order, split
from sandkube.build.sources.deb_places import MIRROR
from sandkube.build.sources.kind import Ask, Source, SourceKind
from sandkube.build.sources.settings import PATIENCE, Patience
from sandkube.build.sources.url import Fault
from sandkube.errors import HashMismatch, UserError

_Place = Callable[[str, File, Path, Patience], Sequence[Fault]]
"""Brings a file of a recipe into the cache: no fault when it is there, else what was wrong at each address."""


def _from_pool(name: str, file: File, mirror: str, cache: Path, patience: Patience) -> Sequence[Fault]:
    archives = deb_places.archives(mirror, file.suite)
    return url.try_addresses(name, file, [f"{each}/{quote(file.pool)}" for each in archives], cache, patience)


def _from_mirror(name: str, file: File, cache: Path, patience: Patience) -> Sequence[Fault]:
    mirror = deb_places.mirror()
    if not mirror:
        return [Fault(MIRROR, "not set; it may be the address of a Debian mirror, the folder that holds pool/", False)]
    return _from_pool(name, file, mirror, cache, patience)


def _from_apt(name: str, file: File, cache: Path, _patience: Patience) -> Sequence[Fault]:
    try:
        apt = deb_apt.apt_of(cache)
    except UserError as error:  # a configuration that apt itself cannot read
        return [Fault("apt", error.message, False)]
    if apt is None:
        return [Fault("apt", "this machine has none, and needs none where another place answers", False)]
    faults = []
    for archive in deb_apt.archives(file.suite):
        address = f"{archive}/{quote(file.pool)}"
        log.step(name, f"fetching {file.name} by apt from {archive}")
        with tempfile.TemporaryDirectory() as temporary:
            got = Path(temporary) / "file"
            try:
                apt.download(address, got)
                blobs.take(cache, file, got, address)
                return ()
            except HashMismatch as error:
                faults.append(Fault(f"{address} by apt", error.got, True))
            except UserError as error:
                text = error.message.rpartition(f"E: Failed to fetch {address}")[2]
                faults.append(Fault(f"{address} by apt", " ".join(text.split()), False))
        log.step(name, f"{faults[-1].address}: {faults[-1].text}")
    return faults


def _from_default(name: str, file: File, cache: Path, patience: Patience) -> Sequence[Fault]:
    return _from_pool(name, file, deb_places.default_mirror(), cache, patience)


def _from_snapshot(name: str, file: File, cache: Path, patience: Patience) -> Sequence[Fault]:
    if not file.sha1:
        return [Fault("the snapshot archive", "the pin has no SHA-1 to ask for; ./do lock completes it", False)]
    return url.try_addresses(name, file, [deb_places.snapshot(file.sha1)], cache, patience)


_PLACES: tuple[_Place, ...] = (_from_mirror, _from_apt, _from_default, _from_snapshot)


def fetch(name: str, source: Source, files: Sequence[File], cache: Path, patience: Patience = PATIENCE) -> None:
    """Bring the pinned files into the cache. Raises HashMismatch when bytes came but never the pinned ones."""
    for file in files:
        if not blobs.sound(cache, file, name):
            _fetch_one(name, source, file, cache, patience)


def _fetch_one(name: str, source: Source, file: File, cache: Path, patience: Patience) -> None:
    faults: list[Fault] = []
    for place in _PLACES:
        found = place(name, file, cache, patience)
        if not found:
            return
        faults += found
    if any(fault.wrong for fault in faults):
        raise url.mismatch(name, file, faults)
    tried = "".join(f"\n  {fault.address}: {fault.text}{_cure(fault)}" for fault in faults)
    raise UserError(
        f"{name}: {source}: no place has {file.name}:{tried}",
        hint=f"set {MIRROR} to a mirror that has this version, "
        f"or move to one that mirrors have with ./do lock --upgrade {name}",
    )


def _cure(fault: Fault) -> str:
    """What would mend a fault at an address; a place without an address says it itself."""
    if "://" not in fault.address:
        return ""
    if re.search(r"\b404\b|does not exist", fault.text):
        return ": it does not have this version, or no longer"
    return ": is it the right address, and reachable? Proxy variables are honoured"


@dataclass(frozen=True, slots=True)
class _Search:
    """A package that is looked for, for which recipe; `said` gets what places without it say."""

    name: str
    source: Source
    cache: Path
    component: str
    said: list[str] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """The index that may have it."""
        return "Sources" if split(self.source)[0] else "Packages"

    def versions_of(self, place: str, indexes: Sequence[Index]) -> list[Found]:
        """What indexes have of it."""
        found = find(indexes, self.source)
        self.said.append(f"{place}: versions there: {', '.join(in_order(each.version for each in found)) or 'none'}")
        return found


def _machine_suite() -> str:
    """The suite of this machine's own release, "stable" where it is not Debian."""
    try:
        facts = platform.freedesktop_os_release()
    except OSError:
        return "stable"
    return (facts.get("ID") == "debian" and facts.get("VERSION_CODENAME")) or "stable"


def _by_http(search: _Search, mirror: str, suite: str) -> list[Found] | None:
    """What a mirror's indexes of a suite have; None if it has no index."""
    place = f"{mirror}/dists/{suite}"
    if deb_mirror.can_check() is None:
        log.step(search.name, deb_mirror.unchecked(place))
    try:
        found = deb_mirror.indexes(search.name, mirror, suite, search.component, search.kind, search.cache)
        return search.versions_of(place, list(found))
    except UserError as error:
        search.said.append(error.message)
        return None


def _by_apt(search: _Search, suite: str) -> list[Found] | None:
    """What apt's lists of a suite have, brought up to date; None if there are none."""
    apt = deb_apt.apt_of(search.cache, suite, search.component)
    if apt is None:
        search.said.append("apt: this machine has none")
        return None
    if not deb_apt.is_checked():
        log.step(search.name, deb_mirror.unchecked(deb_places.default_mirror()))
    apt.update()
    place = f"apt, {suite or 'the suites of this machine'}"
    if found := apt.indexes(search.kind):
        return search.versions_of(place, found)
    search.said.append(f"{place}: no list could be had")
    return None


def _answers(search: _Search, suite: str) -> Iterator[list[Found]]:
    """What each place knows of a suite ("": the machine's own); the default mirror if no other place has an index."""
    by_name = suite or _machine_suite()
    mirror = deb_places.mirror()
    answers = [_by_http(search, mirror, by_name)] if mirror else []
    if answers and answers[0]:
        yield answers[0]
    answers.append(_by_apt(search, suite))
    if all(each is None for each in answers):
        answers.append(_by_http(search, deb_places.default_mirror(), by_name))
    yield answers[-1] or []


def _search(name: str, source: Source, cache: Path, near: Sequence[File]) -> tuple[_Search, str]:
    """A search that begins in the suite of an earlier pin's files."""
    suite, component = (near[0].suite, near[0].component) if near else ("", "")
    return _Search(name, source, cache, component or "main"), suite


def _find(search: _Search, suite: str) -> Found:
    others = [each for each in ("stable", "oldstable") if each != _machine_suite()]
    for each in [suite, "", *others] if suite else ["", *others]:
        for answer in _answers(search, each):
            for found in answer:
                if found.version == search.source.version:
                    return found
    tried = "".join(f"\n  {line}" for line in dict.fromkeys(search.said))
    raise UserError(
        f"{search.source}: no Debian archive has it:{tried}",
        hint=f"./do lock --upgrade {search.name} moves to the newest; "
        f"a mirror that keeps old versions can be set in {MIRROR}",
    )


def _with_sha1(file: File, cache: Path) -> File:
    with blobs.path_of(cache, file.sha256).open("rb") as stream:
        return dataclasses.replace(file, sha1=hashlib.file_digest(stream, "sha1").hexdigest())


def resolve(name: str, source: Source, cache: Path, near: Sequence[File] = ()) -> tuple[File, ...]:
    """The package's file, or the upstream archives of a source package, as an archive's index has them.

    `near`: the files of the recipe's earlier pin, in whose suite the search begins.
    """
    files = _find(*_search(name, source, cache, near)).files
    if not files:
        raise UserError(f"{source}: the source package has no upstream archive")
    fetch(name, source, files, cache)
    return tuple(_with_sha1(file, cache) for file in files)


def completed(name: str, source: Source, files: Sequence[File], cache: Path) -> tuple[File, ...]:
    """A pin of an older form with what it lacks. Raises HashMismatch if the archive has other bytes now."""
    found = resolve(name, source, cache, files)
    before, now = ([file.sha256 for file in each] for each in (files, found))
    if before != now:
        raise HashMismatch(f"{name}: {source}", expected=", ".join(before), got=", ".join(now), origin="the archive")
    return found


def versions(name: str, source: Source, cache: Path, near: Sequence[File] = ()) -> Sequence[str]:
    """Versions in the suite of the earlier pin's files, else in the machine's own suites, oldest first."""
    search, suite = _search(name, dataclasses.replace(source, version=""), cache, near)
    if suite:
        base = deb_places.base_suite(suite)
        for answer in _answers(search, suite):
            of_suite = [f.version for f in answer if f.files and deb_places.base_suite(f.files[0].suite) == base]
            if of_suite:
                return in_order(of_suite)
    for answer in _answers(search, ""):
        if answer:
            return in_order(each.version for each in answer)
    return []


def _check(source: Source) -> str:
    _, name = split(source)
    if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name):
        return f"{name!r} is no name of a Debian package"
    known = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+:~-]*", source.version)
    return "" if known else f"{source.version!r} is no version of a Debian package"


def _misfit(source: Source, pin: Pin) -> str:
    return "" if len(pin.files) == 1 or split(source)[0] else f"expected one file, got {len(pin.files)}"


_FIELDS = ("pool", "suite", "component", "sha1")


def _lacks(pin: Pin) -> str:
    sound = all(getattr(file, field) for file in pin.files for field in _FIELDS)
    return "" if sound else "says neither suite nor component"


def _completed(ask: Ask) -> Pin:
    if not _lacks(ask.pin):
        return ask.pin
    return dataclasses.replace(ask.pin, files=completed(ask.recipe, ask.source, ask.pin.files, ask.cache))


def _snapshot(ask: Ask, into: Path) -> str:
    file = ask.pin.files[0]
    path = blobs.checked(ask.cache, file, ask.recipe)
    if split(ask.source)[0]:
        unpack_tar(path, into, name=file.name, strip=1)
    else:
        unpack_deb(path, into, name=file.name)
    return blobs.identity("deb", ask.pin.files)


KIND = SourceKind(
    identity=lambda ask: blobs.identity("deb", ask.pin.files),
    resolve=lambda ask: Pin("", files=resolve(ask.recipe, ask.source, ask.cache, ask.pin.files)),
    fetch=lambda ask: fetch(ask.recipe, ask.source, ask.pin.files, ask.cache),
    snapshot=_snapshot,
    code=("build/sources/deb", "archive"),
    versions=lambda ask: versions(ask.recipe, ask.source, ask.cache, ask.pin.files),
    misfit=_misfit,
    check=_check,
    completed=_completed,
    lacks=_lacks,
)

"""A cache as this user has set it: what is believed of it, and what was seen of it in this run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from sandkube.build.cache.keys import PublicKey, signers
from sandkube.build.cache.kind import Blob, Cache, Stalled
from sandkube.build.cache.settings import Setting
from sandkube.build.cache.statement import Signed, read
from sandkube.errors import Unusable, UserError, told

_FAULTS = 3  # after so many a cache is asked no more, or given no more


@dataclass(slots=True, eq=False)
class Place:
    """A cache, what is believed of it, and what was seen of it in this run."""

    setting: Setting
    cache: Cache
    trusted: tuple[PublicKey, ...]
    faults: int = 0
    fault: str = ""
    """The first thing that went wrong."""
    trees: int = 0
    sources: int = 0
    received: int = 0
    sent: int = 0
    source_fault: str = ""
    """The first thing that went wrong with files of sources; after some, they are not asked for, the rest is."""
    refused: dict[str, str] = field(default_factory=dict)
    """Why a record was not used, by recipe."""
    kept: dict[str, str] = field(default_factory=dict)
    """Why a record was not pushed, by recipe."""
    lost: set[str] = field(default_factory=set)
    """Keys whose trees it had not whole."""
    wrong: set[Blob] = field(default_factory=set)
    """Blobs of which it had other bytes."""
    wrong_sources: set[str] = field(default_factory=set)
    """Names of sources of which it had other bytes."""
    _stalled: bool = False
    _refusals: int = 0
    _source_faults: int = 0
    _source_refusals: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def usable(self) -> bool:
        """Whether it is asked still. One that cannot be written, as for want of space, is."""
        return not self._stalled and self.faults - self._refusals < _FAULTS

    @property
    def writable(self) -> bool:
        """Whether it is given anything still."""
        return self.setting.write and self.usable and self._refusals < _FAULTS

    @property
    def has_sources(self) -> bool:
        """Whether it is asked for files of sources still. One that takes none is."""
        return self.usable and self._source_faults < _FAULTS

    @property
    def takes_sources(self) -> bool:
        """Whether it is given files of sources still."""
        return self.setting.write and self.usable and self._source_refusals < _FAULTS

    def source_failed(self, error: UserError | OSError | str, *, writing: bool = False) -> None:
        """Note a fault with a file of a source."""
        with self._lock:
            self._stalled |= isinstance(error, Stalled)
            self._source_refusals += writing
            self._source_faults += not writing
            self.source_fault = self.source_fault or (error if isinstance(error, str) else told(error))

    def failed(self, error: UserError | OSError | str, *, writing: bool = False) -> None:
        """Note a fault."""
        with self._lock:
            self._stalled |= isinstance(error, Stalled)
            self.faults += 1
            self._refusals += writing
            self.fault = self.fault or (error if isinstance(error, str) else told(error))

    def report(self) -> Iterator[str]:
        """What happened with it, a line each; nothing for one that was not used and has no fault."""
        came = [f"{self.trees} trees"] if self.trees or not self.sources else []
        came += [f"{self.sources} files of sources"] if self.sources else []
        parts = [f"{' and '.join(came)} fetched ({self.received / 1e6:.1f} MB)"] if self.received else []
        parts += [f"{self.sent / 1e6:.1f} MB pushed"] if self.sent else []
        parts += [f"{self.faults} faults, the first: {self.fault}"] if self.faults else []
        if count := self._source_faults + self._source_refusals:
            parts.append(f"{count} faults with sources, the first: {self.source_fault}")
        if self.usable and not self.has_sources:
            parts.append("not asked for sources any more")
        elif self.usable and self.setting.write and not self.takes_sources:
            parts.append("given no sources any more")
        if not self.usable:
            parts.append("not asked any more")
        elif self.setting.write and not self.writable:
            parts.append("not written to any more")
        if parts:
            yield f"cache {self.setting.address}: {'; '.join(parts)}"
        for what, reasons in (("used", self.refused), ("pushed", self.kept)):
            for why in sorted(set(reasons.values())):
                names = ", ".join(sorted(name for name, said in reasons.items() if said == why))
                yield f"cache {self.setting.address}: not {what}, {why}: {names}"

    def moved(self, *, received: int = 0, sent: int = 0) -> None:
        """Count bytes."""
        with self._lock:
            self.received += received
            self.sent += sent

    def asked(self, name: str, key: str) -> Found | None:
        """What it says of a key, if that is believed."""
        if not self.usable:
            return None
        try:
            data = self.cache.record(key)
            signed = None if data is None else read(data, key)
        except Unusable as error:
            self.failed(error)
            return None
        except UserError as error:
            self.refused[name] = error.message
            return None
        if signed is None:
            return None
        names = signers(signed, self.trusted)
        if len(names) < self.setting.signatures:
            self.refused[name] = self._distrust(signed, names)
            return None
        return Found(self, signed, names)

    def _distrust(self, signed: Signed, names: tuple[str, ...]) -> str:
        if not signed.signatures:
            return "not signed"
        if not names:
            return "signed by nobody who is trusted, or wrongly"
        return f"signed by {', '.join(names)}; {self.setting.signatures} signatures are wanted"


@dataclass(frozen=True, slots=True)
class Found:
    """A record that is believed, where it was found, and whose signatures count."""

    place: Place
    signed: Signed
    signers: tuple[str, ...]

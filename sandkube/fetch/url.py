"""`url:` sources: files over HTTP, from several addresses, resumed after a cut and tried again after a fault."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from sandkube import archive, log
from sandkube.digest import sha256_file
from sandkube.errors import HashMismatch, UserError
from sandkube.fetch import blobs
from sandkube.lock import File, Pin
from sandkube.recipe import Source
from sandkube.run import Interrupted, stopping

_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst", ".zip")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to go on: attempts at each address, seconds without a byte, the first pause (doubled each time)."""

    attempts: int = 4
    stall: float = 30.0
    pause: float = 0.5


PATIENCE = Patience()


class _Permanent(Exception):
    """A fault that another attempt at the same address cannot mend."""


def _client(patience: Patience) -> httpx.Client:
    return httpx.Client(timeout=httpx.Timeout(patience.stall), follow_redirects=True)


def _receive(client: httpx.Client, address: str, partial: Path, file: File | None, name: str) -> None:
    """One request; appends to `partial`. Raises httpx.HTTPError for faults that may pass."""
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with client.stream("GET", address, headers=headers) as response:
        if response.status_code == 416 and have:
            partial.unlink()
            raise httpx.ReadError("the server has fewer bytes than were received before")
        if response.status_code >= 500 or response.status_code == 429:
            raise httpx.ReadError(f"status {response.status_code}")
        if response.status_code not in (200, 206):
            raise _Permanent(f"status {response.status_code}")
        if response.status_code == 200:
            have = 0
        with partial.open("ab" if have else "wb") as sink:
            if have:
                log.step(name, f"resuming {partial.name[:12]} at byte {have}")
            for chunk in response.iter_raw(1 << 16):
                if stopping():
                    raise Interrupted
                sink.write(chunk)
                if file is not None and sink.tell() > file.size:
                    break


def _from_address(address: str, partial: Path, file: File | None, name: str, patience: Patience) -> str | None:
    """Try one address until it is used up; None on success, else what was wrong, in words."""
    fault = ""
    with _client(patience) as client:
        for attempt in range(patience.attempts):
            if attempt:
                time.sleep(patience.pause * 2 ** (attempt - 1))
            try:
                _receive(client, address, partial, file, name)
            except _Permanent as error:
                return str(error)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                fault = str(error) or type(error).__name__
                continue
            if file is None:
                return None
            size = partial.stat().st_size
            if size < file.size:
                fault = f"{size} of {file.size} bytes"
                continue
            got = sha256_file(partial)
            if got == file.sha256:
                return None
            partial.unlink()
            fault = f"{'more than ' if size > file.size else ''}{min(size, file.size)} bytes with SHA-256 {got}"
    return fault


def fetch_file(name: str, file: File, addresses: Sequence[str], cache: Path, patience: Patience = PATIENCE) -> None:
    """Bring one pinned file into the cache. Raises HashMismatch when bytes came but never the pinned ones."""
    if blobs.sound(cache, file, name):
        return
    partial = cache / "partial" / file.sha256
    partial.parent.mkdir(parents=True, exist_ok=True)
    faults = []
    for address in addresses:
        fault = _from_address(address, partial, file, name, patience)
        if fault is None:
            blobs.take(cache, file, partial, address)
            partial.unlink()
            return
        faults.append((address, fault))
        log.step(name, f"{address}: {fault}")
    for address, fault in faults:
        if "SHA-256" in fault:
            raise HashMismatch(file.name, expected=file.sha256, got=fault.rpartition(" ")[2], origin=address)
    tried = "".join(f"\n  {address}: {fault}" for address, fault in faults)
    raise UserError(
        f"{name}: {file.name} could not be fetched:{tried}",
        hint="is the network reachable? What was received is kept and resumed; mirrors = [...] adds addresses",
    )


def _addresses(source: Source) -> tuple[str, ...]:
    return (source.name, *source.mirrors)


def fetch(name: str, source: Source, pin: Pin, cache: Path) -> None:
    """Bring the pinned file into the cache."""
    for file in pin.files:
        fetch_file(name, file, _addresses(source), cache)


def resolve(name: str, source: Source, cache: Path, patience: Patience = PATIENCE) -> tuple[File, ...]:
    """The file as the first address that answers has it; it is kept in the cache."""
    partial = cache / "partial" / f"new-{name}"
    partial.parent.mkdir(parents=True, exist_ok=True)
    faults = []
    for address in _addresses(source):
        partial.unlink(missing_ok=True)
        fault = _from_address(address, partial, None, name, patience)
        if fault is None:
            file = File(address.rpartition("/")[2].partition("?")[0], sha256_file(partial), partial.stat().st_size)
            blobs.take(cache, file, partial, address)
            partial.unlink()
            return (file,)
        faults.append(f"\n  {address}: {fault}")
    raise UserError(f"{name}: no address could be fetched:{''.join(faults)}")


def unpack(source: Source, pin: Pin, into: Path, cache: Path) -> None:
    """Unpack an archive, without its one top folder if it has just one; any other file is put as it is."""
    (file,) = pin.files
    path = blobs.path_of(cache, file.sha256)
    if not file.name.endswith(_ARCHIVES):
        (into / file.name).write_bytes(path.read_bytes())
        return
    if file.name.endswith(".zip"):
        archive.unpack_zip(path, into)
    else:
        archive.unpack_tar(path, into)
    entries = list(into.iterdir())
    if len(entries) == 1 and entries[0].is_dir() and not entries[0].is_symlink():
        top = entries[0].rename(into / f".{entries[0].name}.top")
        for each in top.iterdir():
            each.rename(into / each.name)
        top.rmdir()

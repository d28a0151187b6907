"""`url:` sources: files over HTTP, from several addresses, resumed after a cut and tried again after a fault.

In the user's cache: `partial/<sha256>` is what came so far of a pinned file; who appends to it holds
`partial/<sha256>.lock`.
"""

from __future__ import annotations

import functools
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from sandkube import archive, log, tree
from sandkube.build.lock import File, Pin
from sandkube.build.sources import blobs
from sandkube.build.sources.kind import Ask, Source, SourceKind
from sandkube.build.sources.settings import PATIENCE, Patience
from sandkube.digest import canonical_json, sha256_bytes, sha256_file
from sandkube.errors import HashMismatch, UserError
from sandkube.files import locked
from sandkube.later import later
from sandkube.run import go_on, wait

if TYPE_CHECKING:
    import ssl

    import httpx
else:
    httpx = later("httpx")

_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst", ".zip")


class _Permanent(Exception):
    """A fault that another attempt at the same address cannot mend."""


class _Wrong(_Permanent):
    """The address has other bytes than the pinned ones; the text says which."""


class _Passing(Exception):
    """A fault that another attempt may mend."""


@dataclass(slots=True)
class _Part:
    """A file on its way from one address: what came so far, and the server's tag of that version."""

    name: str
    address: str
    path: Path
    file: File | None
    patience: Patience
    deadline: float
    etag: str = ""
    spoken: float = 0.0

    def size(self) -> int:
        """Bytes that can be resumed from: an unpinned file only while the server says that it is the same."""
        usable = self.path.exists() and (self.file is not None or self.etag)
        return self.path.stat().st_size if usable else 0

    def progress(self, size: int) -> None:
        """Say how far it is now and then; give up when the time for this address is over."""
        now = time.monotonic()
        go_on()
        if now > self.deadline:
            raise _Permanent(f"{size} bytes in {self.patience.total:g} s, which is the limit")
        if now - self.spoken > self.patience.silence:
            self.spoken = now
            log.download(self.name, self.address, size, self.file.size if self.file else None)


def _check_status(status: int) -> None:
    if status >= 500 or status in (408, 425, 429):
        raise _Passing(f"status {status}")
    if status not in (200, 206):
        raise _Permanent(f"status {status}")


def _start_of_body(part: _Part, response: httpx.Response, have: int) -> int:
    """Where the body's first byte belongs in the file. Raises when this cannot become the pinned file."""
    start, total = 0, response.headers.get("Content-Length", "")
    if response.status_code == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != have:
            part.path.unlink()
            raise _Passing(f"asked to go on at byte {have}, the server did not")
        start, total = have, found[2]
    if part.file is not None and total.isdecimal() and int(total) != part.file.size:
        raise _Wrong(f"{total} bytes")
    return start


def _receive(client: httpx.Client, part: _Part, have: int) -> None:
    """One request; appends to what is there."""
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": part.etag} if part.etag else {})
        log.step(part.name, f"going on at byte {have} from {part.address}")
    with client.stream("GET", part.address, headers=headers) as response:
        if response.status_code == 416 and have:
            part.path.unlink()
            raise _Passing(f"the server has no byte {have}, which came before")
        _check_status(response.status_code)
        start = _start_of_body(part, response, have)
        tag = response.headers.get("ETag", "")
        part.etag = "" if tag.startswith("W/") else tag
        with part.path.open("ab" if start else "wb") as sink:
            for chunk in response.iter_raw():  # as it comes: a size given here would hold bytes back, and lose them
                sink.write(chunk)
                if part.file is not None and sink.tell() > part.file.size:
                    break
                part.progress(sink.tell())


def _judge(part: _Part, *, resumed: bool) -> None:
    """Whether what came is the pinned file. Raises when it is not."""
    if part.file is None:
        return
    size = part.path.stat().st_size
    if size < part.file.size:  # a body without a length that was cut looks complete to HTTP
        raise _Passing(f"{size} of {part.file.size} bytes")
    got = f"more than {part.file.size} bytes" if size > part.file.size else sha256_file(part.path)
    if got == part.file.sha256:
        return
    part.path.unlink()
    if resumed:  # the first bytes may be of another version or another mirror
        raise _Passing(f"put together of two parts: {got}")
    raise _Wrong(got)


def _attempt(client: httpx.Client, part: _Part) -> None:
    have = part.size()
    try:
        if part.file is None or have < part.file.size or not part.path.exists():
            _receive(client, part, have)
        _judge(part, resumed=have > 0)
    except (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.InvalidURL) as error:
        raise _Permanent(str(error)) from None
    except httpx.TimeoutException:
        raise _Passing(f"no byte for {part.patience.stall:g} s") from None
    except httpx.HTTPError as error:
        raise _Passing(str(error) or type(error).__name__) from None
    except OSError as error:
        raise UserError(f"{part.name}: {error.filename or part.path}: {error.strerror}") from error


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Certificates of certifi or of the user's SSL_CERT_FILE, and those of the machine; read once."""
    context = httpx.create_ssl_context()
    context.load_default_certs()
    return context


def _from_address(part: _Part) -> None:
    """Try one address until it is used up. Raises _Permanent with all that was wrong."""
    patience = part.patience
    timeout = httpx.Timeout(patience.stall)
    with httpx.Client(verify=_certificates(), timeout=timeout, follow_redirects=True) as client:
        for attempt in range(patience.attempts):
            try:
                _attempt(client, part)
                return
            except _Passing as fault:
                if attempt + 1 == patience.attempts:
                    raise _Permanent(f"{fault} ({patience.attempts} attempts)") from None
                log.step(part.name, f"{part.address}: {fault}; trying again")
            wait(min(patience.pause * 2**attempt, max(0.0, part.deadline - time.monotonic())))


def _part(name: str, address: str, path: Path, file: File | None, patience: Patience) -> _Part:
    now = time.monotonic()
    return _Part(name, address, path, file, patience, deadline=now + patience.total, spoken=now)


def _check_addresses(name: str, addresses: Sequence[str]) -> None:
    for address in addresses:
        if urlsplit(address).scheme not in ("http", "https"):
            raise UserError(
                f"{name}: {address}: only http: and https: addresses are fetched",
                hint="a folder of this repository is a local: source",
            )


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an address did not give the pinned file; `wrong` tells that it gave other bytes."""

    address: str
    text: str
    wrong: bool


def try_addresses(
    name: str, file: File, addresses: Sequence[str], cache: Path, patience: Patience = PATIENCE
) -> Sequence[Fault]:
    """Bring one pinned file into the cache: no fault when it is there, else one of each address."""
    _check_addresses(name, addresses)
    if blobs.sound(cache, file, name):
        return ()
    partial = cache / "partial" / file.sha256
    partial.parent.mkdir(parents=True, exist_ok=True)
    with locked(partial.with_name(f"{file.sha256}.lock"), passing=True):
        if blobs.sound(cache, file, name):  # another step or command was faster
            return ()
        return _try_locked(name, file, addresses, partial, cache, patience)


def _try_locked(
    name: str, file: File, addresses: Sequence[str], partial: Path, cache: Path, patience: Patience
) -> Sequence[Fault]:
    log.step(name, f"fetching {file.name} from {addresses[0]}")
    faults = []
    for address in addresses:
        try:
            _from_address(_part(name, address, partial, file, patience))
        except _Permanent as fault:
            log.step(name, f"{address}: {fault}")
            faults.append(Fault(address, str(fault), isinstance(fault, _Wrong)))
            continue
        blobs.take(cache, file, partial, address)
        partial.unlink()
        return ()
    return faults


def mismatch(name: str, file: File, faults: Sequence[Fault]) -> HashMismatch:
    """What is said when at least one address gave other bytes: the first of them, and all that was tried."""
    first = next(fault for fault in faults if fault.wrong)
    others = [f"{fault.address} ({fault.text})" for fault in faults if fault is not first]
    return HashMismatch(
        f"{name}: {file.name}",
        expected=f"{file.sha256} of {file.size} bytes",
        got=first.text,
        origin=first.address + (f"; also tried: {', '.join(others)}" if others else ""),
    )


def fetch_file(name: str, file: File, addresses: Sequence[str], cache: Path, patience: Patience = PATIENCE) -> None:
    """Bring one pinned file into the cache. Raises HashMismatch when bytes came but never the pinned ones."""
    faults = try_addresses(name, file, addresses, cache, patience)
    if any(fault.wrong for fault in faults):
        raise mismatch(name, file, faults)
    if faults:
        tried = "".join(f"\n  {fault.address}: {fault.text}" for fault in faults)
        raise UserError(
            f"{name}: {file.name} could not be fetched:{tried}",
            hint="is the network reachable? What came is kept, the same command goes on from there; "
            "mirrors = [...] in the recipe adds addresses",
        )


def fetch_bytes(name: str, address: str, cache: Path, patience: Patience = PATIENCE) -> bytes:
    """A small file that no pin knows, such as an index of what there is. Raises UserError."""
    _check_addresses(name, [address])
    (cache / "partial").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache / "partial") as temporary:
        path = Path(temporary) / "new"
        try:
            _from_address(_part(name, address, path, None, patience))
        except _Permanent as fault:
            raise UserError(f"{address}: {fault}") from None
        return path.read_bytes()


def _addresses(source: Source) -> tuple[str, ...]:
    return (source.name, *source.mirrors)


def fetch(name: str, source: Source, pin: Pin, cache: Path) -> None:
    """Bring the pinned file into the cache."""
    for file in pin.files:
        fetch_file(name, file, _addresses(source), cache)


def _base(address: str) -> str:
    """The file name that an address ends in; "" if there is none."""
    found = unquote(urlsplit(address).path.rpartition("/")[2])
    return found if found not in (".", "..") and "/" not in found and found.isprintable() else ""


def _file_name(name: str, address: str) -> str:
    if found := _base(address):
        return found
    raise UserError(f"{name}: {address}: does not end in a file name")


def resolve(name: str, source: Source, cache: Path, patience: Patience = PATIENCE) -> tuple[File, ...]:
    """The file as the first address that answers has it; it is kept in the cache."""
    _check_addresses(name, _addresses(source))
    base = _file_name(name, source.name)
    (cache / "partial").mkdir(parents=True, exist_ok=True)
    faults = []
    for address in _addresses(source):
        with tempfile.TemporaryDirectory(dir=cache / "partial") as temporary:
            path = Path(temporary) / "new"
            try:
                _from_address(_part(name, address, path, None, patience))
            except _Permanent as fault:
                faults.append(f"\n  {address}: {fault}")
                continue
            file = File(base, sha256_file(path), path.stat().st_size)
            blobs.take(cache, file, path, address)
            return (file,)
    raise UserError(f"{name}: no address could be fetched:{''.join(faults)}", hint="is the network reachable?")


def _lift(into: Path, name: str) -> None:
    """Put what is in the one top folder, if there is just one, in its place. Raises UserError for a link that then
    leads out."""
    entries = list(into.iterdir())
    if len(entries) != 1 or not entries[0].is_dir() or entries[0].is_symlink():
        return
    top = Path(tempfile.mkdtemp(dir=into.parent))
    entries[0].rename(top / "top")
    for each in (top / "top").iterdir():
        each.rename(into / each.name)
    (top / "top").rmdir()
    top.rmdir()
    try:
        tree.check_links(into)
    except tree.Refused as refusal:
        raise UserError(f"{name}: {refusal.message}") from None


def unpack(pin: Pin, into: Path, cache: Path) -> None:
    """Unpack an archive, without its one top folder if it has just one; any other file is put as it is."""
    (file,) = pin.files
    path = blobs.path_of(cache, file.sha256)
    if not file.name.endswith(_ARCHIVES):
        shutil.copyfile(path, into / Path(file.name).name)
        return
    if file.name.endswith(".zip"):
        archive.unpack_zip(path, into, name=file.name)
    else:
        archive.unpack_tar(path, into, name=file.name)
    _lift(into, file.name)


def snapshot(ask: Ask, into: Path) -> str:
    """`unpack` of bytes that are checked again; their identity."""
    blobs.checked(ask.cache, ask.pin.files[0], ask.recipe)
    unpack(ask.pin, into, ask.cache)
    return identity(ask)


def identity(ask: Ask) -> str:
    """The file's digest, and its name: one that is no archive keeps it."""
    return sha256_bytes(canonical_json(["url", [[each.name, each.sha256] for each in ask.pin.files]]))


def _check(source: Source) -> str:
    for address in _addresses(source):
        try:
            parts = urlsplit(address)
            sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # a port that is no number, brackets that are no address
            sound = False
        if not sound or not re.fullmatch(r"\S+", address) or not address.isprintable():
            return f"{address!r} is no address of a file, such as https://example.org/name.tar.gz"
    return "" if _base(source.name) else f"{source.name!r} does not end in a file name"


KIND = SourceKind(
    identity=identity,
    resolve=lambda ask: Pin("", files=resolve(ask.recipe, ask.source, ask.cache)),
    fetch=lambda ask: fetch(ask.recipe, ask.source, ask.pin, ask.cache),
    snapshot=snapshot,
    code=("build/sources/url", "archive"),
    misfit=blobs.misfit,
    check=_check,
    versioned=False,
    mirrors=True,
)

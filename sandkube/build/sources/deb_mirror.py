"""Indexes of a Debian mirror by HTTP, for machines without apt: `dists/<suite>/InRelease`, and what its sums name.

Its signature is checked by gpgv with Debian's keyring where both are there. Without, nothing says that the index is
Debian's but the connection to the mirror; `unchecked` is the sentence for it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sandkube import archive, log
from sandkube.build.lock import File
from sandkube.build.sources import blobs, deb_places, url
from sandkube.build.sources.deb_control import Index, paragraphs
from sandkube.errors import UserError
from sandkube.later import later
from sandkube.run import base_environment, run

if TYPE_CHECKING:
    from debian import deb822
else:
    deb822 = later("debian.deb822")

_UPDATE_HINT = "update the package debian-archive-keyring"


def unchecked(address: str) -> str:
    """What it means that there is no key to check an index with."""
    return (
        f"the signature of {address} is not checked, for this machine has no Debian keyring: the pin is as good as the "
        "connection (the packages gpgv and debian-archive-keyring have it checked)"
    )


def can_check() -> Path | None:
    """The keyring, where there is a program to check with too."""
    return deb_places.keyring() if shutil.which("gpgv", path="/usr/bin:/bin") else None


def _checked(address: str, signed: bytes, detached: bytes | None, keyring: Path) -> bytes:
    """The bytes that a key of the keyring has signed. Raises UserError if none has."""
    with tempfile.TemporaryDirectory() as temporary, tempfile.TemporaryFile() as sink:
        here = Path(temporary)
        (here / "signed").write_bytes(signed)
        words = ["gpgv", "--homedir", str(here), "--keyring", str(keyring), "--output", str(here / "plain")]
        if detached is None:
            words += [str(here / "signed")]
        else:
            (here / "signature").write_bytes(detached)
            words = [*words[:-2], str(here / "signature"), str(here / "signed")]
        if run(words, env=base_environment(here), cwd=here, log=sink, check=False).status != 0:
            sink.seek(0)
            said = [line.removeprefix("gpgv: ") for line in sink.read().decode(errors="replace").splitlines()]
            raise UserError(f"{address}: no key of {keyring} has signed it: {'; '.join(said)}", hint=_UPDATE_HINT)
        return signed if detached is not None else (here / "plain").read_bytes()


def _release(name: str, folder: str, cache: Path) -> tuple[str, bytes]:
    """Address and text of a suite's release file, checked as far as can be."""
    keyring = can_check()
    address = f"{folder}/InRelease"
    try:
        inline = url.fetch_bytes(name, address, cache)
    except UserError as error:
        if not error.message.endswith(": status 404"):
            raise
    else:
        if keyring is not None:
            return address, _checked(address, inline, None, keyring)
        _, payload, _ = deb822.Deb822.split_gpg_and_payload(iter(inline.splitlines()))
        return address, b"\n".join(payload)
    address = f"{folder}/Release"
    text = url.fetch_bytes(name, address, cache)
    if keyring is None:
        return address, text
    return address, _checked(address, text, url.fetch_bytes(name, f"{address}.gpg", cache), keyring)


def _sums(release: Mapping[str, str]) -> dict[str, File]:
    rows = [line.split() for line in release.get("SHA256", "").splitlines() if line.strip()]
    return {path: File(path.rpartition("/")[2], digest, int(size)) for digest, size, path in rows}


def _index(name: str, folder: str, release: Mapping[str, str], path: str, cache: Path) -> bytes:
    """The index at `path` of a suite's folder, in the smallest form that there is; its sum is checked."""
    sums = _sums(release)
    for end in (".xz", ".gz", ""):
        file = sums.get(path + end)
        if file is None:
            continue
        by_hash = f"{folder}/{path.rpartition('/')[0]}/by-hash/SHA256/{file.sha256}"
        addresses = ([by_hash] if release.get("Acquire-By-Hash") == "yes" else []) + [f"{folder}/{path}{end}"]
        if faults := url.try_addresses(name, file, addresses, cache):
            raise UserError(f"{faults[-1].address}: not the index that the release file names: {faults[-1].text}")
        return archive.decompressed(blobs.path_of(cache, file.sha256), file.name)
    raise UserError(f"{folder}: has no {path}")


def _of_suite(name: str, base: str, suite: str, component: str, kind: str, cache: Path) -> Index:
    folder = f"{base}/dists/{suite}"
    address, text = _release(name, folder, cache)
    release = next(paragraphs(text), {})
    names = (release.get("Codename", ""), release.get("Suite", ""))
    if suite not in names:
        raise UserError(f"{address}: is of {' and '.join(filter(None, names)) or 'no suite'}, not of {suite}")
    where = f"{component}/source/Sources" if kind == "Sources" else f"{component}/binary-amd64/Packages"
    return Index(names[0] or suite, component, _index(name, folder, release, where, cache))


def indexes(name: str, mirror: str, suite: str, component: str, kind: str, cache: Path) -> Iterator[Index]:
    """The indexes of a release on a mirror, with its updates and security updates where the mirror has them."""
    base = deb_places.base_suite(suite)
    yield _of_suite(name, mirror, base, component, kind, cache)
    for more in (f"{base}-updates", f"{base}-security"):
        try:
            yield _of_suite(name, deb_places.archives(mirror, more)[0], more, component, kind, cache)
        except UserError as error:
            log.step(name, f"without {more}: {error.message}")

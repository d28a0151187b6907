"""Files in this user's cache, by SHA-256: `blobs/sha256/<hex>`. Every use hashes the file first."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from sandkube import log
from sandkube.build.lock import File, Pin
from sandkube.build.sources.kind import Source
from sandkube.digest import canonical_json, sha256_bytes, sha256_file
from sandkube.errors import HashMismatch, UserError
from sandkube.files import copy_whole, locked, sweep_locks, sweep_old


def path_of(cache: Path, sha256: str) -> Path:
    """Where a file stands, whether or not it is there."""
    return cache / "blobs/sha256" / sha256


def sound(cache: Path, file: File, name: str) -> bool:
    """Whether a pinned file is there with its bytes; a damaged one is named and removed."""
    path = path_of(cache, file.sha256)
    try:
        if sha256_file(path) == file.sha256:
            return True
        with locked(path.parent):  # two that find the same damage: the second must not drop a mended file
            if sha256_file(path) == file.sha256:
                return True
            path.unlink()
    except FileNotFoundError:
        return False
    log.step(name, f"cached {file.name} was damaged; removed, it is fetched again")
    return False


def checked(cache: Path, file: File, name: str) -> Path:
    """Where a pinned file stands, its bytes checked again. Raises UserError when they are not there any more."""
    if not sound(cache, file, name):
        raise UserError(f"{name}: {file.name} is gone from the cache", hint="run it again, it is fetched anew")
    return path_of(cache, file.sha256)


def identity(kind: str, files: Sequence[File]) -> str:
    """What the content of pinned archives is, whatever their names."""
    return sha256_bytes(canonical_json([kind, [each.sha256 for each in files]]))


def misfit(_source: Source, pin: Pin) -> str:
    """What is wrong with a pin that must hold one file, which comes from no archive."""
    if len(pin.files) != 1:
        return f"expected one file, got {len(pin.files)}"
    return "only a deb: source has pool, suite, component and sha1" if pin.files[0].in_archive else ""


def take(cache: Path, file: File, got: Path, origin: str) -> None:
    """Copy a fetched file into the cache. Raises HashMismatch when it is not the pinned one."""
    found = sha256_file(got)
    if found != file.sha256:
        raise HashMismatch(file.name, expected=file.sha256, got=found, origin=origin)
    put(cache, got)


def put(cache: Path, got: Path) -> str:
    """Copy a file into the cache under its hash, whole or not at all; returns the hash."""
    found = sha256_file(got)
    target = path_of(cache, found)
    target.parent.mkdir(parents=True, exist_ok=True)
    copy_whole(got, target)
    return found


def sweep(cache: Path) -> None:
    """Remove what killed processes left: copies that were not yet whole, locks of files on their way."""
    with contextlib.suppress(OSError):  # a cache that cannot be used is told by the step that needs it
        sweep_old(cache / "blobs/sha256", "tmp*")
        sweep_locks(cache / "partial", "*.lock")

"""Files in this user's cache, by SHA-256: `blobs/sha256/<hex>`. Every use hashes the file first."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from sandkube import log
from sandkube.digest import sha256_file
from sandkube.errors import HashMismatch
from sandkube.lock import File


def path_of(cache: Path, sha256: str) -> Path:
    """Where a file stands, whether or not it is there."""
    return cache / "blobs/sha256" / sha256


def sound(cache: Path, file: File, name: str) -> bool:
    """Whether a pinned file is there with its bytes; a damaged one is named and removed."""
    path = path_of(cache, file.sha256)
    try:
        if sha256_file(path) == file.sha256:
            return True
    except FileNotFoundError:
        return False
    log.step(name, f"cached {file.name} was damaged; removed, it is fetched again")
    path.unlink(missing_ok=True)
    return False


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
    descriptor, temporary = tempfile.mkstemp(dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as sink, got.open("rb") as source:
            shutil.copyfileobj(source, sink, 1 << 20)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return found

"""Fetching sources: one module a kind. The only steps with network; they run nothing of what they fetch."""

from __future__ import annotations

import importlib
from pathlib import Path

from sandkube import archive
from sandkube.errors import UserError
from sandkube.fetch import blobs, go, local
from sandkube.lock import Module, Pin
from sandkube.recipe import Source


def _module(source: Source, pin: Pin) -> Module:
    return Module(source.name, source.version, pin.h1, pin.mod)


def fetch(name: str, source: Source, pin: Pin, *, cache: Path, go_client: Path | None, root: Path) -> None:
    """Bring a source's pinned bytes into the cache, checked. Raises HashMismatch, UserError."""
    match source.kind:
        case "local":
            if not (root / source.name).is_dir():
                raise UserError(f"recipes/{name}.toml: source: no such folder {source.name}")
        case "go":
            assert go_client is not None
            go.fetch_modules(go_client, [_module(source, pin)], cache=cache, name=name)
        case "pypi" | "deb":
            importlib.import_module(f"sandkube.fetch.{source.kind}").fetch(name, source, pin.files, cache)
        case kind:
            importlib.import_module(f"sandkube.fetch.{kind}").fetch(name, source, pin, cache)


def unpack(source: Source, pin: Pin, into: Path, *, cache: Path, root: Path) -> None:
    """Put a fetched source into the empty folder `into`: writable, modes 0644 and 0755."""
    match source.kind:
        case "local":
            local.copy(root / source.name, into)
        case "go":
            go.source_tree(_module(source, pin), into, cache=cache)
        case "pypi":
            archive.unpack_zip(blobs.path_of(cache, pin.files[0].sha256), into)
        case "deb":
            file = pin.files[0]
            path = blobs.path_of(cache, file.sha256)
            if source.name.startswith("src:"):
                archive.unpack_tar(path, into, strip=1)
            else:
                archive.unpack_deb(path, into)
        case kind:
            importlib.import_module(f"sandkube.fetch.{kind}").unpack(source, pin, into, cache)

"""Which modules a recipe of builder `go` is pinned with: what chooses them, and how the go command is asked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandkube.build.builders.kind import Asked
from sandkube.build.lock import Module
from sandkube.build.sources import go as source_go
from sandkube.build.sources import local
from sandkube.digest import Json, sha256_bytes

_IMPORT_BLOCK = re.compile(rb'^import\s*(?:\((.*?)^\)|(?:[\w.]+\s+)?"([^"\n]+)")', re.MULTILINE | re.DOTALL)
_QUOTED = re.compile(rb'"([^"\n]+)"')


def _imports(root: Path, name: str) -> list[str]:
    """Every import path of the Go files of a `local:` source, sorted; links are passed over."""
    found: set[bytes] = set()
    source = local.Tree.of(root, name)
    for path in (source.folder / each for each in source.paths if each.endswith(".go")):
        if not path.is_symlink():
            for block, single in _IMPORT_BLOCK.findall(path.read_bytes()):
                found.update([single] if single else _QUOTED.findall(block))
    return sorted(each.decode(errors="replace") for each in found)


def patches(all_patches: Sequence[Path]) -> tuple[Path, ...]:
    """The patches that touch the main module's go.mod or go.sum."""
    touches = re.compile(rb"^\+\+\+ b/go\.(mod|sum)$", re.MULTILINE)
    return tuple(path for path in all_patches if touches.search(path.read_bytes()))


def spec(asked: Asked) -> Mapping[str, Json]:
    """What chooses the modules: packages, tags, tests, patches of go.mod, and of a local folder its imports."""
    options = asked.options
    found: dict[str, Json] = {
        "packages": list(options.packages),
        "tags": list(options.tags),
        "cgo": options.cgo,
        "test": list(options.test),
        "patches": [sha256_bytes(path.read_bytes()) for path in patches(asked.patches)],
    }
    if asked.source.kind == "local":
        folder = asked.root / asked.source.name
        found["imports"] = list(_imports(asked.root, asked.source.name))
        for name in ("go.mod", "go.sum"):
            path = folder / name
            found[name] = sha256_bytes(path.read_bytes()) if path.is_file() else ""
    return found


def resolve(asked: Asked, tree: Path, go: Path, cache: Path) -> tuple[Module, ...]:
    """The modules that a build of the packages, and of the tests, reads."""
    options = asked.options
    return source_go.resolve_closure(
        go, tree, options.packages, options.tags, cgo=options.cgo, test=options.test, cache=cache
    )

"""`lock.json`: the exact pin of every source, and of every Go module that a build reads.

On disk (sorted keys, two spaces, one pin a line where it fits; written by `./do lock` only):

    {"version": 1,
     "recipes": {NAME: {"spec": DIGEST, "source": PIN, "modules": {"path@version": [ZIP_H1 or null, MOD_H1]}}}}

`spec` is a digest of what the pin was made from, so that a recipe that moved on without its pin is noticed.
A PIN is {"h1", "mod"} for go, {"files": [{"name", "sha256", "size", …}]} for pypi, deb, oci and url,
{"commit", "tree"} for git and {} for local.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from sandkube.decode import Fault, decoded, shown
from sandkube.documents import parse_json, read_file
from sandkube.errors import Problems, UserError
from sandkube.shapes import Below, FileName, GitHash, GoModule, GoSum, RecipeName, Sha1, Sha256, Size, Some, matching

VERSION = 1
_WHERE = ("pool", "suite", "component", "sha1")
_PARTS = ("files", "h1", "mod", "commit", "tree")
_HINT = (
    "git checkout HEAD -- lock.json brings the committed one back, ./do lock then pins what it lacks; "
    "without any lock.json it pins everything anew"
)
_CONFLICT = re.compile(rb"^(<<<<<<<|=======|>>>>>>>)( .*)?$", re.MULTILINE)
Suite = Annotated[str, matching("a suite or component of an archive", r"\w[\w.+-]*(/\w[\w.+-]*)*")]


@dataclass(frozen=True, slots=True)
class File:
    """One pinned file: name, SHA-256 in hexadecimal, size in bytes.

    For deb also the path in the archive's pool, the suite (by its code name, which stays) and component that had it,
    and the SHA-1 of the same bytes: the snapshot archive hands out files by it. Nothing is checked against it.
    """

    name: FileName
    sha256: Sha256
    size: Size
    pool: Below = ""
    suite: Suite = ""
    component: Suite = ""
    sha1: Sha1 = ""

    @property
    def in_archive(self) -> bool:
        """Whether it says anything of a Debian archive."""
        return any(getattr(self, each) for each in _WHERE)


@dataclass(frozen=True, slots=True)
class Module:
    """One pinned Go module: `h1:` sums as in go.sum, of the zip (None: only its go.mod is read) and of go.mod."""

    path: str
    version: str
    zip: str | None
    mod: str


@dataclass(frozen=True, slots=True)
class Pin:
    """What one recipe's source is fixed to."""

    spec: str
    files: tuple[File, ...] = ()
    h1: str = ""
    mod: str = ""
    commit: str = ""
    tree: str = ""
    modules: tuple[Module, ...] = field(default=())

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of what it holds of its source."""
        return tuple(each for each in _PARTS if getattr(self, each))


Lock = Mapping[str, Pin]


@dataclass(frozen=True, slots=True)
class _Source:
    """A PIN as it stands in the file."""

    files: Some[File] = ()
    h1: GoSum = ""
    mod: GoSum = ""
    commit: GitHash = ""
    tree: GitHash = ""

    def faults(self) -> Iterator[Fault]:
        """Parts that do not go together."""
        held = tuple(each for each in _PARTS if getattr(self, each))
        if held not in ((), ("files",), ("h1", "mod"), ("commit", "tree")):
            yield (), f"expected files, or h1 and mod, or commit and tree, or nothing; got {', '.join(held)}"


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the file says of a recipe."""

    spec: Sha256
    source: _Source
    modules: Mapping[GoModule, tuple[GoSum | None, GoSum]] = field(default_factory=dict)

    def pin(self) -> Pin:
        """The same as a pin; modules in the order of the file's own writer, whatever theirs is."""
        named = sorted((name.rpartition("@"), sums) for name, sums in self.modules.items())
        modules = tuple(Module(path, version, *sums) for (path, _, version), sums in named)
        one = self.source
        return Pin(self.spec, one.files, one.h1, one.mod, one.commit, one.tree, modules)


@dataclass(frozen=True, slots=True)
class _Document:
    """The whole file."""

    version: int
    recipes: Mapping[RecipeName, _Entry]


def _source_json(pin: Pin) -> dict[str, Any]:
    if pin.files:
        return {
            "files": [
                {"name": each.name, "sha256": each.sha256, "size": each.size}
                | {field: found for field in _WHERE if (found := getattr(each, field))}
                for each in pin.files
            ]
        }
    if pin.h1:
        return {"h1": pin.h1, "mod": pin.mod}
    return {"commit": pin.commit, "tree": pin.tree} if pin.commit else {}


def encode(lock: Lock) -> str:
    """The text of lock.json: one module a line, so that a moved pin is one changed line."""
    blocks = []
    for name in sorted(lock):
        pin = lock[name]
        lines = [
            f'    "{name}": {{',
            f'      "spec": "{pin.spec}",',
            f'      "source": {json.dumps(_source_json(pin))}',
        ]
        if pin.modules:
            lines[-1] += ","
            rows = [
                f"        {json.dumps(f'{each.path}@{each.version}')}: {json.dumps([each.zip, each.mod])}"
                for each in sorted(pin.modules, key=lambda each: (each.path, each.version))
            ]
            lines += ['      "modules": {', ",\n".join(rows), "      }"]
        blocks.append("\n".join([*lines, "    }"]))
    body = ",\n".join(blocks)
    return f'{{\n  "version": {VERSION},\n  "recipes": {{\n{body}\n  }}\n}}\n'


def _parsed(data: bytes) -> Any:
    """The file's JSON. Raises ValueError with a sentence."""
    try:
        found = parse_json(data)
    except ValueError:
        if marker := _CONFLICT.search(data):
            line = data.count(b"\n", 0, marker.start()) + 1
            raise ValueError(f"line {line}: {marker[1].decode()} is a marker of an unfinished merge") from None
        raise
    version = found.get("version") if isinstance(found, dict) else None
    if type(version) is int and version != VERSION:
        raise ValueError(f"version {shown(version)} is not {VERSION}, the one this Sandkube reads")
    return found


def load(path: Path) -> Lock:
    """Read lock.json; an absent file is an empty lock. Raises UserError when it is not one that was written here."""
    if not path.exists() and not path.is_symlink():
        return {}
    try:
        document = decoded(_Document, _parsed(read_file(path, path.name)), path.name)
    except ValueError as error:
        raise UserError(f"{path.name}: {error}", hint=_HINT) from None
    except Problems as found:
        raise Problems(found.problems, hint=_HINT) from None
    return {name: entry.pin() for name, entry in document.recipes.items()}

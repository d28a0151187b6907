"""`lock.json`: the exact pin of every source, and of every Go module that a build reads.

On disk (sorted keys, two spaces, one pin a line where it fits; written by `./do lock` only):

    {"version": 1,
     "recipes": {NAME: {"spec": DIGEST, "source": PIN, "modules": {"path@version": [ZIP_H1 or null, MOD_H1]}}}}

`spec` is a digest of what the pin was made from, so that a recipe that moved on without its pin is noticed.
A PIN is {"h1", "mod"} for go, {"files": [{"name", "sha256", "size", …}]} for pypi, deb and url,
{"commit", "tree"} for git and {} for local.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandkube.errors import UserError

VERSION = 1


@dataclass(frozen=True, slots=True)
class File:
    """One pinned file: name, SHA-256 in hexadecimal, size in bytes; for deb also its path in the pool."""

    name: str
    sha256: str
    size: int
    pool: str = ""


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


Lock = Mapping[str, Pin]


def _source_json(pin: Pin) -> dict[str, Any]:
    if pin.files:
        return {
            "files": [
                {"name": each.name, "sha256": each.sha256, "size": each.size}
                | ({"pool": each.pool} if each.pool else {})
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


def _decode_pin(value: Mapping[str, Any]) -> Pin:
    source = value["source"]
    modules = []
    for name, (zip_sum, mod_sum) in value.get("modules", {}).items():
        path, _, version = name.rpartition("@")
        modules.append(Module(path, version, zip_sum, mod_sum))
    return Pin(
        spec=value["spec"],
        files=tuple(File(**each) for each in source.get("files", ())),
        h1=source.get("h1", ""),
        mod=source.get("mod", ""),
        commit=source.get("commit", ""),
        tree=source.get("tree", ""),
        modules=tuple(modules),
    )


def load(path: Path) -> Lock:
    """Read lock.json; an absent file is an empty lock. Raises UserError when it is damaged."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}
    hint = "restore it from git, or make it anew with ./do lock"
    try:
        data = json.loads(text)
        version = data["version"]
        if version != VERSION:
            raise UserError(
                f"{path.name}: version {version!r} is not {VERSION}, the one this Sandkube reads", hint=hint
            )
        return {name: _decode_pin(value) for name, value in data["recipes"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path.name}: damaged: {type(error).__name__}: {error}", hint=hint) from error

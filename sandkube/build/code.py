"""What the engine's own code means: digests that no comment, docstring or layout changes.

A builder's code enters the keys of its steps. Were its text to count, a mended comment in a shared module would build
everything anew; so what counts is the syntax tree, without what has no effect.
"""

from __future__ import annotations

import ast
import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

from sandkube.digest import Json, canonical_json, sha256_bytes
from sandkube.documents import parse_json
from sandkube.files import read_whole, write_whole

PACKAGE = Path(__file__).resolve().parents[1]
SHARED = (
    "build/builders/kind",
    "build/box",
    "build/derivation",
    "build/patching",
    "tree/__init__",
    "tree/names",
    "tree/whole",
)
"""Modules that take part in every step."""


def _is_text(node: object) -> bool:
    """Whether a statement is a text that stands by itself: a docstring, or words on what is above it."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _fields(node: ast.AST) -> dict[str, object]:
    fields = dict(ast.iter_fields(node))
    if isinstance(node, ast.JoinedStr):  # to some of which CPython 3.12 adds an empty text
        fields["values"] = [each for each in node.values if not (isinstance(each, ast.Constant) and each.value == "")]
    return fields


def _tree(node: object) -> Json:
    """A syntax tree as JSON. Empty fields are left out, so that every CPython has the same one."""
    if isinstance(node, ast.AST):
        fields = {name: _tree(value) for name, value in _fields(node).items() if value is not None}
        return [type(node).__name__, {name: value for name, value in fields.items() if value != []}]
    if isinstance(node, list):
        return [_tree(each) for each in node if not _is_text(each)]
    return f"{type(node).__name__} {node!r}"


def meaning(text: str) -> str:
    """Digest of what a module does. Raises SyntaxError."""
    return sha256_bytes(canonical_json(_tree(ast.parse(text))))


def _status(path: Path) -> str:
    found = path.stat()
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


class Known:
    """What files meant when they were last read, by place and status, kept in a file that may be lost at any time."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}
        self._path: Path | None = None
        self._new = False
        self._me = _status(Path(__file__))  # who finds a meaning in another way finds another one

    def use(self, path: Path) -> None:
        """Take over what a file holds; `keep` writes there."""
        self._path = path
        with contextlib.suppress(OSError, ValueError):
            held = parse_json(read_whole(path))
            if isinstance(held, dict):
                self._found = {str(key): str(value) for key, value in held.items()} | self._found

    def keep(self) -> None:
        """Write what was learnt, without what is of other files or times."""
        if self._new and self._path is not None:
            with contextlib.suppress(OSError):
                write_whole(self._path, json.dumps(self._found, indent=0, sort_keys=True), sync=False)
                self._new = False

    def of(self, path: Path) -> str:
        """What a file means now."""
        key = f"{path} {_status(path)} {self._me}"
        if key not in self._found:
            self._found = {each: found for each, found in self._found.items() if not each.startswith(f"{path} ")}
            self._found[key] = meaning(path.read_text(encoding="utf-8"))
            self._new = True
        return self._found[key]


KNOWN = Known()


def digest(modules: Iterable[str]) -> str:
    """Digest of what the named modules and the shared ones do, as they are on the disk now: 64 hex characters."""
    return sha256_bytes(canonical_json([KNOWN.of(PACKAGE / f"{name}.py") for name in (*SHARED, *modules)]))

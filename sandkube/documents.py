"""Files that people and programs write for the engine, read strictly: a regular file, whole, valid, no key twice."""

from __future__ import annotations

import json
import stat
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sandkube.decode import Table
from sandkube.errors import UserError
from sandkube.files import read_whole


def regular_file_fault(path: Path) -> str:
    """Why a path is no file that can be read, to follow its name; "" if it is one. Nothing is opened: FIFOs wait."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "is a link that leads nowhere" if path.is_symlink() else "does not exist"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if stat.S_ISDIR(mode):
        return "is a folder; a file is expected"
    return "" if stat.S_ISREG(mode) else "is no regular file"


def read_file(path: Path, place: str) -> bytes:
    """The bytes of a regular file, called `place` in the sentence of the UserError for anything else."""
    if fault := regular_file_fault(path):
        raise UserError(f"{place} {fault}")
    try:
        return read_whole(path)
    except OSError as error:
        raise UserError(f"{place} cannot be read: {error.strerror}") from None


def _table(pairs: Sequence[tuple[str, Any]]) -> Table:
    found = Table(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        found.doubled = tuple(key for key in found if keys.count(key) > 1)
    return found


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


def parse_json(data: bytes) -> Any:
    """A JSON document (RFC 8259), its tables as `Table`. Raises ValueError with a sentence."""
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_table, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("not valid JSON: nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"not valid JSON: {error}") from None


def _toml_string(text: str) -> str:
    # The escapes of JSON are some of TOML's; DEL is a control character to TOML alone.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_toml_string(key)} = {_toml_value(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    return _toml_string(value) if isinstance(value, str) else json.dumps(value)  # 1e400 does not come out of TOML


def toml_of(tables: dict[str, Any]) -> str:
    """A TOML document of tables, arrays, strings, numbers, true and false: a line a key."""
    return "".join(f"{_toml_string(key)} = {_toml_value(value)}\n" for key, value in tables.items())


def parse_toml(data: bytes) -> Any:
    """A TOML document. Raises ValueError with a sentence."""
    try:
        return tomllib.loads(data.decode("utf-8"))
    except RecursionError:
        raise ValueError("not valid TOML: nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"not valid TOML: {error}") from None

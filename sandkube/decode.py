"""Strict decoding of parsed TOML or JSON into frozen dataclasses, all problems at once.

Every problem is a sentence with the file and the key: `recipes/runc.toml: build.tags[1]: expected a string, got 3`.
Kept here instead of a validation library because importing one costs more than a whole no-op build may take.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any

type_names = {str: "a string", int: "a whole number", bool: "true or false", dict: "a table", list: "an array"}

Report = Callable[[str, str], None]
"""Takes a key's path (`build.tags[1]`, empty for the file itself) and a sentence."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` where something known is near, else nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _describe(value: object) -> str:
    return type_names.get(type(value), type(value).__name__) if isinstance(value, dict | list) else repr(value)


def _decode_union(kinds: tuple[Any, ...], value: object, path: str, report: Report) -> Any:
    for kind in kinds:
        if dataclasses.is_dataclass(kind) and isinstance(value, dict):
            return decode(kind, value, path, report)
        if kind in type_names and type(value) is kind:
            return value
    names = " or ".join(type_names.get(kind, "a table") for kind in kinds if kind is not type(None))
    report(path, f"expected {names}, got {_describe(value)}")
    return None


def decode(kind: Any, value: object, path: str, report: Report) -> Any:
    """Decode `value` as `kind`: a dataclass, str, int, bool, `tuple[X, ...]`, `Mapping[str, X]` or a union of these."""
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(typing.cast(type, kind), value, path, report)
    if origin is types.UnionType:
        return _decode_union(typing.get_args(kind), value, path, report)
    if origin is tuple:
        if not isinstance(value, list):
            report(path, f"expected an array, got {_describe(value)}")
            return ()
        item = typing.get_args(kind)[0]
        return tuple(decode(item, each, f"{path}[{at}]", report) for at, each in enumerate(value))
    if origin is not None:  # Mapping[str, X], kept as a sorted tuple of pairs by the caller's field type
        if not isinstance(value, dict):
            report(path, f"expected a table, got {_describe(value)}")
            return {}
        item = typing.get_args(kind)[1]
        return {key: decode(item, each, _join(path, key), report) for key, each in sorted(value.items())}
    if type(value) is not kind:
        report(path, f"expected {type_names[kind]}, got {_describe(value)}")
        return kind()
    return value


def _decode_dataclass(kind: type, value: object, path: str, report: Report) -> Any:
    if not isinstance(value, dict):
        report(path, f"expected a table, got {_describe(value)}")
        return None
    hints = typing.get_type_hints(kind)
    fields = {field.name.rstrip("_"): field for field in dataclasses.fields(kind)}
    for key in value:
        if key not in fields:
            report(_join(path, key), f"unknown key{suggestion(key, fields)}")
    found: dict[str, Any] = {}
    complete = True
    for key, field in fields.items():
        if key in value:
            found[field.name] = decode(hints[field.name], value[key], _join(path, key), report)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            report(_join(path, key), "missing key")
            complete = False
    return kind(**found) if complete else None

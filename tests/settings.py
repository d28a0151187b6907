"""The settings of a cluster as README.md's table has them: made of the records and the texts below their fields."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
from collections.abc import Iterator
from typing import Any

from sandkube.app.settings import OF_OPTION
from sandkube.cluster.settings import Settings
from sandkube.decode import key_of

HEADER = ("| key | default | what it is | option |", "| --- | --- | --- | --- |")


def texts(kind: type) -> dict[str, str]:
    """The text below each field of a dataclass, those of its bases first."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__[:-1]):
        (body,) = ast.parse(inspect.getsource(each)).body
        assert isinstance(body, ast.ClassDef)
        for one, after in zip(body.body, body.body[1:], strict=False):
            if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name) and isinstance(after, ast.Expr):
                assert isinstance(after.value, ast.Constant)
                found[one.target.id] = str(after.value.value)
    return found


def _default(value: Any) -> str:
    return "" if value in ("", (), {}, None) else f"`{json.dumps(value)}`"


def rows(value: Any, above: tuple[str, ...] = ()) -> Iterator[str]:
    """A row for each key of a record of settings."""
    said = texts(type(value))
    options = {keys: name for name, keys in OF_OPTION.items()}
    for each in dataclasses.fields(value):
        inner, key = getattr(value, each.name), (*above, key_of(type(value), each.name))
        if dataclasses.is_dataclass(inner):
            yield from rows(inner, key)
            continue
        option = "argument" if key[-1] == "arguments" else options.get(key, "")
        cells = (f"`{'.'.join(key)}`", _default(inner), said[each.name], f"`--{option}`" if option else "")
        yield f"| {' | '.join(cells)} |".replace("|  |", "| |")


def table() -> str:
    """The table."""
    return "\n".join([*HEADER, *rows(Settings())])

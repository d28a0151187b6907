"""Strict decoding of parsed TOML or JSON into frozen dataclasses, all problems at once.

Every problem is a sentence with the file and the key: `recipes/runc.toml: build.tags[1]: expected a string, got 3`.
Kept here instead of a validation library because importing one costs more than a whole no-op build may take.

A field's key is its name, without an underscore at its end; with hyphens for the others where the dataclass has
`HYPHENS = True` (`key_of`).

What a value must look like beyond its type stands beside its field, as `Annotated[str, Shape(…)]` (`sandkube.shapes`
has the common ones); what fields must be to each other is told by a method `faults` of the dataclass.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import types
import typing
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from sandkube.errors import Problems, one_line

T = TypeVar("T")
_NAMES: Mapping[type, str] = {
    **{str: "a string", int: "a whole number", float: "a number", bool: "true or false"},
    **{dict: "a table", list: "an array", types.NoneType: "null"},
}
_LARGEST = 2**63
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SHOWN = 80  # characters of a wrong value that a sentence shows

Report = Callable[[str, str], None]
"""Takes a key's path (`build.tags[1]`, empty for the file itself) and a sentence."""
_Path = tuple[str | int, ...]
Fault = tuple[_Path, str]
"""What a dataclass's method `faults` gives: the key and place below it, and a sentence."""
_Note = Callable[[_Path, str], None]
_Decoder = Callable[[object, _Path, _Note], Any]
"""Gives the decoded value, or _WRONG after a report."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a value must look like beyond its type."""

    fault: Callable[[Any], str]
    """A sentence on a value that does not; "" for one that does."""


class Table(dict[str, Any]):
    """A table as it was read, with the keys that were given more than once."""

    doubled: tuple[str, ...] = ()


class _Wrong:
    """Stands for what was reported; never leaves this module."""


_WRONG = _Wrong()


def key_of(kind: type, name: str) -> str:
    """The key of a dataclass's field."""
    key = name.rstrip("_")
    return key.replace("_", "-") if getattr(kind, "HYPHENS", False) else key


def suggestion(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` where something known is near, else nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {one_line(near[0])}?)" if near else ""


def placed(place: str, key: str, sentence: str) -> str:
    """A problem with its address."""
    return f"{place}: {key}: {sentence}" if key else f"{place}: {sentence}"


def _address(path: _Path) -> str:
    """A path as a sentence shows it: `build.tags[1]`, `recipes["a.b"]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part and not _BARE.fullmatch(part):
            text += f"[{shown(part)}]"
        else:
            text += f".{part}" if text and part else part
    return text


def shown(value: object) -> str:
    """A value as a sentence shows it: in one line, cut short, a table or an array by its type."""
    if isinstance(value, dict | list | tuple):
        return _NAMES[dict if isinstance(value, dict) else list]
    if isinstance(value, int) and abs(value) >= _LARGEST:  # CPython refuses to print very long ones
        return "a number of more than 64 bits"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def looks_like(wanted: str, fits: Callable[[Any], object]) -> Shape:
    """The shape of values for which `fits` is true; `wanted` says it in words, to follow "expected"."""
    return Shape(lambda value: "" if fits(value) else f"expected {wanted}, got {shown(value)}")


def _expected(wanted: str, value: object, path: _Path, report: _Note) -> _Wrong:
    report(path, f"expected {wanted}, got {shown(value)}")
    return _WRONG


def _type_of(kind: Any) -> type:
    """The type that a parser gives for a kind."""
    base = typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind
    if dataclasses.is_dataclass(base) or typing.get_origin(base) not in (None, tuple):
        return dict
    return list if typing.get_origin(base) is tuple else typing.cast(type, base)


def _union(kinds: tuple[Any, ...]) -> _Decoder:
    decoders = {_type_of(kind): _decoder(kind) for kind in kinds}
    wanted = " or ".join(_NAMES[each] for each in decoders)

    def decoder(value: object, path: _Path, report: _Note) -> Any:
        chosen = decoders.get(dict if isinstance(value, dict) else type(value))
        return chosen(value, path, report) if chosen else _expected(wanted, value, path, report)

    return decoder


def _shaped(base: Any, shapes: tuple[Shape, ...]) -> _Decoder:
    inner = _decoder(base)

    def decoder(value: object, path: _Path, report: _Note) -> Any:
        found = inner(value, path, report)
        for shape in shapes:
            if found is not _WRONG and (sentence := shape.fault(found)):
                report(path, sentence)
                return _WRONG
        return found

    return decoder


def _tuple(items: tuple[Any, ...]) -> _Decoder:
    same = _decoder(items[0]) if items[1:] == (...,) else None
    each = [] if same else [_decoder(item) for item in items]

    def decoder(value: object, path: _Path, report: _Note) -> Any:
        if not isinstance(value, list):
            return _expected("an array", value, path, report)
        decoders = [same] * len(value) if same else each
        if len(decoders) != len(value):
            report(path, f"expected an array of {len(decoders)} items, got {len(value)}")
            return _WRONG
        found = tuple(decoders[at](item, (*path, at), report) for at, item in enumerate(value))
        return _WRONG if any(one is _WRONG for one in found) else found

    return decoder


def _is_table(value: object, path: _Path, report: _Note) -> bool:
    """Whether a value is a table that gives no key twice; else it is reported."""
    if not isinstance(value, dict):
        _expected("a table", value, path, report)
        return False
    doubled = value.doubled if isinstance(value, Table) else ()
    for key in doubled:
        report((*path, key), "is given more than once")
    return not doubled


def _mapping(kinds: tuple[Any, ...]) -> _Decoder:
    of_key, of_value = map(_decoder, kinds)

    def decoder(value: object, path: _Path, report: _Note) -> Any:
        if not _is_table(value, path, report):
            return _WRONG
        rows = typing.cast(Mapping[Any, object], value)
        found, whole = {}, True
        for key in sorted(rows, key=str):
            place = (*path, str(key))
            found[key] = of_value(rows[key], place, report)
            whole = of_key(key, place, report) is not _WRONG and found[key] is not _WRONG and whole
        return found if whole else _WRONG

    return decoder


def _dataclass(kind: type) -> _Decoder:
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {key_of(kind, field.name): (field, _decoder(hints[field.name])) for field in dataclasses.fields(kind)}
    nothing = dataclasses.MISSING
    needed = [key for key, (f, _) in fields.items() if f.default is nothing and f.default_factory is nothing]

    def decoder(value: object, path: _Path, report: _Note) -> Any:
        if not _is_table(value, path, report):
            return _WRONG
        rows = typing.cast(Mapping[Any, object], value)
        wrong = [(str(key), f"unknown key{suggestion(str(key), fields)}") for key in rows if key not in fields]
        wrong += [(key, "missing key") for key in needed if key not in rows]
        for key, sentence in wrong:
            report((*path, key), sentence)
        found = {f.name: inner(rows[key], (*path, key), report) for key, (f, inner) in fields.items() if key in rows}
        whole = not wrong and all(one is not _WRONG for one in found.values())
        return _judged(kind(**found), path, report) if whole else _WRONG

    return decoder


def _judged(made: Any, path: _Path, report: _Note) -> Any:
    """A dataclass's value, its fields compared with each other by its method `faults`, if it has one."""
    faults = list(made.faults()) if hasattr(made, "faults") else []
    for key, sentence in faults:
        report((*path, *key), sentence)
    return _WRONG if faults else made


def _is_text(value: str) -> bool:
    """Whether a string can be a word of a command and the text of a file: no NUL, no half of a surrogate pair."""
    return "\0" not in value and (value.isascii() or not any("\ud800" <= each <= "\udfff" for each in value))


def _scalar(kind: type) -> _Decoder:
    def decoder(value: object, path: _Path, report: _Note) -> Any:
        if type(value) is kind or (kind is float and type(value) is int):
            if isinstance(value, str):
                wanted = "a string without NUL and surrogates"
                return value if _is_text(value) else _expected(wanted, value, path, report)
            if not isinstance(value, int | float) or abs(value) < _LARGEST:  # which NaN is not
                return float(typing.cast(float, value)) if kind is float else value
        return _expected(_NAMES[kind], value, path, report)

    return decoder


@functools.cache
def _decoder(kind: Any) -> _Decoder:
    """What decodes a kind, made once."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in (object, Any):
        return lambda value, _path, _report: value
    if dataclasses.is_dataclass(kind):
        return _dataclass(typing.cast(type, kind))
    if origin is Annotated:
        return _shaped(arguments[0], arguments[1:])
    if origin in (types.UnionType, typing.Union):
        return _union(arguments)
    if origin is tuple:
        return _tuple(arguments)
    return _scalar(kind) if origin is None else _mapping(arguments)


def decode(kind: type[T], value: object, path: str, report: Report) -> T | None:
    """Decode `value` as `kind`; None if anything was wrong, which is reported then, all of it.

    A kind is a dataclass, str, int, float, bool, None, `object` or Any (anything), `tuple[X, ...]`, `tuple[X, Y]`,
    `Mapping[K, X]`, a union of these, or one of them with shapes (`Annotated`).
    """
    found = _decoder(typing.cast(Hashable, kind))(
        value, (path,), lambda place, sentence: report(_address(place), sentence)
    )
    return None if found is _WRONG else typing.cast(T, found)


def decoded(kind: type[T], value: object, place: str) -> T:
    """Decode `value`, which stands at `place`, as `kind`. Raises `Problems` with all that is wrong."""
    problems: list[str] = []
    found = decode(kind, value, "", lambda key, sentence: problems.append(placed(place, key, sentence)))
    if problems or found is None:
        raise Problems(problems)
    return found

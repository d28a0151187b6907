"""Why a step runs: the difference between two preimages, as values and as sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sandkube.digest import Json

FIELDS = ("source", "patches", "modules", "inputs", "options", "builder", "kind", "platform", "schema", "epoch")
"""Fields of a preimage in the order in which people want to hear of them; any other one follows by name."""
_WORDS = {"builder": "the builder's own code changed", "source": "the source changed", "patches": "patches changed"}
_NOUNS = {"inputs": "input", "options": "option", "modules": "module"}


@dataclass(frozen=True, slots=True)
class Change:
    """One place in which two preimages differ; None where one has nothing there."""

    field: str
    name: str
    """The name within a table (of an input, an option, a module); empty for a field that is one value."""
    old: Json
    new: Json

    def __str__(self) -> str:
        how = " added" if self.old is None else " removed" if self.new is None else ""
        return f"{self.name}{how}"


def _table(value: Json) -> Mapping[str, Json] | None:
    return value if isinstance(value, Mapping) else None


def _of_field(field: str, before: Json, after: Json) -> Iterator[Change]:
    old, new = _table(before), _table(after)
    if old is None or new is None:
        yield Change(field, "", before, after)
        return
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name) or (name in old) != (name in new):
            yield Change(field, name, old.get(name), new.get(name))


def changes(old: Mapping[str, Json], new: Mapping[str, Json]) -> tuple[Change, ...]:
    """Every place in which two preimages differ; of any two records, whichever version of Sandkube wrote them."""
    fields = [*FIELDS, *sorted({*old, *new} - set(FIELDS))]
    return tuple(
        change
        for field in fields
        if (field in old) != (field in new) or old.get(field) != new.get(field)
        for change in _of_field(field, old.get(field), new.get(field))
    )


def sentences(found: tuple[Change, ...]) -> tuple[str, ...]:
    """One sentence a field that differs, with at most three names."""
    by_field: dict[str, list[str]] = {}
    for change in found:
        by_field.setdefault(change.field, []).append(str(change) if change.name else "")
    return tuple(_sentence(field, [name for name in names if name]) for field, names in by_field.items())


def _sentence(field: str, names: list[str]) -> str:
    if not names:
        return _WORDS.get(field, f"{field} changed")
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{_NOUNS.get(field, field)} changed: {', '.join(names[:3])}{more}"

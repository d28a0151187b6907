"""A derivation: everything that one step's output depends on, as a plain value.

The key is the SHA-256 of the canonical JSON of the record (its preimage). Inputs enter by the hashes of their
*outputs*, so a rebuilt input with the same bytes changes no key (early cutoff).

Left out, on purpose: the product's name, file names of patches, folders of this machine, time, user, number of
cores, log level, where a source was fetched from, and bubblewrap and the Go client that fetches (they isolate
and carry; they write no output byte).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandkube.digest import Json, canonical_json, sha256_bytes

SCHEMA = 1
EPOCH = 315532800  # 1980-01-01T00:00:00Z, the SOURCE_DATE_EPOCH of every build: zip files know no earlier time
PLATFORM = "x86_64-linux"


@dataclass(frozen=True, slots=True)
class Derivation:
    """One step, fully determined. Pairs are sorted by name; `patches` are in order of application."""

    kind: str
    builder: str
    options: Mapping[str, Json]
    source: str
    inputs: tuple[tuple[str, str], ...] = ()
    patches: tuple[tuple[str, str], ...] = ()
    modules: tuple[tuple[str, str], ...] = ()

    def preimage(self) -> Mapping[str, Json]:
        """The record as JSON values, with the schema, the epoch and the platform."""
        return {
            "schema": SCHEMA,
            "epoch": EPOCH,
            "platform": PLATFORM,
            "kind": self.kind,
            "builder": self.builder,
            "options": self.options,
            "source": self.source,
            "inputs": dict(self.inputs),
            "patches": [list(each) for each in self.patches],
            "modules": dict(self.modules),
        }

    def key(self) -> str:
        """64 hexadecimal characters."""
        return key_of(self.preimage())


def key_of(preimage: Mapping[str, Json]) -> str:
    """The key of a preimage, as kept beside a record."""
    return sha256_bytes(canonical_json(preimage))


def _changed_names(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    names = [f"{name} added" for name in new if name not in old]
    names += [f"{name} removed" for name in old if name not in new]
    names += [name for name in new if name in old and old[name] != new[name]]
    shown = sorted(names)[:3]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


_WORDS = {"builder": "the builder's own code changed", "source": "the source changed", "patches": "patches changed"}


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    """Why two preimages have different keys: one sentence a differing field, in a fixed order."""
    reasons = []
    for field in (
        "source",
        "patches",
        "modules",
        "inputs",
        "options",
        "builder",
        "kind",
        "platform",
        "schema",
        "epoch",
    ):
        before, after = old.get(field), new.get(field)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            noun = {"inputs": "input", "options": "option", "modules": "module"}[field]
            reasons.append(f"{noun} changed: {_changed_names(before, after)}")
        else:
            reasons.append(_WORDS.get(field, f"{field} changed"))
    return tuple(reasons)

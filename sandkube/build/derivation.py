"""A derivation: everything that one step's output depends on, as a plain value.

The key is the SHA-256 of the canonical JSON of the record (its preimage). Inputs enter by the hashes of their
*outputs*, so a rebuilt input with the same bytes changes no key (early cutoff).

Left out, on purpose: the product's name, file names of patches, folders of this machine, time, user, number of
cores, log level, where a source was fetched from, and bubblewrap and the Go client that fetches (they isolate
and carry; they write no output byte).

Left out as well, though they write bytes: git (patched files), CPython (unpacked files, copies, the tar headers of
images), zstandard (what it unpacks), GitPython with git (files of `git:` sources). Their versions differ from machine
to machine: were they in the key, hardly two machines would share one. It is accepted because formats settle what they
write, not versions: `git apply` gets exact context and no attribute or setting, tar headers are filled in one by one,
what is unpacked has one meaning, and what GitPython reads is hashed again. A version that breaks this gives another
output hash under the same key, which a build elsewhere shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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

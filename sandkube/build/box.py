"""The build sandbox as a step sees it: what its commands find, whoever starts them (`sandkube.build.boxes`).

Inside there are the toolchain, the source, the inputs, and nothing else, at fixed paths:

    /sandkube/src      the source, writable, patched
    /sandkube/out      the output being made
    /sandkube/in/NAME  the inputs, read-only
    /sandkube/cache    what a compiler keeps for later steps of this kind, writable
    /sandkube/zig      what zig keeps for every step: libc and the like, writable
    /tmp               empty, writable
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Protocol

from sandkube.build.derivation import EPOCH
from sandkube.run import Finished

SRC, OUT, IN, CACHE, TMP = "/sandkube/src", "/sandkube/out", "/sandkube/in", "/sandkube/cache", "/tmp"
ZIG = "/sandkube/zig"

ENVIRONMENT: Mapping[str, str] = {
    "HOME": TMP,
    "TMPDIR": TMP,
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC0",
    "SOURCE_DATE_EPOCH": str(EPOCH),
    "PATH": "/nonexistent",
}


@dataclass(frozen=True, slots=True)
class Mount:
    """A host path shown inside at `inside`; read-only unless `writable`. One may be inside of an earlier one."""

    host: Path
    inside: str
    writable: bool = False


def input_mounts(inputs: Mapping[str, Path]) -> list[Mount]:
    """Inputs by name, where steps find them."""
    return [Mount(path, f"{IN}/{name}") for name, path in sorted(inputs.items())]


@dataclass(frozen=True, slots=True)
class Call:
    """One command of a step, as a box is asked for it."""

    command: Sequence[str]
    """Empty where there is none."""
    mounts: Sequence[Mount] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    """Beside `ENVIRONMENT`."""
    cwd: str = "/"

    def text(self) -> str:
        """The command, quoted for a shell."""
        return shlex.join(self.command)

    def moved(self, old: Path, new: Path) -> Call:
        """The same call after a folder moved."""

        def there(path: Path) -> Path:
            return new / path.relative_to(old) if path.is_relative_to(old) else path

        mounts = [Mount(there(each.host), each.inside, each.writable) for each in self.mounts]
        return replace(self, mounts=mounts)


class Box(Protocol):
    """Runs commands of a step."""

    def run(self, call: Call, *, log: BinaryIO, capture: bool = False, check: bool = True) -> Finished:
        """Run one command with `ENVIRONMENT` and its own. Raises CommandFailed unless `check` is off."""
        ...

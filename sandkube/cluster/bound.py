"""A bound on what all of a cluster takes of this machine: cgroups that its supervisor and all that it starts are in.

The supervisor goes there before it starts anything, and leaves at its end. In version 2 it is in a cgroup `supervisor`
below: one with processes in it hands no controllers on, and a sandbox of the kind `linux` makes its own beside that.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sandkube.cluster import cgroups
from sandkube.cluster.cgroups import UNIFIED, Need
from sandkube.errors import UserError

_RECORD = "bound.json"
_LEAF = "supervisor"
_KEYS = ("memory", "pids")
_HIT = {"memory.events.local": "oom", "memory.oom_control": "oom_kill"}
"""Files of version 2 and 1 that count when a cgroup had to end a process for its own bound."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What a cluster may take: bytes of memory, and processes with their threads; 0 for no bound."""

    memory: int = 0
    pids: int = 0

    def __bool__(self) -> bool:
        return bool(self.memory or self.pids)

    def need(self, *, native: bool) -> Need:
        """The cgroups for it; those of a sandbox on this machine's own kernel (`native`) get theirs from them."""
        wanted = tuple(key for key in _KEYS if getattr(self, key))
        need = Need(f"a bound on {' and '.join(wanted)}", wanted, wanted, "leave it out: no cluster needs one")
        return replace(need, second=cgroups.LINUX.second) if native else need

    def check(self, *, native: bool) -> None:
        """See whether it can be had. Raises UserError, with what is missing."""
        if self:
            cgroups.places(need=self.need(native=native))

    def files(self, controllers: str) -> Iterator[tuple[str, str]]:
        """What is written into which file of a cgroup with these controllers."""
        second, mine = controllers == UNIFIED, controllers.split(",")
        if self.memory and second:
            yield "memory.max", str(self.memory)
        if self.memory and "memory" in mine:
            yield "memory.limit_in_bytes", str(self.memory)
        if self.pids and (second or "pids" in mine):
            yield "pids.max", str(self.pids)

    def wishes(self, controllers: str) -> Iterator[tuple[str, str]]:
        """The same of files that not every kernel has: memory that was swapped out counts as well."""
        if self.memory and controllers == UNIFIED:
            yield "memory.swap.max", "0"
        if self.memory and "memory" in controllers.split(","):
            yield "memory.memsw.limit_in_bytes", str(self.memory)


def bound_of(document: Mapping[str, Any] | None) -> Bound:
    """The bound in a document of settings."""
    said = document.get("sandbox", {}) if document else {}
    return Bound(**{key: said.get(key, 0) for key in _KEYS})


class Bounded:
    """The bound of the cluster with this folder, while its supervisor is in it."""

    def __init__(self, folder: Path, name: str, bound: Bound, *, native: bool, root: Path = Path("/")) -> None:
        self._record, self._name, self._bound, self._root = folder / _RECORD, f"{name}-bound", bound, root
        self._native = native
        self._made: dict[str, Path] = {}
        self._before: list[Path] = []

    def enter(self) -> None:
        """Have this process, and all that it starts from now on, be in it. Raises UserError, OSError."""
        if not self._bound:
            return
        self._made = cgroups.make(self._name, self._root, self._bound.need(native=self._native))
        cgroups.record(self._record, self._made)
        for controllers, folder in self._made.items():
            for name, text in self._bound.files(controllers):
                (folder / name).write_text(text)
            for name, text in self._bound.wishes(controllers):
                with contextlib.suppress(OSError):  # there is no swap to count, or nothing counts it
                    if (folder / name).exists():
                        (folder / name).write_text(text)
            if controllers == UNIFIED:
                folder = folder / _LEAF
                folder.mkdir()
            self._before += [each.own for each in cgroups.hierarchies(self._root) if each.controllers == controllers]
            _join(folder)

    def exceeded(self) -> str:
        """A sentence about memory that was asked for above the bound; "" if none was."""
        for folder in self._made.values():
            for name, key in _HIT.items():
                with contextlib.suppress(OSError):
                    words = (folder / name).read_text().split()
                    if int(dict(zip(words[::2], words[1::2], strict=False)).get(key, 0)):
                        return f"the cluster asked for more memory than its bound of {self._bound.memory >> 20} MiB"
        return ""

    def leave(self) -> None:
        """Take this process out again, when it has nothing left that it started, and remove the cgroups."""
        for folder in self._before:
            with contextlib.suppress(OSError):
                _join(folder)
        cgroups.remove(self._made.values())
        if self._made:
            self._record.unlink(missing_ok=True)


def _join(cgroup: Path) -> None:
    (cgroup / "cgroup.procs").write_text(f"{os.getpid()}\n")


def clear(folder: Path, seconds: float) -> int:
    """Remove what a supervisor left that was killed; the number of a process in it that does not end, or 0."""
    return cgroups.clear(folder / _RECORD, seconds)


def refuse_in_place(bound: Bound) -> None:
    """Raise UserError where a node in place is to have one."""
    if bound:
        raise UserError(
            "a node in place has no sandbox of its own to bound",
            hint="leave sandbox.memory and sandbox.pids out, and bound the sandbox that is around it",
        )

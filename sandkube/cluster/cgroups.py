"""Cgroups for a sandbox on this machine's own kernel: where they can be, made and removed (cgroups(7)).

Version 1 has a cgroup of the sandbox in every hierarchy that is mounted, below the one that this process is in.
Version 2 has one, in the nearest cgroup above this process that may hand the controllers on: one with processes in it
may not, unless it is the machine's root.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandkube.errors import UserError

UNIFIED = "unified"
CONTROLLERS = ("cpu", "memory", "pids")
"""Those that limits of pods are made of."""
_NEEDED_1 = ("cpu", "cpuacct", "cpuset", "memory", "pids")  # what the kubelet looks for, and the limits of pids
_DELEGATE = (
    "as root it works; or have systemd delegate a cgroup: "
    "systemd-run --user --scope --property=Delegate=yes ./do run-cluster --sandbox linux"
)
_ROOT = "as root it mostly works, for cgroups of version 1 are rarely delegated; the kind modern needs none"
_MODERN = "the kind modern needs no cgroup"
_TRIES, _MOMENT = 200, 0.01


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted hierarchy: its controllers as mount(2) takes them, or UNIFIED; as folders, its top and the cgroup of
    this process.
    """

    controllers: str
    top: Path
    own: Path


def _mounts(root: Path) -> Iterator[tuple[str, str, set[str], Path]]:
    """Type, root within the hierarchy, options and folder of each mount of cgroups (proc(5), mountinfo)."""
    for line in (root / "proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            within, folder = (each.encode().decode("unicode_escape") for each in before.split(" ")[3:5])
            yield kind, within, set(options.split(",")), root / folder.lstrip("/")


def hierarchies(root: Path = Path("/")) -> list[Hierarchy]:
    """The hierarchies that this process can reach: all of version 1, or that of version 2 where there is no other."""
    mounts = list(_mounts(root))
    found = []
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for kind, within, options, folder in mounts:
            named = set(controllers.split(",")) <= options if controllers else kind == "cgroup2"
            if (kind == "cgroup") == bool(controllers) and named and Path(path).is_relative_to(within):
                found.append(Hierarchy(controllers or UNIFIED, folder, folder / Path(path).relative_to(within)))
                break
    second = [each for each in found if each.controllers == UNIFIED]
    return [each for each in found if each.controllers != UNIFIED] or second


def _lacks(controllers: Sequence[str], there: Sequence[str]) -> UserError:
    missing = ", ".join(each for each in controllers if each not in there)
    return UserError(
        f"--sandbox linux needs cgroups, and there is none here for {missing}", hint="./do doctor tells more"
    )


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _hands_on(cgroup: Path) -> bool:
    """Whether cgroups in this one get the controllers, now or once they are asked to be."""
    control = cgroup / "cgroup.subtree_control"
    if set(CONTROLLERS) <= set(_words(control)):
        return True
    try:
        control.write_text(" ".join(f"+{each}" for each in CONTROLLERS))
    except OSError:  # EBUSY: there are processes in it
        return False
    return set(CONTROLLERS) <= set(_words(control))


def _place(one: Hierarchy) -> Path:
    """The cgroup of version 2 to be in. Raises UserError, with what is missing."""
    above = [folder for folder in (one.own, *one.own.parents) if folder.is_relative_to(one.top)]
    if not set(CONTROLLERS) <= (there := set(_words(one.top / "cgroup.controllers"))):
        raise _lacks(CONTROLLERS, [*there])
    # A process is moved by who may write to cgroup.procs of a cgroup that is above both.
    mine = [each for each in above if all(os.access(path, os.W_OK) for path in (each, each / "cgroup.procs"))]
    if not mine:
        raise UserError(
            f"--sandbox linux needs a cgroup of your own, and {one.own} is not delegated to you", hint=_DELEGATE
        )
    for each in mine:
        if set(CONTROLLERS) <= set(_words(each / "cgroup.controllers")) and _hands_on(each):
            return each
    raise UserError(
        f"--sandbox linux needs a cgroup that hands on {', '.join(CONTROLLERS)}, and none of yours does: {mine[-1]}",
        hint=_DELEGATE,
    )


def places(root: Path = Path("/")) -> dict[str, Path]:
    """By its controllers, where a cgroup can be made in each hierarchy. Raises UserError, with what is missing."""
    found = hierarchies(root)
    if [each.controllers for each in found] == [UNIFIED]:
        return {UNIFIED: _place(found[0])}
    there = [name for each in found for name in each.controllers.split(",")]
    if not set(_NEEDED_1) <= set(there):
        raise _lacks(_NEEDED_1, there)
    for each in found:
        if not os.access(each.own, os.W_OK):
            raise UserError(f"--sandbox linux needs to make cgroups, and {each.own} cannot be written", hint=_ROOT)
    return {each.controllers: each.own for each in found}


def make(name: str, root: Path = Path("/")) -> dict[str, Path]:
    """Make a cgroup of this name in each hierarchy; their folders, by controllers. Raises UserError."""
    made: dict[str, Path] = {}
    try:
        for controllers, place in places(root).items():
            folder = place / name
            folder.mkdir()
            made[controllers] = folder
            if "cpuset" in controllers.split(","):  # empty in a new one, and then no process can be in it
                for each in ("cpuset.cpus", "cpuset.mems"):
                    (folder / each).write_text((place / each).read_text())
    except OSError as error:
        remove(made.values())
        raise UserError(f"no cgroup can be made: {error.filename}: {error.strerror}", hint=_MODERN) from None
    return made


def processes(folder: Path) -> Iterator[int]:
    """Those in a cgroup and in those below it."""
    for each, _, _ in os.walk(folder):
        yield from map(int, _words(Path(each) / "cgroup.procs"))


def remove(folders: Iterable[Path]) -> None:
    """Remove cgroups and those below them, whose processes have ended: they are busy for a moment after that."""
    for folder in folders:
        for _ in range(_TRIES):
            for each, _, _ in os.walk(folder, topdown=False):
                with contextlib.suppress(OSError):
                    Path(each).rmdir()  # its files go with it
            if not folder.exists():
                break
            time.sleep(_MOMENT)


def shared_memory(folder: Path) -> int:
    """Bytes of memory files, those of a tmpfs among them, in a cgroup and those below it; 0 if that is not known."""
    words = _words(folder / "memory.stat")
    found = dict(zip(words[::2], words[1::2], strict=False))
    return int(found.get("total_shmem", found.get("shmem", 0)))  # in version 1 the latter is the cgroup's own

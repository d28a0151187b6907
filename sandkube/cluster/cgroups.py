"""Cgroups for what a cluster runs: where they can be, made, recorded and removed (cgroups(7)).

Version 1 has a cgroup in the hierarchies that are mounted, below the one that this process is in.
Version 2 has one, in the nearest cgroup above this process that may hand the controllers on: one with processes in it
may not, unless it is the machine's root.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sandkube.cluster.processes import end, opened
from sandkube.errors import UserError

UNIFIED = "unified"
_DELEGATE = (
    "as root it works; or have systemd delegate a cgroup: "
    "systemd-run --user --scope --property=Delegate=yes ./do run-cluster"
)


@dataclass(frozen=True, slots=True)
class Need:
    """Who needs cgroups, as a sentence begins, and the controllers of them in version 1 and in version 2; `all_of_1`
    where a cgroup has to be in each hierarchy of version 1, and what to do without.
    """

    who: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    without: str
    all_of_1: bool = False
    option: str = ""
    """What run-cluster is given for it."""

    def lacks(self, controllers: Sequence[str], there: Sequence[str]) -> UserError:
        """Some of the controllers are not there."""
        missing = ", ".join(each for each in controllers if each not in there)
        return UserError(f"{self.who} needs cgroups, and there is none here for {missing}", hint=self.without)

    @property
    def delegate(self) -> str:
        """How to get cgroups of version 2."""
        return f"{_DELEGATE}{self.option}"

    @property
    def mostly(self) -> str:
        """How to get those of version 1."""
        return f"as root it mostly works, for cgroups of version 1 are rarely delegated; {self.without}"


LINUX = Need(
    "--sandbox linux",
    ("cpu", "cpuacct", "cpuset", "memory", "pids"),  # what the kubelet looks for, and the limits of pids
    ("cpu", "memory", "pids"),  # those that limits of pods are made of
    "the kind modern needs no cgroup",
    all_of_1=True,
    option=" --sandbox linux",
)
"""A sandbox on this machine's own kernel."""
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


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _hands_on(cgroup: Path, controllers: Sequence[str]) -> bool:
    """Whether cgroups in this one get the controllers, now or once they are asked to be."""
    control = cgroup / "cgroup.subtree_control"
    if set(controllers) <= set(_words(control)):
        return True
    try:
        control.write_text(" ".join(f"+{each}" for each in controllers))
    except OSError:  # EBUSY: there are processes in it
        return False
    return set(controllers) <= set(_words(control))


def _place(one: Hierarchy, need: Need) -> Path:
    """The cgroup of version 2 to be in. Raises UserError, with what is missing."""
    wanted = need.second
    above = [folder for folder in (one.own, *one.own.parents) if folder.is_relative_to(one.top)]
    if not set(wanted) <= (there := set(_words(one.top / "cgroup.controllers"))):
        raise need.lacks(wanted, [*there])
    # A process is moved by who may write to cgroup.procs of a cgroup that is above both.
    mine = [each for each in above if all(os.access(path, os.W_OK) for path in (each, each / "cgroup.procs"))]
    if not mine:
        raise UserError(
            f"{need.who} needs a cgroup of your own, and {one.own} is not delegated to you", hint=need.delegate
        )
    for each in mine:
        if set(wanted) <= set(_words(each / "cgroup.controllers")) and _hands_on(each, wanted):
            return each
    raise UserError(
        f"{need.who} needs a cgroup that hands on {', '.join(wanted)}, and none of yours does: {mine[-1]}",
        hint=need.delegate,
    )


def places(root: Path = Path("/"), need: Need = LINUX) -> dict[str, Path]:
    """By its controllers, where a cgroup can be made in each hierarchy. Raises UserError, with what is missing."""
    found = hierarchies(root)
    if [each.controllers for each in found] == [UNIFIED]:
        return {UNIFIED: _place(found[0], need)}
    there = [name for each in found for name in each.controllers.split(",")]
    if not set(need.first) <= set(there):
        raise need.lacks(need.first, there)
    used = [each for each in found if need.all_of_1 or set(each.controllers.split(",")) & set(need.first)]
    for each in used:
        if not os.access(each.own, os.W_OK):
            raise UserError(f"{need.who} needs to make cgroups, and {each.own} cannot be written", hint=need.mostly)
    return {each.controllers: each.own for each in used}


def make(name: str, root: Path = Path("/"), need: Need = LINUX) -> dict[str, Path]:
    """Make a cgroup of this name in each hierarchy; their folders, by controllers. Raises UserError."""
    made: dict[str, Path] = {}
    try:
        for controllers, place in places(root, need).items():
            folder = place / name
            folder.mkdir()
            made[controllers] = folder
            if "cpuset" in controllers.split(","):  # empty in a new one, and then no process can be in it
                for each in ("cpuset.cpus", "cpuset.mems"):
                    (folder / each).write_text((place / each).read_text())
    except OSError as error:
        remove(made.values())
        raise UserError(f"no cgroup can be made: {error.filename}: {error.strerror}", hint=need.without) from None
    return made


def record(path: Path, folders: dict[str, Path]) -> None:
    """Write down which cgroups were made, to be found again by whoever clears them away."""
    path.write_text(json.dumps({name: str(folder) for name, folder in folders.items()}))


def recorded(path: Path) -> list[Path]:
    """What was written down; nothing if that cannot be told."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return [Path(each) for each in json.loads(path.read_text()).values()]
    return []


def clear(path: Path, seconds: float) -> int:
    """End what is left in recorded cgroups, and remove them; the number of a process that does not end, or 0."""
    folders = recorded(path)
    for pid, process in _left(folders):
        if not end(process, signal.SIGKILL, seconds):
            return pid
    remove(folders)
    return 0


def _left(folders: Sequence[Path]) -> Iterator[tuple[int, int]]:
    for folder in folders:
        for pid in processes(folder):
            with opened(pid, partial(lambda pid, folder: pid in processes(folder), pid, folder)) as process:
                if process is not None:
                    yield pid, process


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

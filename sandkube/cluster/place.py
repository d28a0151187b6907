"""Where a cluster is kept, and whether it still runs."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

from sandkube import log
from sandkube.cluster.processes import opened
from sandkube.decode import decoded, looks_like
from sandkube.documents import parse_json, read_file
from sandkube.errors import UserError
from sandkube.files import locked, make_folder
from sandkube.shapes import matching

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
STATE = "state.json"
DATA = "data"
SETTINGS = "settings.json"
PUBLISH = "publish.json"
REGISTRY = "registry"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


Phase = Annotated[str, matching("starting, running, failed or stopped", "starting|running|failed|stopped")]
Count = Annotated[int, looks_like("a number from 0 on", lambda value: value >= 0)]


@dataclass(frozen=True, slots=True)
class State:
    """What is known of a cluster's supervisor.

    `phase` is starting, running, failed or stopped; `born` is the supervisor's start time in clock ticks after boot
    (field 22 of proc(5)'s stat), which together with the boot's id tells it from a later process with its number.
    """

    phase: Phase
    pid: Count
    born: Count
    boot: str
    container: str
    created: float
    port: Count = 0
    reason: str = ""

    def alive(self) -> bool:
        """Whether the supervisor runs. To tell, not to act on it: `opened` is for that."""
        return self.boot == boot_id() and birth(self.pid) == self.born

    def opened(self) -> contextlib.AbstractContextManager[int | None]:
        """A pidfd of the supervisor, None if it does not run."""
        return opened(self.pid, self.alive)

    def moved(self, **changes: str | int) -> State:
        """The state after a change."""
        return replace(self, **changes)  # type: ignore[arg-type]


def boot_id() -> str:
    """The kernel's id of this boot."""
    return _BOOT_ID.read_text().strip()


def birth(pid: int) -> int:
    """Start time of a process in clock ticks after boot; -1 if there is none, or if it ended and is not waited for."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return -1
    fields = text.rpartition(")")[2].split()
    return -1 if fields[0] in "ZX" else int(fields[19])


@dataclass(frozen=True, slots=True)
class Place:
    """The folder of one cluster."""

    folder: Path

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self.folder.name

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.folder / "kubeconfig"

    @property
    def data(self) -> Path:
        """The folder of data that stay; the rest of the cluster's folder is made anew at each start."""
        return self.folder / DATA

    @property
    def kept(self) -> bool:
        """Whether its data stay."""
        return self.data.is_dir()

    def check_owner(self) -> None:
        """Raise UserError unless this user may do anything with the cluster."""
        if not os.access(self.folder, os.R_OK | os.W_OK | os.X_OK):
            raise UserError(
                f"cluster {self.name} belongs to another user", hint="do this as that user, or take another --name"
            )

    @property
    def runsc(self) -> Path:
        """The folder of runsc's own state."""
        return self.folder / "runsc"

    @property
    def logs(self) -> Path:
        """The folder of the components' logs."""
        return self.folder / "logs"

    def read(self) -> State | None:
        """The recorded state; None when there is none, or it is damaged."""
        try:
            return decoded(State, parse_json(read_file(self.folder / STATE, STATE)), STATE)
        except (UserError, ValueError):
            return None

    def write(self, state: State) -> None:
        """Record a state."""
        self.write_file(STATE, json.dumps(asdict(state)))

    def write_file(self, name: str, text: str) -> None:
        """Replace a file of the folder, readable for its owner only. Raises UserError when there is no space."""
        temporary, path = self.folder / f".{name}", self.folder / name
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:  # noqa: PTH123
                file.write(text)
            temporary.replace(path)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from None

    def running(self) -> State | None:
        """The state of a cluster that can be used now."""
        state = self.read()
        return state if state and state.phase == "running" and state.alive() else None

    @contextlib.contextmanager
    def supervisor(self) -> Iterator[int]:
        """A pidfd of the supervisor. Raises UserError if it does not run."""
        with needs_running(self).opened() as supervisor:
            if supervisor is None:
                raise _not_running(self)
            yield supervisor

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep others from starting or stopping the cluster."""
        make_folder(self.folder.parent)
        waiting = f"waiting for another command that starts or stops cluster {self.name}"
        with locked(self.folder.parent / f".{self.name}.lock", waits=lambda: log.say(waiting)):
            yield


def place(outputs: Path, name: str) -> Place:
    """The place of a named cluster. Raises UserError for a bad name."""
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name!r} is not a cluster's name", hint="use up to 32 of a-z, 0-9 and inner hyphens, such as dev-1"
        )
    return Place(outputs / "clusters" / name)


def all_places(outputs: Path) -> list[Place]:
    """Every cluster that has a folder, by name."""
    folder = outputs / "clusters"
    if not folder.is_dir():
        return []
    return [Place(path) for path in sorted(folder.iterdir()) if path.is_dir() and _NAME.fullmatch(path.name)]


def running_places(outputs: Path, name: str, *, every: bool) -> list[Place]:
    """The named cluster, or `every` one that runs. Raises UserError where none does."""
    if not every:
        needs_running(one := place(outputs, name))
        return [one]
    found = [each for each in all_places(outputs) if each.running()]
    if not found:
        raise UserError("no cluster runs", hint="./do run-cluster starts one")
    return found


def needs_running(one: Place) -> State:
    """The state of a running cluster. Raises UserError with what to do."""
    if one.folder.exists():
        one.check_owner()
    state = one.running()
    if state is None:
        raise _not_running(one)
    return state


def _not_running(one: Place) -> UserError:
    last = one.read()
    how = f"failed: {last.reason}" if last is not None and last.phase == "failed" else "is not running"
    return UserError(f"cluster {one.name} {how}", hint=f"./do run-cluster --name {one.name}")

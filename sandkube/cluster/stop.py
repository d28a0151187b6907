"""Stopping clusters, dead ones too."""

from __future__ import annotations

import shutil
import signal

from sandkube.cluster import linux
from sandkube.cluster.place import Place
from sandkube.cluster.processes import end, end_or_kill, opened_with_words
from sandkube.errors import UserError

SUPERVISOR = "sandkube.cluster.supervisor"
_PATIENCE = 20.0  # seconds for a supervisor to clean up


def end_left(place: Place) -> None:
    """Kill what runs on of a cluster without a supervisor that is known. Raises UserError when it cannot be ended."""
    for words in ((SUPERVISOR, str(place.folder)), (f"--root={place.runsc}",)):
        for pid, process in opened_with_words(*words):
            try:
                if not end(process, signal.SIGKILL, _PATIENCE):
                    raise _stays(place, pid)
            except PermissionError:
                raise UserError(
                    f"cluster {place.name}: process {pid} belongs to another user", hint="end it as that user"
                ) from None
    if pid := linux.clear(place.folder, _PATIENCE):
        raise _stays(place, pid)


def end_supervisor(place: Place, pid: int, supervisor: int) -> None:
    """End the supervisor `pid` behind a pidfd; its children die with it. Raises UserError when it cannot be ended."""
    if not end_or_kill(supervisor, _PATIENCE):
        raise _stays(place, pid)


def _stays(place: Place, pid: int) -> UserError:
    return UserError(f"cluster {place.name}: process {pid} does not end", hint="is a disk stuck?")


def clear(place: Place) -> None:
    """End what is left of a cluster and remove its folder. The caller holds the lock.

    Left over, and found by their command lines: a supervisor whose state file was lost, and processes that were
    spared when their supervisor was killed. Raises UserError when the cluster runs or cannot be ended.
    """
    state = place.read()
    if state is not None and state.alive():
        raise UserError(f"cluster {place.name} is running", hint=f"./do stop-cluster --name {place.name}")
    end_left(place)
    try:
        shutil.rmtree(place.folder)
    except OSError as error:
        raise UserError(f"{place.folder}: {error.strerror}: {error.filename}", hint="remove it by hand") from None


def stop(place: Place) -> None:
    """Stop a cluster, also one that starts just now, and remove all of it. Raises UserError if there is none."""
    if not place.folder.exists():
        raise UserError(f"there is no cluster {place.name}", hint="./do status lists them")
    place.check_owner()
    if (state := place.read()) is not None:
        with state.opened() as supervisor:
            if supervisor is not None:
                end_supervisor(place, state.pid, supervisor)
    with place.lock():
        if place.folder.exists():
            clear(place)

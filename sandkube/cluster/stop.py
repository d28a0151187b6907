"""Stopping clusters, dead ones too."""

from __future__ import annotations

import shutil
import signal

from sandkube.cluster.place import Place
from sandkube.cluster.processes import end, with_words
from sandkube.errors import UserError

SUPERVISOR = "sandkube.cluster.supervisor"
_PATIENCE = 20.0  # seconds for a supervisor to clean up


def clear(place: Place) -> None:
    """End what is left of a cluster and remove its folder. The caller holds the lock.

    Left over, and found by their command lines: a supervisor whose state file was lost, and processes that were
    spared when their supervisor was killed. Raises UserError when the cluster runs or cannot be ended.
    """
    state = place.read()
    if state is not None and state.alive():
        raise UserError(f"cluster {place.name} is running", hint=f"./do stop-cluster --name {place.name}")
    for pid in (*with_words(SUPERVISOR, str(place.folder)), *with_words(f"--root={place.runsc}")):
        if not end(pid, signal.SIGKILL, _PATIENCE):
            raise UserError(f"cluster {place.name}: process {pid} does not end", hint="is a disk stuck?")
    try:
        shutil.rmtree(place.folder)
    except OSError as error:
        raise UserError(f"{place.folder}: {error.strerror}: {error.filename}", hint="remove it by hand") from None


def stop(place: Place) -> None:
    """Stop a cluster, also one that starts just now, and remove all of it. Raises UserError if there is none."""
    if not place.folder.exists():
        raise UserError(f"there is no cluster {place.name}", hint="./do status lists them")
    place.check_owner()
    state = place.read()
    if state is not None and state.alive() and not end(state.pid, signal.SIGTERM, _PATIENCE):
        end(state.pid, signal.SIGKILL, _PATIENCE)
    with place.lock():
        if place.folder.exists():
            clear(place)

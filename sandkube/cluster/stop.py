"""Stopping clusters, dead ones too."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from sandkube import log, tree
from sandkube.cluster import bound, kubeconfig, linux
from sandkube.cluster.place import DATA, PUBLISH, REGISTRY, SETTINGS, STATE, Place, State, boot_id
from sandkube.cluster.processes import end, opened_with_words
from sandkube.errors import UserError

SUPERVISOR = "sandkube.cluster.supervisor"
AT_ONCE = signal.SIGINT
"""What has a supervisor end its cluster at once; SIGTERM has it end in order where data stay."""
_PATIENCE = 20.0  # seconds for a supervisor to clean up
_SOON = 3.0  # seconds without a word


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
    if pid := linux.clear(place.folder, _PATIENCE) or bound.clear(place.folder, _PATIENCE):
        raise _stays(place, pid)


def end_supervisor(place: Place, pid: int, supervisor: int) -> None:
    """End the supervisor `pid` behind a pidfd; its children die with it. Raises UserError when it cannot be ended."""
    if not end(supervisor, AT_ONCE, _PATIENCE) and not end(supervisor, signal.SIGKILL, _PATIENCE):
        raise _stays(place, pid)


def end_in_order(place: Place, pid: int, supervisor: int) -> None:
    """Have the supervisor of a cluster whose data stay end it in order, however long its pods take for that.

    Raises UserError when it cannot be ended.
    """
    if end(supervisor, signal.SIGTERM, _SOON):
        return
    log.say(f"cluster {place.name} ends in order; ./do stop-cluster --name {place.name} --now pulls the plug")
    while not end(supervisor, signal.SIGTERM, _PATIENCE):
        if (state := place.read()) is None or state.pid != pid:
            raise _stays(place, pid)


def _stays(place: Place, pid: int) -> UserError:
    return UserError(f"cluster {place.name}: process {pid} does not end", hint="is a disk stuck?")


def clear(place: Place, *, data: bool = False) -> None:
    """End what is left of a cluster and remove its folder, but for data that stay, unless `data` says those too.

    The caller holds the lock. Left over, and found by their command lines: a supervisor whose state file was lost, and
    processes that were spared when their supervisor was killed. Raises UserError when it runs or cannot be ended.
    """
    state = place.read()
    if state is not None and state.alive():
        raise UserError(f"cluster {place.name} is running", hint=f"./do stop-cluster --name {place.name}")
    end_left(place)
    kubeconfig.unmerge(place)
    stays = () if data or not place.kept else (DATA, STATE, SETTINGS, PUBLISH, REGISTRY)
    for each in [path for path in place.folder.iterdir() if path.name not in stays] if stays else [place.folder]:
        _remove(each)
    if stays:
        known = state or State("stopped", 0, 0, boot_id(), "", time.time())
        place.write(known.moved(phase="stopped"))


def _remove(path: Path) -> None:
    """Remove a file or a folder; what is in it may have been made by pods, with any mode."""
    try:
        tree.remove_tree(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: {error.filename}", hint="remove it by hand") from None


def stop(place: Place, *, now: bool = False) -> None:
    """Stop a cluster, also one that starts just now, and remove all of it but data that stay.

    Where data stay, pods end by themselves, with their hooks and grace periods, unless `now`. Raises UserError if there
    is no such cluster.
    """
    _end(place, now=now)
    with place.lock():
        if place.folder.exists():
            clear(place)


def delete(place: Place) -> None:
    """Stop a cluster and remove all of it, data that stay too. Raises UserError if there is none."""
    _end(place, now=True)
    with place.lock():
        if place.folder.exists():
            clear(place, data=True)


def _end(place: Place, *, now: bool) -> None:
    if not place.folder.exists():
        raise UserError(f"there is no cluster {place.name}", hint="./do status lists them")
    place.check_owner()
    if (state := place.read()) is None:
        return
    with state.opened() as supervisor:
        if supervisor is not None and place.kept and not now:
            end_in_order(place, state.pid, supervisor)
        elif supervisor is not None:
            end_supervisor(place, state.pid, supervisor)

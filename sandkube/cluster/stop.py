"""Stopping clusters, dead ones too."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from sandkube.cluster.place import Place, State
from sandkube.errors import UserError

_PATIENCE = 20.0  # seconds for a supervisor to clean up


def _wait_end(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _end(pid: int, number: int, seconds: float) -> bool:
    """Signal a process and wait for its end; whether it ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        signal.pidfd_send_signal(descriptor, number)
        return _wait_end(descriptor, seconds)
    except ProcessLookupError:
        return True
    finally:
        os.close(descriptor)


def processes_of(state: State) -> Iterator[int]:
    """Processes of the sandbox that name its state folder on their command line."""
    word = f"--root={state.root}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if word in (entry / "cmdline").read_bytes().split(b"\0"):
                    yield int(entry.name)


def clear(place: Place) -> None:
    """End what is left of a cluster and remove its folder. Raises UserError when it runs or cannot be ended."""
    state = place.read()
    if state is not None:
        if state.alive():
            raise UserError(f"cluster {place.name} is running", hint=f"./do stop-cluster --name {place.name}")
        for pid in processes_of(state):
            if not _end(pid, signal.SIGKILL, _PATIENCE):
                raise UserError(
                    f"cluster {place.name}: process {pid} cannot be killed", hint="does it belong to another user?"
                )
        link = Path(state.root)
        if link.parent != place.folder and link.is_symlink():
            shutil.rmtree(link.parent, ignore_errors=True)
    shutil.rmtree(place.folder)


def stop(place: Place) -> None:
    """Stop a cluster, remove all of it. Raises UserError when there is none, or it belongs to somebody else."""
    if not place.folder.exists():
        raise UserError(f"there is no cluster {place.name}", hint="./do status lists them")
    state = place.read()
    if state is not None and state.alive():
        try:
            if not _end(state.pid, signal.SIGTERM, _PATIENCE):
                _end(state.pid, signal.SIGKILL, _PATIENCE)
        except PermissionError:
            raise UserError(f"cluster {place.name} belongs to another user", hint="stop it as that user") from None
    clear(place)

"""Starting a cluster."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sandkube.cluster import ports, pulling, stop
from sandkube.cluster.configured import configured_of
from sandkube.cluster.deadline import NEVER, Deadline
from sandkube.cluster.enter import NO_NAMESPACES
from sandkube.cluster.logs import LAST, components
from sandkube.cluster.place import Place, State, boot_id
from sandkube.cluster.ports import Publication
from sandkube.cluster.processes import memory_limit, opened
from sandkube.cluster.programs import Programs, kind_of
from sandkube.cluster.progress import Progress, last_lines
from sandkube.cluster.sandbox import KINDS, NO_SANDBOX
from sandkube.errors import UserError
from sandkube.files import relink
from sandkube.run import base_environment

MEMORY_NEEDED = 480 << 20  # bytes; a node with one pod takes about 400 MB, and 512 MB were tried
_OWN_LOG = "supervisor.log"
_OTHER_PORT = "choose another with --port, or leave it out for a free one"
_NAMESPACES = (
    "--sandbox confined needs none; to allow them, as root of the machine: sysctl -w user.max_user_namespaces=10000, "
    "and where they exist kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0"
)


class NodeFailed(UserError):
    """The node did not come up; the message has the component and its last log lines."""


def _check_memory() -> None:
    limit = memory_limit()
    if limit and limit < MEMORY_NEEDED:
        raise UserError(
            f"{limit >> 20} MB is all the memory that this container may use; a node needs {MEMORY_NEEDED >> 20} MB",
            hint=f"give it more: docker run --memory {MEMORY_NEEDED >> 20}m, memory.max of its control group",
        )
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    if found and int(found.group(1)) << 10 < MEMORY_NEEDED:
        raise UserError(
            f"{int(found.group(1)) >> 10} MB of memory are free; a node needs {MEMORY_NEEDED >> 20} MB to start",
            hint="stop other clusters (./do status, ./do stop-cluster) or programs",
        )


def _check_port(port: int) -> None:
    """Say at once what would come out after the boot; the forwarder has the last word."""
    if not 0 <= port <= 65535:
        raise UserError(f"{port} is not a port", hint="choose one from 1024 to 65535, or leave --port out")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Go's listener: TIME_WAIT is no obstacle
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(f"port {port} of 127.0.0.1: {error.strerror}", hint=_OTHER_PORT) from None


def _former_port(place: Place) -> int:
    """The port that a cluster had before it was stopped, if it can have it again: clients keep its address."""
    state = place.read() if place.kept else None
    try:
        if state is not None and state.port:
            _check_port(state.port)
            return state.port
    except UserError:
        pass
    return 0


def _prepare(place: Place, programs: Programs, publish: Sequence[Publication], *, keep: bool) -> None:
    """A folder for a new cluster; what an earlier one left is cleared away, but for data that stay."""
    ports.check(publish or (ports.wanted_of(place) if place.kept else ()))
    if place.folder.exists():
        place.check_owner()
        stop.clear(place)
    place.folder.mkdir(mode=0o700, exist_ok=True)
    if publish:
        ports.write_wanted(place, publish)
    if keep:
        place.data.mkdir(mode=0o700, exist_ok=True)
    place.runsc.mkdir(mode=0o700)
    programs.prepare(place)


def _spawn(place: Place, port: int) -> tuple[subprocess.Popen[bytes], int]:
    reader, writer = os.pipe()
    words = [str(each) for each in (place.folder, port, writer)]
    try:
        with (place.folder / _OWN_LOG).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", stop.SUPERVISOR, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[writer],
                start_new_session=True,
                cwd=Path(__file__).resolve().parents[2],
                env=base_environment(place.folder) | (pulling.inherited() if configured_of(place).pull.enabled else {}),
            )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    return process, reader


def _failure(place: Place, event: dict[str, Any]) -> NodeFailed:
    component = event["component"]
    text = _told(f"cluster {place.name}: {component} failed: {event['error']}", event.get("log") or [])
    if NO_NAMESPACES in text or "gofer: fork/exec" in text:  # ENOSPC of clone(2) is the limit of namespaces
        hint = _NAMESPACES
    elif os.strerror(errno.ENOSPC).lower() in text.lower():
        hint = f"free some space on the file system of {place.folder}"
    elif NO_SANDBOX in text and (kind := KINDS.get(kind_of(place))) and kind.confined:
        hint = "a system call that gVisor needs is refused, as by a seccomp profile; ./do doctor tells what was tried"
    elif NO_SANDBOX in text:
        hint = "inside of a sandbox no other can be started; there the node runs in place: ./do run-cluster --in-place"
    elif component == "access":
        hint = _OTHER_PORT
    elif component == "publish":
        hint = "choose another port with --publish, or end what has it"
    else:
        hint = _logs_hint(place, component)
    return NodeFailed(text, hint=hint)


def _told(sentence: str, lines: list[str]) -> str:
    return "\n".join([sentence, *(f"  | {line}" for line in lines)])


def _logs_hint(place: Place, component: str) -> str:
    which = f" {component}" if component in components(place.logs) else ""
    origin = configured_of(place).origin
    said = f"; its settings are those of {origin}" if origin else ""
    return f"./do logs --name {place.name}{which} shows more; ./do run-cluster --name {place.name} starts it anew{said}"


def _overdue(place: Place, deadline: Deadline, progress: Progress) -> NodeFailed:
    """A boot that took too long, and was ended: it is recorded as any other that failed."""
    component, debt = progress.debt()
    error = f"not up within {deadline.seconds:g} s: {debt}"
    state = place.read() or State("failed", 0, 0, boot_id(), "", time.time())
    with contextlib.suppress(OSError, UserError):
        place.kubeconfig.unlink(missing_ok=True)  # a supervisor that had to be killed left it
        place.write(state.moved(phase="failed", port=0, reason=error))
    lines = last_lines(place, component) or (_own_words(place) if not progress.reached else [])
    return NodeFailed(
        _told(f"cluster {place.name} is {error}", lines),
        hint=f"--timeout gives it longer; {_logs_hint(place, component)}",
    )


def _own_words(place: Place) -> list[str]:
    return (place.folder / _OWN_LOG).read_text(errors="replace").splitlines()[-LAST:]


def _silence(place: Place) -> dict[str, Any]:
    """The event of a supervisor that ended without one: it was killed, or it has a bug."""
    return {"type": "failed", "component": "supervisor", "error": "it ended without a word", "log": _own_words(place)}


def _events(reader: int, deadline: Deadline) -> Iterator[dict[str, Any]]:
    """What a supervisor tells, until it ends. Raises TimeoutError at the deadline."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    part = b""
    while (left := deadline.left()) != 0:
        if not poll.poll(left if left is None else left * 1000):
            continue
        data = os.read(reader, 1 << 16)
        if not data:
            return  # half a line may be left: who wrote it was killed
        *lines, part = (part + data).split(b"\n")
        yield from map(json.loads, lines)
    raise TimeoutError


def _end(place: Place, process: subprocess.Popen[bytes]) -> None:
    """End a supervisor of ours, and what runs on without it. Raises UserError when that cannot be done."""
    with opened(process.pid, lambda: process.poll() is None) as supervisor:
        if supervisor is not None:
            stop.end_supervisor(place, process.pid, supervisor)
    process.wait()
    stop.end_left(place)


def start(
    place: Place,
    programs: Programs,
    port: int = 0,
    deadline: Deadline = NEVER,
    *,
    keep: bool = False,
    publish: Sequence[Publication] = (),
) -> Iterator[dict[str, Any]]:
    """Start a cluster and yield its events until it is whole: node, API from here, Services, names.

    The caller holds the place's lock. `keep`: its data stay; those of an earlier start always do, and with them the
    ports that were published, if no others are. Leaving early
    (Ctrl-C) stops and removes the cluster, but for data of an earlier start; a deadline that is missed ends it, and its
    logs stay. Raises NodeFailed, UserError.
    """
    _check_memory()
    _check_port(port)
    port, first = port or _former_port(place), not place.kept
    _prepare(place, programs, publish, keep=keep)
    process, reader = _spawn(place, port)
    progress = Progress(left_out=programs.configured.disabled)
    try:
        for event in _events(reader, deadline):
            if event["type"] == "failed":
                raise _failure(place, event)
            if event["type"] == "stopped":
                raise UserError(f"cluster {place.name} was stopped while it started")
            yield event
            progress.note(event)
            if progress.whole:
                threading.Thread(target=process.wait, daemon=True).start()  # it outlives us, or is reaped
                return
        raise _failure(place, _silence(place))
    except TimeoutError:
        _end(place, process)
        raise _overdue(place, deadline, progress) from None
    except BaseException as error:
        _end(place, process)
        if not isinstance(error, UserError):
            stop.clear(place, data=first)
        raise
    finally:
        os.close(reader)


def kubectl_link(outputs: Path, program: Path) -> Path:
    """`outputs/bin/kubectl`, which is the given program."""
    relink(link := outputs / "bin/kubectl", program)
    return link

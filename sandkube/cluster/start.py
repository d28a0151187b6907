"""Starting a cluster."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from sandkube.cluster import stop
from sandkube.cluster.enter import NO_NAMESPACES
from sandkube.cluster.logs import LAST, components
from sandkube.cluster.place import Place
from sandkube.cluster.programs import Programs
from sandkube.cluster.sandbox import NO_SANDBOX
from sandkube.errors import UserError
from sandkube.run import base_environment

MEMORY_NEEDED = 600 << 20  # bytes; a node with one pod takes about half of it
_OWN_LOG = "supervisor.log"
_OTHER_PORT = "choose another with --port, or leave it out for a free one"
_NAMESPACES = (
    "allow user namespaces, as root: sysctl -w user.max_user_namespaces=10000, and where they exist "
    "kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0; or run as root"
)


class NodeFailed(UserError):
    """The node did not come up; the message has the component and its last log lines."""


def _check_memory() -> None:
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


def _prepare(place: Place, programs: Programs) -> None:
    """A folder for a new cluster; what an earlier one left is cleared away."""
    if place.folder.exists():
        place.check_owner()
        stop.clear(place)
    place.folder.mkdir(mode=0o700)
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
                env=base_environment(place.folder),
            )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    return process, reader


def _failure(place: Place, event: dict[str, Any]) -> NodeFailed:
    component = event["component"]
    lines = [f"  | {line}" for line in event.get("log") or []]
    text = "\n".join([f"cluster {place.name}: {component} failed: {event['error']}", *lines])
    if NO_NAMESPACES in text:
        hint = _NAMESPACES
    elif os.strerror(errno.ENOSPC).lower() in text.lower():
        hint = f"free some space on the file system of {place.folder}"
    elif NO_SANDBOX in text:
        hint = "inside of a sandbox no other can be started; there the node runs in place: ./do run-cluster --in-place"
    elif component == "access":
        hint = _OTHER_PORT
    else:
        known = component in components(place.logs)
        which = f" {component}" if known else ""
        hint = f"./do logs --name {place.name}{which} shows more; ./do run-cluster --name {place.name} starts it anew"
    return NodeFailed(text, hint=hint)


def _silence(place: Place) -> dict[str, Any]:
    """The event of a supervisor that ended without one: it was killed, or it has a bug."""
    said = (place.folder / _OWN_LOG).read_text(errors="replace").splitlines()[-LAST:]
    return {"type": "failed", "component": "supervisor", "error": "it ended without a word", "log": said}


def start(place: Place, programs: Programs, port: int = 0) -> Iterator[dict[str, Any]]:
    """Start a cluster and yield its events until it is whole: node, API from here, Services, names.

    The caller holds the place's lock. Leaving early (Ctrl-C) stops and removes the cluster.
    Raises NodeFailed, UserError.
    """
    _check_memory()
    _check_port(port)
    _prepare(place, programs)
    process, reader = _spawn(place, port)
    missing = {"access", "ready", "accounts", "services", "dns"}
    try:
        with open(reader, "rb") as events:  # noqa: PTH123
            for line in events:
                event = json.loads(line)
                if event["type"] == "failed":
                    raise _failure(place, event)
                if event["type"] == "stopped":
                    raise UserError(f"cluster {place.name} was stopped while it started")
                yield event
                missing.discard(event.get("stage", event["type"]))
                if not missing:
                    threading.Thread(target=process.wait, daemon=True).start()  # it outlives us, or is reaped
                    return
        process.wait()
        raise _failure(place, _silence(place))
    except BaseException as error:
        process.terminate()
        process.wait()
        if not isinstance(error, UserError):
            stop.clear(place)
        raise


def kubectl_link(outputs: Path, kubectl: Path) -> None:
    """`outputs/bin/kubectl`."""
    link = outputs / "bin/kubectl"
    target = os.path.relpath(outputs / "result/kubectl/bin/kubectl", link.parent)
    with suppress(OSError):
        if str(link.readlink()) == target:
            return
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = link.with_name(f".kubectl.{os.getpid()}")
    temporary.symlink_to(target)
    temporary.replace(link)

"""Starting a cluster."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandkube.cluster import stop
from sandkube.cluster.place import Place, State
from sandkube.errors import UserError
from sandkube.run import base_environment

MEMORY_NEEDED = 600 << 20  # bytes; a node with one pod takes about half of it
_SOCKET_PATH = 107  # sun_path of unix(7) without its final zero
_SOCKET_NAME = len("/runsc-sandkube-12345678.sock")


@dataclass(frozen=True, slots=True)
class Programs:
    """What a cluster is started from."""

    runsc: Path
    bundle: Path
    kubectl: Path


class NodeFailed(UserError):
    """The node did not come up; the message has the component and its last log lines."""


def _check_machine() -> None:
    text = Path("/proc/meminfo").read_text()
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    if found and int(found.group(1)) << 10 < MEMORY_NEEDED:
        raise UserError(
            f"{int(found.group(1)) >> 10} MB of memory are free; a node needs {MEMORY_NEEDED >> 20} MB to start",
            hint="stop other clusters (./do status, ./do stop-cluster) or programs",
        )
    if os.geteuid() != 0:
        limit = Path("/proc/sys/user/max_user_namespaces")
        if limit.exists() and int(limit.read_text()) == 0:
            raise UserError(
                "an ordinary user needs user namespaces, and this machine allows none",
                hint="as root: sysctl -w user.max_user_namespaces=10000, or run as root",
            )


def _runsc_root(place: Place) -> Path:
    """runsc's state folder. A socket's path is short, so a deep checkout is reached through a link."""
    inside = place.folder / "runsc"
    inside.mkdir()
    if len(os.fsencode(inside)) + _SOCKET_NAME <= _SOCKET_PATH:
        return inside
    link = Path(tempfile.mkdtemp(prefix="sandkube-")) / "r"
    link.symlink_to(inside)
    return link


def _prepare(place: Place) -> Path:
    """An empty folder for a new cluster; what an earlier one left is cleared away."""
    if place.folder.exists():
        stop.clear(place)
    place.folder.mkdir(parents=True, mode=0o700)
    return _runsc_root(place)


def _spawn(place: Place, programs: Programs, port: int) -> tuple[subprocess.Popen[bytes], int]:
    root = _prepare(place)
    reader, writer = os.pipe()
    words = [str(each) for each in (place.folder, programs.runsc, programs.bundle, root, port, writer)]
    with (place.folder / "supervisor.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "sandkube.cluster.supervisor", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[writer],
            start_new_session=True,
            cwd=Path(__file__).resolve().parents[2],
            env=base_environment(place.folder),
        )
    os.close(writer)
    return process, reader


def _failure(place: Place, event: dict[str, Any]) -> NodeFailed:
    lines = [f"  | {line}" for line in event.get("log") or []]
    text = f"cluster {place.name}: {event['component']} failed: {event['error']}"
    said = "\n".join(lines)
    if "user namespace" in said or "operation not permitted" in said.lower():
        hint = "does this machine allow user namespaces? sysctl user.max_user_namespaces; or run as root"
    elif event["component"] == "access":
        hint = "choose another with --port, or leave it out for a free one"
    else:
        hint = f"./do logs --name {place.name} {event['component']} shows more; ./do run-cluster starts it anew"
    return NodeFailed("\n".join([text, *lines]), hint=hint)


def start(place: Place, programs: Programs, port: int = 0) -> Iterator[dict[str, Any]]:
    """Start a cluster and yield its events until the node is ready and used accounts exist.

    The caller holds the place's lock. Leaving early (Ctrl-C) stops the cluster again. Raises NodeFailed, UserError.
    """
    _check_machine()
    process, reader = _spawn(place, programs, port)
    missing = {"ready", "accounts"}
    try:
        with open(reader, "rb") as events:  # noqa: PTH123
            for line in events:
                event = json.loads(line)
                if event["type"] == "failed":
                    process.wait()
                    raise _failure(place, event)
                yield event
                missing.discard(event.get("stage", ""))
                if not missing:
                    return
        process.wait()
        said = (place.folder / "supervisor.log").read_text(errors="replace").splitlines()[-20:]
        raise _failure(place, {"component": "supervisor", "error": "ended without a word", "log": said})
    except BaseException:
        with suppress(ProcessLookupError):
            process.terminate()
        process.wait()
        raise


def describe(state: State) -> str:
    """How a cluster is, in one word."""
    if state.phase in ("starting", "running") and not state.alive():
        return "killed"
    return state.phase


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

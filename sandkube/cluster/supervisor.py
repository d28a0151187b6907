"""The supervisor: owns one sandbox and everything the host does for it, until it is told to stop.

    python -m sandkube.cluster.supervisor FOLDER RUNSC BUNDLE ROOT PORT EVENTS_FD

It passes on the node's stages as JSON lines on the pipe EVENTS_FD, splits the node's log by component, forwards the
port of the API, and records its state. SIGTERM ends it; its children die with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import sys
import time
import uuid
from pathlib import Path
from typing import IO, Any

from sandkube.cluster.place import Place, State, birth, boot_id
from sandkube.cluster.sandbox import Sandbox
from sandkube.run import base_environment, dying_with_parent

_API_PORT = 6443
_LOG_LIMIT = 16 << 20
_LINE_LIMIT = 1 << 20
_PR_SET_CHILD_SUBREAPER = 36
_PORT_LINE = re.compile(rb"Forwarding local port (\d+) to")
_TAIL = 20


class Logs:
    """One file a component, cut in halves when it grows."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, IO[bytes]] = {}
        self._last: list[str] = []
        folder.mkdir(exist_ok=True)

    def write(self, line: bytes) -> None:
        """Write one line of the node's standard error, `component<TAB>text`; others are runsc's."""
        component, tab, text = line.partition(b"\t")
        name = component.decode(errors="replace")
        if not tab or not re.fullmatch(r"[a-z][a-z-]*", name):
            name, text = "sandbox", line
        if name not in self._files:
            self._files[name] = (self._folder / f"{name}.log").open("ab", buffering=0)
        file = self._files[name]
        file.write(text.rstrip(b"\n") + b"\n")
        if name in ("sandbox", "node"):
            self._last = [*self._last, text.decode(errors="replace").rstrip()][-_TAIL:]
        if file.tell() > _LOG_LIMIT // 2:
            file.close()
            (self._folder / f"{name}.log").replace(self._folder / f"{name}.log.1")
            del self._files[name]

    def last(self) -> list[str]:
        """The last lines that belong to no component: runsc's, and a crash of the node program."""
        return self._last


class Supervisor:
    """One cluster's life."""

    def __init__(self, place: Place, runsc: Path, bundle: Path, root: Path, port: int, events: int) -> None:
        self._place = place
        self._bundle = bundle
        self._port = port
        self._events: int | None = events
        self._kubeconfig = ""
        self._failed: dict[str, Any] | None = None
        self._stopping = False
        self._forward: asyncio.subprocess.Process | None = None
        self._main: asyncio.subprocess.Process | None = None
        container = f"sandkube-{uuid.uuid4().hex[:8]}"
        self._sandbox = Sandbox(runsc, root, container, os.geteuid() != 0)
        self._logs = Logs(place.logs)
        self._state = State("starting", os.getpid(), birth(os.getpid()), boot_id(), container, time.time(), str(root))
        self._tasks: set[asyncio.Task[None]] = set()

    def _tell(self, event: dict[str, Any]) -> None:
        """Pass an event on to whoever waits; nobody may."""
        if self._events is not None:
            try:
                os.write(self._events, json.dumps(event).encode() + b"\n")
            except OSError:
                self._quiet()

    def _quiet(self) -> None:
        if self._events is not None:
            os.close(self._events)
            self._events = None

    def _record(self, **changes: str | int) -> None:
        self._state = self._state.moved(**changes)
        self._place.write(self._state)

    async def _start(self, argv: list[str]) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *dying_with_parent(argv),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=base_environment(self._place.folder),
            cwd="/",
            limit=_LINE_LIMIT,
            process_group=0,
        )

    async def _read_log(self, stream: asyncio.StreamReader) -> None:
        while line := await _line(stream):
            self._logs.write(line)

    async def _read_stages(self, stream: asyncio.StreamReader) -> None:
        while line := await _line(stream):
            try:
                event = json.loads(line)
            except ValueError:
                self._logs.write(line)
                continue
            await self._on_event(event)

    async def _on_event(self, event: dict[str, Any]) -> None:
        match event.get("type"):
            case "credentials":
                self._kubeconfig = event["kubeconfig"]
                return
            case "failed":
                self._failed = event
            case "stage" if event["stage"] == "apiserver":
                await self._open_access()
            case "stage" if event["stage"] == "ready":
                self._record(phase="running")
        self._tell(event)

    async def _open_access(self) -> None:
        """Forward a port, then write the kubeconfig that uses it."""
        self._forward = await self._start(self._sandbox.port_forward(self._port, _API_PORT))
        assert self._forward.stdout is not None
        assert self._forward.stderr is not None
        self._keep(self._read_log(self._forward.stderr))
        first = await _line(self._forward.stdout)
        found = _PORT_LINE.match(first)
        if found is None:
            where = f"port {self._port}" if self._port else "a free port"
            self._failed = {"type": "failed", "component": "access", "error": f"cannot listen on {where}", "log": []}
            await self._end_main()
            return
        self._keep(self._read_log(self._forward.stdout))
        port = int(found.group(1))
        text = self._kubeconfig.replace(f"https://127.0.0.1:{_API_PORT}", f"https://127.0.0.1:{port}")
        temporary = self._place.folder / ".kubeconfig"
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:  # noqa: PTH123
            file.write(text)
        temporary.replace(self._place.kubeconfig)
        self._record(port=port)
        self._tell({"type": "access", "port": port})

    def _keep(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end_main(self) -> None:
        if self._main is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._main.pid, signal.SIGKILL)

    def _on_signal(self) -> None:
        self._stopping = True
        if self._main is not None:
            # runsc run dies, and with it the sandbox and its gofer: attached ones ask for that (PR_SET_PDEATHSIG).
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._main.pid, signal.SIGKILL)

    async def live(self) -> int:
        """Boot, serve, and clean up; the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal)
        self._place.write(self._state)
        self._main = await self._start(self._sandbox.run(self._bundle))
        assert self._main.stdout is not None
        assert self._main.stderr is not None
        await asyncio.gather(self._read_stages(self._main.stdout), self._read_log(self._main.stderr))
        status = await self._main.wait()
        await self._clean()
        return self._farewell(status)

    async def _clean(self) -> None:
        if self._forward is not None and self._forward.returncode is None:
            self._forward.kill()
            await self._forward.wait()
        done = await self._start(self._sandbox.delete())
        await done.communicate()
        _reap()
        shutil.rmtree(self._sandbox.root, ignore_errors=True)
        self._place.kubeconfig.unlink(missing_ok=True)

    def _farewell(self, status: int) -> int:
        if self._stopping:
            self._record(phase="stopped", port=0)
            self._tell({"type": "stopped"})
            return 0
        event = self._failed or {
            "type": "failed",
            "component": "sandbox",
            "error": f"the sandbox ended ({_how(status)})",
            "log": self._logs.last(),
        }
        self._record(phase="failed", port=0, reason=f"{event['component']}: {event['error']}")
        self._tell(event)
        return 1


def _how(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"


async def _line(stream: asyncio.StreamReader) -> bytes:
    """The next line, a part of one that is too long, or b"" at the end."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.readexactly(error.consumed)


def _reap() -> None:
    """Wait for processes of the sandbox that became ours when runsc died."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def main(arguments: list[str]) -> int:
    """Run one supervisor."""
    folder, runsc, bundle, root, port, events = arguments
    os.umask(0o077)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    one = Supervisor(Place(Path(folder)), Path(runsc), Path(bundle), Path(root), int(port), int(events))
    return asyncio.run(one.live())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

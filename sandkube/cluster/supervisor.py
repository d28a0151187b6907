"""The supervisor: owns one sandbox and everything the host does for it, until it is told to stop.

    python -m sandkube.cluster.supervisor FOLDER PORT EVENTS_FD

It passes on the node's stages as JSON lines on the pipe EVENTS_FD, splits the node's log by component, forwards the
port of the API, and records its state. SIGTERM ends it, in order where data stay; SIGINT ends it at once, and so does
the removal of its state file. Its children die with it, however it ends: runsc by PR_SET_PDEATHSIG, sandbox and gofer
because an attached runsc asks for the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import re
import signal
import sys
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from sandkube.cluster import development, egress, kubeconfig, linux, programs, pulling
from sandkube.cluster.bound import Bounded
from sandkube.cluster.configured import configured_of
from sandkube.cluster.in_place import InPlace
from sandkube.cluster.linux import Linux
from sandkube.cluster.logs import Logs
from sandkube.cluster.paired import Impossible, Pair
from sandkube.cluster.place import STATE, Place, State, birth, boot_id
from sandkube.cluster.ports import Ports
from sandkube.cluster.processes import end_descendants, kill_descendants, opened_descendant, signal_descendant
from sandkube.cluster.relay import COMMAND
from sandkube.cluster.sandbox import Sandbox
from sandkube.cluster.told import Failed, how_it_ended, next_line, object_of, sentence
from sandkube.cluster.watch import DELETE, Watch
from sandkube.errors import UserError
from sandkube.run import base_environment

_LINE_LIMIT = 1 << 20
_PR_SET_CHILD_SUBREAPER = 36
_PORT_LINE = re.compile(rb"Forwarding local port (\d+) to")
_GRACE_IN_PLACE = 10.0  # seconds for a node that is not in gVisor to clean up
_GRACE = 2.0  # seconds for a node that has reported its failure to end by itself


class Supervisor:
    """One cluster's life."""

    def __init__(self, place: Place, port: int, events: int) -> None:
        self._place = place
        self._port = port
        self._events: int | None = events
        self._kubeconfig = ""
        self._failed: dict[str, Any] | None = None
        self._stopping = False
        self._asked = False
        self._unrecorded = False
        self._end = asyncio.Event()
        self._main: asyncio.subprocess.Process | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        container = f"sandkube-{uuid.uuid4().hex[:8]}"
        self._sandbox = programs.sandbox(place, container)
        self._configured = configured_of(place)
        self._api_port = self._configured.api_port
        native = isinstance(self._sandbox, Linux)
        self._bounded = Bounded(place.folder, container, self._configured.bound, native=native)
        self._logs = Logs(place.logs)
        self._ports = Ports(place, self._relay)
        self._state = State("starting", os.getpid(), birth(os.getpid()), boot_id(), container, time.time())

    def _tell(self, event: dict[str, Any]) -> None:
        """Pass an event on to whoever waits; nobody may."""
        if self._events is not None:
            try:
                os.write(self._events, json.dumps(event).encode() + b"\n")
            except OSError:
                os.close(self._events)
                self._events = None

    def _record(self, **changes: str | int) -> None:
        """Record the state; where there is no room for it, later: it is no cluster's end."""
        self._state = self._state.moved(**changes)
        try:
            self._place.write(self._state)
        except UserError as error:
            self._logs.write(f"supervisor\t{error.message}\n".encode())
            if not self._unrecorded:
                self._unrecorded = True
                self._keep(self._record_later())

    async def _record_later(self) -> None:
        while self._unrecorded and not await self._ends():
            with contextlib.suppress(UserError):
                self._place.write(self._state)
                self._unrecorded = False

    async def _start(self, argv: list[str], *given: int, told: bool = False) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE if told else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=base_environment(self._place.folder),
            cwd="/",
            limit=_LINE_LIMIT,
            process_group=0,
            pass_fds=given,
        )

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Let work go on beside; what it cannot cope with ends the cluster."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Note the first failure and end the sandbox."""
        if self._failed is None and not self._stopping:
            failed = error if isinstance(error, Failed) else Failed("supervisor", sentence(error))
            self._failed = failed.event | {"log": self._logs.last()}
        self._end_sandbox()

    def _end_sandbox(self) -> None:
        if self._main is None or self._main.returncode is not None:
            return
        if not isinstance(self._sandbox, Sandbox) and not self._asked:
            self._asked = True
            signal_descendant(self._main.pid, signal.SIGTERM)  # it takes its addresses and processes away by itself
            asyncio.get_running_loop().call_later(_GRACE_IN_PLACE, self._end_sandbox)
        else:
            signal_descendant(self._main.pid, signal.SIGKILL)  # the rest follows when it has ended

    async def _read_log(self, stream: asyncio.StreamReader) -> None:
        while line := await next_line(stream):
            self._logs.write(line)

    async def _read_stages(self, stream: asyncio.StreamReader) -> None:
        while line := await next_line(stream):
            event = object_of(line)
            if event is None:
                self._logs.write(line)
            else:
                self._on_event(event)

    def _on_event(self, event: dict[str, Any]) -> None:
        match event:
            case {"type": "credentials", "kubeconfig": str(text)}:
                self._kubeconfig = text
                return
            case {"type": "failed"}:
                self._failed = self._failed or event
                asyncio.get_running_loop().call_later(_GRACE, self._end_sandbox)
                return
            case {"type": "stage", "stage": "apiserver"}:
                if isinstance(self._sandbox, Sandbox):
                    self._keep(self._forward(self._sandbox))
                else:
                    self._open_access(self._api_port if isinstance(self._sandbox, InPlace) else self._port)
            case {"type": "stage", "stage": "network"}:
                self._lead_out()
            case {"type": "stage", "stage": "ready"}:
                self._record(phase="running")
        self._tell(event)

    async def _forward(self, sandbox: Sandbox) -> None:
        """Forward the API's port for as long as the sandbox lives. A forwarder that dies is started again, with another
        port where somebody has taken its own meanwhile and keeps it.
        """
        refused = 0
        while not self._end.is_set():
            argv = sandbox.port_forward(self._port, self._api_port, os.getpid())
            forwarder = await self._start(argv)
            if self._end.is_set():  # meanwhile
                kill_descendants()
            assert forwarder.stdout is not None
            assert forwarder.stderr is not None
            self._keep(self._read_log(forwarder.stderr))
            found = _PORT_LINE.match(await next_line(forwarder.stdout))
            if found is None:
                await forwarder.wait()
                if await self._ends():
                    return
                refused += 1
                if self._place.kubeconfig.exists():
                    self._port = 0 if refused > 1 else self._port
                    continue
                where = f"port {self._port} of 127.0.0.1" if self._port else "a port of 127.0.0.1"
                raise Failed("access", f"cannot listen on {where}")
            refused = 0
            if self._port != int(found.group(1)) or not self._place.kubeconfig.exists():
                self._open_access(int(found.group(1)))
            while line := await next_line(forwarder.stdout):  # two for each connection
                if line.startswith(b"Container ") and b" stopped." in line:
                    return
            await forwarder.wait()

    def _lead_out(self) -> None:
        """Lead containerd to registries, and pods to what is outside, where either is wanted."""
        if self._configured.pull.enabled or self._configured.registry.enabled:
            self._keep(self._pair(pulling.PULL))
        if self._configured.egress.enabled:
            self._keep(self._pair(egress.EGRESS, lambda: self._tell({"type": "egress"})))

    async def _pair(self, pair: Pair, ready: Callable[[], None] = lambda: None) -> None:
        """Have a pair of processes work for as long as the sandbox lives."""
        while not self._end.is_set():
            try:
                await pair.run(self._place.folder, self._sandbox.execute, self._logs.write, ready)
            except Impossible as error:
                raise Failed(pair.component.decode(), str(error)) from None
            await self._ends()

    def _relay(self) -> list[str]:
        """The command line of a process in the node that ports lead to. Raises OSError where there is no node now."""
        if self._state.phase != "running" or self._end.is_set():
            raise ConnectionRefusedError("the node is not up")
        return self._sandbox.execute(COMMAND)

    async def _ends(self) -> bool:
        """Whether the sandbox has ended or is about to: then a forwarder's failure is only a consequence."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._end.wait(), _GRACE)
        return self._end.is_set()

    def _open_access(self, port: int) -> None:
        self._port = port
        text = self._kubeconfig.replace(f"https://127.0.0.1:{self._api_port}", f"https://127.0.0.1:{port}")
        self._place.write_file(self._place.kubeconfig.name, kubeconfig.named(text, self._place.name))
        self._record(port=port)
        self._tell({"type": "access", "port": port})

    def _stop(self) -> None:
        self._stopping = True
        self._end_sandbox()

    def _stop_in_order(self) -> None:
        """Have a node end in order that has something to lose, and let it take its time."""
        if not self._place.kept or self._state.phase != "running":
            self._stop()
        elif not self._stopping:
            self._stopping = True
            self._keep(self._ask_to_end())

    async def _ask_to_end(self) -> None:
        assert self._main is not None
        if not isinstance(self._sandbox, Sandbox):
            signal_descendant(self._main.pid, signal.SIGPWR)
            return
        asked = await self._start(self._sandbox.end(os.getpid()))
        said, complaint = await asked.communicate()
        if asked.returncode != 0 and not self._end.is_set():
            self._logs.write(said + complaint)
            self._end_sandbox()

    def _on_end(self) -> None:
        """The sandbox's main process has ended; what is left of it would hold the pipes open."""
        self._end.set()
        kill_descendants()

    def _on_change(self, watch: Watch) -> None:
        if (DELETE, STATE) in watch.drain():
            self._stop()

    async def live(self) -> int:
        """Boot and serve until the sandbox has ended; the exit status of runsc."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop_in_order)
        for number in (signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop)
        status = 0
        try:
            self._place.write(self._state)
            with Watch(self._place.folder, DELETE) as watch:
                loop.add_reader(watch.descriptor, self._on_change, watch)
                await self._publish()
                status = await self._boot()
                loop.remove_reader(watch.descriptor)
        except (Failed, OSError, UserError) as error:
            self._fail(error)
        kill_descendants()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return status

    async def _publish(self) -> None:
        try:
            await self._ports.open(self._configured)
            if (registry := self._configured.registry).enabled:
                made = development.Registry(
                    programs.registry(self._place), self._place, registry.port, self._logs.write
                )
                self._keep(made.keep(await made.start(), self._ends))
        except (OSError, UserError) as error:
            raise Failed("publish", sentence(error)) from None

    async def _boot(self) -> int:
        self._bounded.enter()
        text = b"" if isinstance(self._sandbox, InPlace) else self._configured.text  # in place, a file has it
        if isinstance(self._sandbox, Linux):
            self._main = await self._start_linux(self._sandbox, told=text != b"")
        else:
            argv = self._sandbox.run(programs.bundle(self._place), os.getpid())
            self._main = await self._start(argv, told=text != b"")
        if self._main.stdin is not None:
            self._keep(_hand_over(text, self._main.stdin))
        assert self._main.stdout is not None
        assert self._main.stderr is not None
        if self._stopping:
            self._end_sandbox()
        with _at_end(self._main.pid, self._on_end):
            await asyncio.gather(self._read_stages(self._main.stdout), self._read_log(self._main.stderr))
            return await self._main.wait()

    async def _start_linux(self, sandbox: Linux, *, told: bool) -> asyncio.subprocess.Process:
        """Start a node that is given a socket which listens for the API here."""
        try:
            given = sandbox.prepare(self._port)
        except OSError as error:
            raise Failed("access", f"cannot listen on port {self._port} of 127.0.0.1: {error.strerror}") from None
        with contextlib.closing(given):
            self._port = given.api.getsockname()[1]
            return await self._start(sandbox.boot(given, os.getpid()), given.api.fileno(), given.note, told=told)

    def farewell(self, status: int) -> int:
        """Say how it ended, once nothing is left of the sandbox; the supervisor's exit status."""
        self._logs.close()
        linux.clear(self._place.folder, _GRACE)
        exceeded = self._bounded.exceeded()
        self._bounded.leave()
        event: dict[str, Any] = self._failed or {
            "type": "failed",
            "component": "sandbox",
            "error": exceeded or f"the sandbox ended ({how_it_ended(status)})",
            "log": [*self._logs.last(), *self._logs.complaint()],
        }
        with contextlib.suppress(OSError, UserError):
            self._place.kubeconfig.unlink(missing_ok=True)
            if not self._stopping:
                reason = f"{event['component']}: {event['error']}"
                self._place.write(self._state.moved(phase="failed", port=0, reason=reason))
            elif (self._place.folder / STATE).exists():
                self._place.write(self._state.moved(phase="stopped", port=self._port if self._place.kept else 0))
        self._tell({"type": "stopped"} if self._stopping else event)
        return 0 if self._stopping else 1


async def _hand_over(text: bytes, stream: asyncio.StreamWriter) -> None:
    """Give the node its settings; one that ends before it has read them says why by itself."""
    stream.write(text)
    with contextlib.suppress(ConnectionError):
        await stream.drain()
        stream.close()


@contextlib.contextmanager
def _at_end(pid: int, work: Callable[[], None]) -> Iterator[None]:
    """While inside, do some work when a child ends. asyncio's own wait() waits for the end of its pipes too."""
    loop = asyncio.get_running_loop()
    with opened_descendant(pid) as process:
        if process is None:  # it has ended already
            work()
            yield
            return

        def ended() -> None:
            loop.remove_reader(process)
            work()

        loop.add_reader(process, ended)
        try:
            yield
        finally:
            loop.remove_reader(process)


def main(arguments: list[str]) -> int:
    """Run one supervisor."""
    folder, port, events = arguments
    os.umask(0o077)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    one = Supervisor(Place(Path(folder)), int(port), int(events))
    status = asyncio.run(one.live())
    end_descendants()
    return one.farewell(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The way out of a cluster's pods: connections are made here for them, to where they may go, and names outside are
asked for here.

    python -m sandkube.cluster.egress FOLDER

The socket of packets on standard input leads to a program in the node (native/egress): each packet from there asks for
something, by JSON, and is answered by one, which for a connection brings one end of a pair of streams along. Nothing
that the node says is believed: where an address may lead is judged by what this machine's servers of names told here.
It ends when that socket is closed.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ctypes
import errno
import json
import os
import resource
import signal
import socket
import sys
import time
from collections import Counter, OrderedDict
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from sandkube.cluster.configured import Configured, configured_of
from sandkube.cluster.destinations import DEVICE, HOST, NAMES, Allowed
from sandkube.cluster.outside import Resolver
from sandkube.cluster.paired import Pair
from sandkube.cluster.place import Place
from sandkube.cluster.ranges import side_by_side
from sandkube.cluster.streams import abort, pass_on
from sandkube.errors import one_line

EGRESS = Pair(b"egress", "sandkube.cluster.egress", ("/usr/bin/sandkube-egress", DEVICE, NAMES))
"""The two processes of it."""
_PR_SET_PDEATHSIG = 1
_LONGEST = 128 << 10  # bytes of a packet, as native/egress has it
_MOST = 2048  # connections
_SHARE = 2  # a pod has no more than one part of them in so many
_QUERIES = 256  # at once
_CONNECT = 60.0  # seconds for an address to answer
_GRACE = 5.0  # seconds for the node to hear of a reset
_BLOCK = 1 << 16
_AGAIN = 60.0  # seconds after which a sentence is said again
_UNSAID = 4096  # packets
_SENTENCES = 1024  # that are remembered
_ASK_AGAIN = 10.0  # seconds after which the names of the list are asked for again


class Log:
    """Lines of the component's log; what a pod does again and again is said once a minute."""

    def __init__(self) -> None:
        self._said: OrderedDict[str, float] = OrderedDict()

    def say(self, text: str) -> None:
        """A line, if it was not said a moment ago."""
        now = time.monotonic()
        if now - self._said.get(text, -_AGAIN) < _AGAIN:
            return
        self._said[text] = now
        self._said.move_to_end(text)
        while len(self._said) > _SENTENCES:
            self._said.popitem(last=False)
        sys.stderr.write(f"{one_line(text)}\n")
        sys.stderr.flush()


@dataclass(slots=True)
class Connection:
    """One that stands: its half out there, and a stream into the node."""

    outside: socket.socket
    node: socket.socket
    task: asyncio.Task[None] | None = None
    reset: bool = False


class Egress:
    """All of one cluster's. `control` leads to the node."""

    def __init__(self, control: socket.socket, allowed: Allowed, resolver: Resolver, log: Log) -> None:
        control.setblocking(False)
        self._control = control
        self._allowed = allowed
        self._resolver = resolver
        self._log = log
        self._to_say: asyncio.Queue[tuple[bytes, socket.socket | None]] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: dict[int, Connection] = {}
        self._clients: Counter[str] = Counter()
        self._queries = 0
        self._asked = -_ASK_AGAIN
        self._most = min(_MOST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)

    async def serve(self) -> None:
        """Answer the node until its end is closed."""
        loop = asyncio.get_running_loop()
        self._keep(self._speak())
        with contextlib.suppress(ConnectionError):
            while data := await loop.sock_recv(self._control, _LONGEST):
                self._take(json.loads(data))
                if self._to_say.qsize() >= _UNSAID:  # a node that does not listen is not listened to
                    await self._to_say.join()
        for task in self._tasks:
            task.cancel()

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take(self, said: Mapping[str, Any]) -> None:
        match said:
            case {"ready": True}:
                sys.stdout.write("ready\n")
                sys.stdout.flush()
            case {"id": int(number), "connect": str(to), "from": str(client)}:
                self._keep(self._connect(number, to, client.rpartition(":")[0]))
            case {"id": int(number), "query": str(text)}:
                self._keep(self._resolve(number, base64.b64decode(text), stream=said.get("stream") is True))
            case {"id": int(number), "reset": True}:
                self._reset(number)

    def _reset(self, number: int) -> None:
        """The node's half was reset. It hears of the other half's end, or that there is none."""
        connection = self._open.get(number)
        if connection is None:
            self._say(number, reset=True)
        elif not connection.reset and connection.task is not None:
            connection.reset = True
            connection.task.cancel()

    def _say(self, number: int, stream: socket.socket | None = None, **what: Any) -> None:
        self._to_say.put_nowait((json.dumps({"id": number, **what}).encode(), stream))

    async def _speak(self) -> None:
        """Send what is to be said, one packet after the other; a stream that goes along is the node's from then on."""
        while True:
            data, stream = await self._to_say.get()
            with stream or contextlib.nullcontext():
                await self._send(data, [stream.fileno()] if stream else [])
            self._to_say.task_done()

    async def _send(self, data: bytes, descriptors: list[int]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                socket.send_fds(self._control, [data], descriptors)
            except BlockingIOError:
                free = loop.create_future()
                loop.add_writer(self._control, free.set_result, None)
                try:
                    await free
                finally:
                    loop.remove_writer(self._control)
            else:
                return

    async def _resolve(self, number: int, query: bytes, *, stream: bool) -> None:
        answer = b""
        self._queries += 1
        try:
            if self._queries <= _QUERIES:
                with contextlib.suppress(ValueError):
                    answer = await self._resolver.answer(query, stream=stream)
        finally:
            self._queries -= 1
        self._say(number, answer=base64.b64encode(answer).decode())

    async def _connect(self, number: int, to: str, client: str) -> None:
        """Make a connection, and hold it until it has ended; or say that there is none."""
        self._clients[client] += 1
        try:
            outside = await self._made(to, client)
            if outside is None:
                return self._say(number, refused=True)
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            self._open[number] = connection = Connection(outside, ours, asyncio.current_task())
            with outside, ours:
                self._say(number, theirs, joined=True)
                await self._join(number, connection)
        except TimeoutError:
            self._log.say(f"{_whose(client)} -> {to}: nothing answers")
            self._say(number)
        finally:
            self._open.pop(number, None)
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]
        return None

    async def _made(self, to: str, client: str) -> socket.socket | None:
        """A connection; None where there is none to be had, whose reason is logged. Raises TimeoutError."""
        host, _, port = to.rpartition(":")
        address = IPv4Address(host)
        names = self._resolver.learned.of(address)
        line = f"{_whose(client)} -> {' '.join([to, *sorted(names)[:1]])}"
        if sum(self._clients.values()) > self._most or self._clients[client] > self._most // _SHARE:
            self._log.say(f"{line}: refused: too many connections at once")
            return None
        reason = await self._refusal(address, int(port))
        if reason:
            self._log.say(f"{line}: refused: {reason}")
            return None
        try:
            made = await _connected(address, int(port))
        except TimeoutError:
            raise
        except OSError as error:
            if error.errno == errno.ETIMEDOUT:
                raise TimeoutError from None
            self._log.say(f"{line}: {os.strerror(error.errno or 0)}")
            return None
        self._log.say(f"{line}: connected")
        return made

    async def _refusal(self, address: IPv4Address, port: int) -> str:
        """Why an address is not reached, when the names of the list have been asked for again: who has it from an
        answer of long ago may still go there."""
        reason = self._allowed.refusal(address, port, self._resolver.learned.of(address))
        if reason and time.monotonic() - self._asked >= _ASK_AGAIN:
            self._asked = time.monotonic()
            await asyncio.gather(*map(self._resolver.look_up, self._allowed.names(port)))
            reason = self._allowed.refusal(address, port, self._resolver.learned.of(address))
        return reason

    async def _join(self, number: int, connection: Connection) -> None:
        """Copy both ways until both have ended; a reset of one half is one of the other."""
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(pass_on(connection.node, connection.outside, _BLOCK))
                both.create_task(pass_on(connection.outside, connection.node, _BLOCK))
            return
        except* OSError:
            connection.reset = True
        except* asyncio.CancelledError:
            pass
        if not connection.reset:
            raise asyncio.CancelledError
        abort(connection.outside)
        self._say(number, reset=True)
        with contextlib.suppress(OSError, TimeoutError):  # an end of the stream alone would be passed on as an end
            await asyncio.wait_for(_drained(connection.node), _GRACE)


def _whose(client: str) -> str:
    return "the node" if client == DEVICE else client


async def _connected(address: IPv4Address, port: int) -> socket.socket:
    """A connection to an address, or by that of this machine to its loopback. Raises OSError, TimeoutError."""
    if address != HOST:
        return await asyncio.wait_for(_opened(socket.AF_INET, str(address), port), _CONNECT)
    try:
        return await _opened(socket.AF_INET, "127.0.0.1", port)
    except ConnectionRefusedError as refused:
        try:
            return await _opened(socket.AF_INET6, "::1", port)  # where some programs listen only
        except OSError:
            raise refused from None


async def _opened(family: int, host: str, port: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        await asyncio.get_running_loop().sock_connect(made, (host, port))
    except BaseException:
        made.close()
        raise
    return made


async def _drained(stream: socket.socket) -> None:
    while await asyncio.get_running_loop().sock_recv(stream, _BLOCK):
        pass


def of(configured: Configured) -> tuple[Allowed, Resolver]:
    """What a cluster's settings say of its way out."""
    wanted = configured.egress
    cluster = configured.cluster
    ranges = (*map(str, side_by_side(cluster.pods, cluster.nodes)), cluster.services, cluster.load_balancers)
    allowed = Allowed(wanted.to, list(map(IPv4Network, ranges)))
    return allowed, Resolver(allowed.may_ask, [_server(each) for each in wanted.nameservers])


def _server(word: str) -> tuple[str, int]:
    host, _, port = word.partition(":")
    return host, int(port or 53)


def main(arguments: list[str]) -> int:
    """Serve one cluster, and end with its supervisor."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return 1
    most = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 4 * _MOST)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    allowed, resolver = of(configured_of(Place(Path(arguments[0]))))
    with socket.socket(fileno=0) as control:
        asyncio.run(Egress(control, allowed, resolver, Log()).serve())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

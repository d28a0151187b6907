"""Ports of this machine that lead to addresses in a node's network, TCP and UDP, as tasks of the running loop."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time
from collections.abc import Coroutine
from typing import Any

from sandkube.cluster.relay import Relay
from sandkube.cluster.streams import abort, pass_on
from sandkube.errors import UserError

TCP, UDP = "tcp", "udp"
_BLOCK = 1 << 18
_PAUSE = 0.2  # seconds before another try to accept, where descriptors are short: nothing tells of their end
_MOST = 4096  # connections; and no more than half of the descriptors that this process may have, two each
_FLOWS = 512  # clients of a port for packets; then the one that was silent longest makes way
_IDLE = 60.0  # seconds without a packet, as in the node (native/node/services/flows.go)
_WAITING = 16  # packets of a client before its flow is there
_PACKET = 1 << 16


def listen(network: str, address: str, port: int) -> socket.socket:
    """A socket for connections or packets, at a free port for 0. Raises UserError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM if network == TCP else socket.SOCK_DGRAM)
    try:
        one.setblocking(False)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if network == TCP:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT is no obstacle
        one.bind((address, port))
        if network == TCP:
            one.listen(128)
    except OSError as error:
        one.close()
        what = "port" if network == TCP else "UDP port"
        raise UserError(f"{what} {port} of {address}: {error.strerror}", hint="choose another port") from None
    return one


class Forwarder:
    """Serves sockets that listen, by one relay."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = 0
        self._most = min(_MOST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)

    async def serve(self, listener: socket.socket, network: str, to: str) -> None:
        """Have a socket lead to an address from now on. What cannot be passed on is refused, or lost."""
        if network == TCP:
            self._keep(self._accept(listener, to))
        else:
            await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: _Flows(self._relay, listener, to), sock=listener
            )

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket, to: str) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                try:
                    client, _ = await loop.sock_accept(listener)
                except OSError:
                    await asyncio.sleep(_PAUSE)
                    continue
                if self._open >= self._most:
                    abort(client)
                else:
                    self._keep(self._join(client, to))

    async def _join(self, client: socket.socket, to: str) -> None:
        self._open += 1
        try:
            with client:
                try:
                    node = await self._relay.stream(to)
                except OSError:
                    return abort(client)
                with node:
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    try:
                        async with asyncio.TaskGroup() as both:
                            both.create_task(pass_on(client, node, _BLOCK))
                            both.create_task(pass_on(node, client, _BLOCK))
                    except* OSError:
                        abort(client)
        finally:
            self._open -= 1
        return None


class _Flow:
    """One client of a port for packets, and its socket into the node once it is there."""

    def __init__(self) -> None:
        self.waiting: list[bytes] = []
        self.socket: socket.socket | None = None
        self.used = time.monotonic()

    def send(self, data: bytes) -> None:
        self.used = time.monotonic()
        if self.socket is not None:
            with contextlib.suppress(OSError):  # full, or about to end: a packet may be lost
                self.socket.send(b"\0" + data)
        elif len(self.waiting) < _WAITING:
            self.waiting.append(data)


class _Flows(asyncio.DatagramProtocol):
    """The clients of one port, the one that was silent longest first."""

    def __init__(self, relay: Relay, listener: socket.socket, to: str) -> None:
        self._relay = relay
        self._listener = listener
        self._to = to
        self._flows: dict[Any, _Flow] = {}
        self._joining: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    def connection_lost(self, _error: Exception | None) -> None:
        for client in [*self._flows]:
            self._end(client)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        flow = self._flows.pop(addr, None)
        if flow is None:
            flow = self._new(addr)
        self._flows[addr] = flow
        flow.send(data)

    def _new(self, client: Any) -> _Flow:
        while len(self._flows) >= _FLOWS:
            self._end(next(iter(self._flows)))
        flow = _Flow()
        task = asyncio.get_running_loop().create_task(self._join(client, flow))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(_IDLE, self._sweep)
        return flow

    async def _join(self, client: Any, flow: _Flow) -> None:
        try:
            node = await self._relay.packets(self._to)
        except OSError:
            if self._flows.get(client) is flow:
                del self._flows[client]
            return
        if self._flows.get(client) is not flow:
            node.close()
            return
        flow.socket = node
        asyncio.get_running_loop().add_reader(node, self._answer, client, node)
        for data in flow.waiting:
            flow.send(data)

    def _answer(self, client: Any, node: socket.socket) -> None:
        try:
            data = node.recv(1 + _PACKET)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._flows[client].used = time.monotonic()
            with contextlib.suppress(OSError):  # asyncio's own way leaves packets out that are empty
                self._listener.sendto(data[1:], client)
        else:
            self._end(client)

    def _end(self, client: Any) -> None:
        flow = self._flows.pop(client)
        if flow.socket is not None:
            asyncio.get_running_loop().remove_reader(flow.socket)
            flow.socket.close()

    def _sweep(self) -> None:
        now = time.monotonic()
        for client in [client for client, flow in self._flows.items() if now - flow.used >= _IDLE]:
            self._end(client)
        again = bool(self._flows)
        self._sweeper = asyncio.get_running_loop().call_later(_IDLE / 2, self._sweep) if again else None

"""The way into a node's network: streams are handed to a process in the node, which joins each with an address there.

The process is the node's program in the role `relay` (native/node/relay). It is started as a shell in the node is, so
it is the same in every kind of sandbox; what it gets are descriptors, by a socket of this machine: gVisor takes those
of Unix sockets in. It ends when that socket is closed, so with whoever started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from sandkube.run import base_environment

COMMAND = ("/usr/bin/sandkube-node", "relay")
_JOINED = b"\x01"
_GRACE = 5.0  # seconds
_TRIES = 2
"""A relay that has ended is started again, once a stream."""


class Relay:
    """One process in a node, started when the first stream is wanted. `argv` is its command line; it raises OSError
    where there is no node now.
    """

    def __init__(self, argv: Callable[[], Sequence[str]]) -> None:
        self._argv = argv
        self._control: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()

    async def stream(self, to: str) -> socket.socket:
        """A stream that is joined with an address. Raises OSError where nobody answers there."""
        ours = await self._given(socket.SOCK_STREAM, "tcp", to)
        try:
            if await asyncio.get_running_loop().sock_recv(ours, 1) != _JOINED:
                raise ConnectionRefusedError(f"nobody answers at {to}")
        except BaseException:
            ours.close()
            raise
        return ours

    async def packets(self, to: str) -> socket.socket:
        """A socket of packets, each after a byte that means nothing: none of them is empty. Raises OSError."""
        return await self._given(socket.SOCK_SEQPACKET, "udp", to)

    async def _given(self, kind: int, network: str, to: str) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        ours.setblocking(False)
        with theirs:
            try:
                await self._hand_over(json.dumps({"network": network, "address": to}).encode(), theirs)
            except BaseException:
                ours.close()
                raise
        return ours

    async def _hand_over(self, request: bytes, theirs: socket.socket) -> None:
        for _ in range(_TRIES):
            control = await self._started()
            try:
                return await _send(control, request, theirs)
            except ConnectionError:  # it has ended
                self.close()
        raise ConnectionResetError("the relay in the node ends at once")

    async def _started(self) -> socket.socket:
        async with self._starting:
            if self._control is None:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                ours.setblocking(False)
                with theirs, contextlib.ExitStack() as stack:
                    stack.callback(ours.close)
                    self._process = await asyncio.create_subprocess_exec(
                        *self._argv(),
                        stdin=theirs.fileno(),
                        stdout=asyncio.subprocess.DEVNULL,
                        env=base_environment(Path("/root")),
                        cwd="/",
                        process_group=0,
                    )
                    stack.pop_all()
                self._control = ours
            return self._control

    def close(self) -> None:
        """Have the process end; streams end with it."""
        if self._control is not None:
            self._control.close()
            self._control = None

    async def end(self) -> None:
        """Close, and wait for the process; one that does not end is killed."""
        self.close()
        if self._process is not None:
            try:
                await asyncio.wait_for(self._process.wait(), _GRACE)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()


async def _send(control: socket.socket, request: bytes, theirs: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            socket.send_fds(control, [request], [theirs.fileno()])
        except BlockingIOError:
            free = loop.create_future()
            loop.add_writer(control, free.set_result, None)
            try:
                await free
            finally:
                loop.remove_writer(control)
        else:
            return

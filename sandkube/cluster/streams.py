"""Two sockets that are one connection: bytes are passed on, and so is the end, or a reset."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct


async def pass_on(source: socket.socket, target: socket.socket, block: int) -> None:
    """Copy to the end by blocks of so many bytes, and pass that on."""
    loop = asyncio.get_running_loop()
    buffer = memoryview(bytearray(block))
    while count := await loop.sock_recv_into(source, buffer):
        await loop.sock_sendall(target, buffer[:count])
        await asyncio.sleep(0)  # others have their turn, however fast both sides are
    target.shutdown(socket.SHUT_WR)


def abort(one: socket.socket) -> None:
    """Close by a reset, as where nobody listens."""
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()

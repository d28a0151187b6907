"""A server of names on loopback, by UDP and TCP, with records of its own."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from sandkube.cluster.outside import question

LONG = 40
"""More addresses than this are told by TCP only."""


@dataclass
class NameServer:
    """What it knows, and what it was asked: name and type."""

    records: dict[str, list[str]]
    address: str = ""
    asked: list[tuple[str, int]] = field(default_factory=list)

    def answer(self, query: bytes, *, stream: bool) -> bytes:
        """What it says to a query: addresses, or that there is no such name. `alias.` before a name is one of it."""
        name, kind, end = question(query)
        self.asked.append((name, kind))
        known = self.records.get(name.removeprefix("alias."))
        found = [IPv4Address(each).packed for each in known or () if kind == 1]
        cut = not stream and len(found) > LONG
        records = [b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + each for each in found]
        if name.startswith("alias."):
            at = 12 + 6  # behind the first label
            records.insert(0, b"\xc0\x0c" + struct.pack("!HHIHH", 5, 1, 60, 2, 0xC000 | at))
            records[1:] = [struct.pack("!H", 0xC000 | at) + each[2:] for each in records[1:]]
        count = 0 if cut else len(records)
        flags = 0x8180 | (0x0200 if cut else 0) | (0 if known is not None else 3)
        head = query[:2] + struct.pack("!5H", flags, 1, count, 0, 0)
        return head + query[12:end] + b"".join(records[:count])


@contextlib.contextmanager
def name_server(records: dict[str, list[str]]) -> Iterator[NameServer]:
    """Serve until the block ends."""
    one = NameServer(records)

    class Packets(socketserver.DatagramRequestHandler):
        def handle(self) -> None:
            self.wfile.write(one.answer(self.rfile.read(), stream=False))

    class Streams(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while length := self.rfile.read(2):
                said = one.answer(self.rfile.read(int.from_bytes(length)), stream=True)
                self.wfile.write(len(said).to_bytes(2) + said)
                self.wfile.flush()

    streams = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Streams)
    streams.daemon_threads = True
    packets = socketserver.UDPServer(("127.0.0.1", streams.server_address[1]), Packets)
    one.address = f"127.0.0.1:{streams.server_address[1]}"
    threads = [threading.Thread(target=each.serve_forever, args=(0.05,)) for each in (streams, packets)]
    for thread in threads:
        thread.start()
    try:
        yield one
    finally:
        for each in (streams, packets):
            each.shutdown()
            each.server_close()
        for thread in threads:
            thread.join()


def query(name: str, kind: int = 1) -> bytes:
    """What asks for a name."""
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    return struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, kind, 1)


def refused_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])

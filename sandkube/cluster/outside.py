"""Names outside of a cluster: queries are handed on to this machine's servers of names as they are, and what they
answer is remembered, since pods then connect to an address.

IPv4 alone leads out, so names have no address of IPv6 here.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

from sandkube.cluster.destinations import HOST, HOST_NAME

_HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")
_A, _AAAA, _IN = 1, 28, 1
_ANSWERS = 0x8000
_RECURSION = 0x0180  # desired, and available
_SERVFAIL, _NXDOMAIN = 2, 3
_TTL = 60  # seconds, of what is answered here
_WAIT = 3.0  # seconds for a server
_ROUNDS = 2
_MOST_ADDRESSES = 8192
_MOST_NAMES = 16  # of an address
_LASTS = 3600.0  # seconds for which an answer counts; programs keep to addresses for longer than they are told
_RESOLV_CONF = Path("/etc/resolv.conf")

Server = tuple[str, int]


def _name_at(packet: bytes, at: int) -> tuple[str, int]:
    """A name, and where it ends. Raises ValueError, IndexError."""
    labels, end, jumps = [], 0, 0
    while length := packet[at]:
        if length >= 0xC0:
            end, jumps = end or at + 2, jumps + 1
            at = (length & 0x3F) << 8 | packet[at + 1]
            if jumps > 32:
                raise ValueError("a name leads in a circle")
            continue
        labels.append(packet[at + 1 : at + 1 + length].decode("ascii", "replace").lower())
        at += 1 + length
    return ".".join(labels), end or at + 1


def question(packet: bytes) -> tuple[str, int, int]:
    """What a query asks for: a name in lower case, a type; and where the question ends. Raises ValueError."""
    try:
        _id, flags, questions, *_more = _HEADER.unpack_from(packet)
        name, at = _name_at(packet, _HEADER.size)
        kind, family = struct.unpack_from("!HH", packet, at)
    except (IndexError, struct.error):
        raise ValueError("a query that is cut short") from None
    if flags & 0x7800 or questions != 1 or family != _IN:
        raise ValueError("not a query for a name")
    return name, kind, at + 4


def addresses(packet: bytes) -> Iterator[IPv4Address]:
    """The addresses in an answer; what is cut short has none from there on."""
    with suppress(ValueError, IndexError, struct.error):
        *_, at = question(packet)
        for _ in range(_HEADER.unpack_from(packet)[3]):
            _owner, at = _name_at(packet, at)
            kind, _family, _ttl, length = _RECORD.unpack_from(packet, at)
            at += _RECORD.size
            if kind == _A and length == 4:
                yield IPv4Address(packet[at : at + 4])
            at += length


def _said(query: bytes, code: int = 0, address: IPv4Address | None = None) -> bytes:
    """An answer of our own to a query."""
    number, flags, *_ = _HEADER.unpack_from(query)
    end = question(query)[2]
    head = _HEADER.pack(number, _ANSWERS | _RECURSION | flags & 0x7900 | code, 1, int(address is not None), 0, 0)
    record = b"" if address is None else b"\xc0\x0c" + _RECORD.pack(_A, _IN, _TTL, 4) + address.packed
    return head + query[_HEADER.size : end] + record


def servers_of(text: str) -> list[Server]:
    """The servers that a resolv.conf names."""
    words = (line.split() for line in text.splitlines())
    return [(each[1], 53) for each in words if len(each) > 1 and each[0] == "nameserver"]


class Learned:
    """Which names led to an address, the address that was told longest ago first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._names: OrderedDict[IPv4Address, dict[str, float]] = OrderedDict()
        self._clock = clock

    def note(self, name: str, found: Iterator[IPv4Address]) -> None:
        """Remember an answer."""
        for address in found:
            names = self._names.setdefault(address, {})
            names.pop(name, None)
            names[name] = self._clock() + _LASTS
            while len(names) > _MOST_NAMES:
                del names[next(iter(names))]
            self._names.move_to_end(address)
        while len(self._names) > _MOST_ADDRESSES:
            self._names.popitem(last=False)

    def of(self, address: IPv4Address) -> Collection[str]:
        """The names that lead to an address now."""
        return [name for name, until in self._names.get(address, {}).items() if until > self._clock()]


class Resolver:
    """Answers queries. `may_ask` says which names are handed on; `servers` are asked in their order, those of this
    machine if there are none.
    """

    def __init__(self, may_ask: Callable[[str], bool], servers: Sequence[Server] = ()) -> None:
        self._may_ask = may_ask
        self._servers = servers
        self.learned = Learned()

    async def answer(self, query: bytes, *, stream: bool) -> bytes:
        """The answer to a query, by TCP where it came by that. Raises ValueError for what is no query."""
        name, kind, _end = question(query)
        if name == HOST_NAME:
            return _said(query, address=HOST if kind == _A else None)
        if not self._may_ask(name):
            return _said(query, _NXDOMAIN)
        if kind == _AAAA:
            return _said(query)
        for server in self._now() * _ROUNDS:
            with suppress(OSError, TimeoutError, EOFError):
                found = await asyncio.wait_for((_by_tcp if stream else _by_udp)(query, server), _WAIT)
                self.learned.note(name, addresses(found))
                return found
        return _said(query, _SERVFAIL)

    async def look_up(self, name: str) -> None:
        """Learn where a name leads now."""
        labels = b"".join(bytes([len(each)]) + each for each in name.encode().split(b"."))
        query = (
            _HEADER.pack(time.monotonic_ns() & 0xFFFF, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, _A, _IN)
        )
        await self.answer(query, stream=False)

    def _now(self) -> list[Server]:
        if self._servers:
            return [*self._servers]
        with suppress(OSError):  # machines move between networks
            return servers_of(_RESOLV_CONF.read_text(errors="replace"))
        return []


async def _by_udp(query: bytes, server: Server) -> bytes:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET6 if ":" in server[0] else socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setblocking(False)
        one.connect(server)
        await loop.sock_sendall(one, query)
        while True:
            found = await loop.sock_recv(one, 1 << 16)
            with suppress(ValueError):
                if found[:2] == query[:2] and found[2] & 0x80 and question(found)[:2] == question(query)[:2]:
                    return found


async def _by_tcp(query: bytes, server: Server) -> bytes:
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(len(query).to_bytes(2) + query)
        await writer.drain()
        return await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
    finally:
        writer.close()

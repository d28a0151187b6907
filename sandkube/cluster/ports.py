"""Ports of this machine that lead into a cluster: those that it was started with, and those that are asked for later.

The supervisor has them. A cluster's folder holds `publish.json`, what it was started with, as words of --publish;
`ports.json`, what there is now; and `control`, a socket by which other commands ask the supervisor, by a JSON line
each way.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sandkube.cluster.configured import Configured
from sandkube.cluster.forward import TCP, Forwarder, listen
from sandkube.cluster.place import PUBLISH, Place
from sandkube.cluster.relay import Relay
from sandkube.decode import decoded
from sandkube.documents import parse_json, read_file
from sandkube.errors import UserError

LOOPBACK = "127.0.0.1"
_OPEN = "ports.json"
_CONTROL = "control"
_WORD = re.compile(r"(?:(?P<address>[^/]*):)?(?P<port>\d{1,5}):(?P<target>\d{1,5})(?:/(?P<network>tcp|udp))?")
_ANSWER = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Publication:
    """A port of this machine that leads to a port of the node; 0 for a free one."""

    address: str
    port: int
    target: int
    network: str

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.port}:{self.target}/{self.network}"


@dataclass(frozen=True, slots=True)
class _Wanted:
    publish: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Port:
    """A port of this machine that leads into a cluster: to an address there, `of` what."""

    address: str
    port: int
    network: str
    to: str
    of: str

    def __str__(self) -> str:
        """Where it is, as one types it."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class _Now:
    ports: tuple[Port, ...]


def publication(word: str) -> Publication:
    """What a word of --publish says. Raises UserError."""
    found = _WORD.fullmatch(word)
    try:
        if found is None:
            raise ValueError
        address = str(ipaddress.ip_address((found["address"] or LOOPBACK).strip("[]")))
        made = Publication(address, int(found["port"]), int(found["target"]), found["network"] or TCP)
        if made.port > 65535 or not 0 < made.target <= 65535:
            raise ValueError
    except ValueError:
        raise UserError(
            f"--publish {word}: not of the form [ADDRESS:]HOSTPORT:PORT[/tcp|udp]",
            hint="for example --publish 8080:30080; ports are numbers up to 65535, addresses numeric",
        ) from None
    return made


def check(wanted: Sequence[Publication]) -> None:
    """Say at once what would come out at the start: each port is tried. Raises UserError."""
    with contextlib.ExitStack() as stack:
        for each in wanted:
            try:
                stack.enter_context(listen(each.network, each.address, each.port))
            except UserError as error:
                raise UserError(f"--publish {each}: {error.message}", hint="choose another port") from None


def write_wanted(place: Place, wanted: Sequence[Publication]) -> None:
    """Keep what a cluster is started with."""
    place.write_file(PUBLISH, json.dumps({"publish": [str(each) for each in wanted]}))


def wanted_of(place: Place) -> list[Publication]:
    """What a cluster is, or was, started with; nothing, if that cannot be told."""
    with contextlib.suppress(UserError, ValueError):
        found = decoded(_Wanted, parse_json(read_file(place.folder / PUBLISH, PUBLISH)), PUBLISH)
        return [publication(each) for each in found.publish]
    return []


def open_of(place: Place) -> list[Port]:
    """What there is now of a cluster that runs."""
    if place.running() is not None:
        with contextlib.suppress(UserError, ValueError):
            return [*decoded(_Now, parse_json(read_file(place.folder / _OPEN, _OPEN)), _OPEN).ports]
    return []


@contextlib.contextmanager
def _near(place: Place) -> Iterator[str]:
    """The path of the control socket, which is never too long for one."""
    folder = os.open(place.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{_CONTROL}"
    finally:
        os.close(folder)


class Ports:
    """Those of one cluster, in its supervisor. `argv` is the command line of a relay, and raises OSError where the
    node is not up.
    """

    def __init__(self, place: Place, argv: Callable[[], Sequence[str]]) -> None:
        self._place = place
        self._forwarder = Forwarder(Relay(argv))
        self._open: list[Port] = []

    async def open(self, configured: Configured) -> None:
        """Listen on the ports that the cluster is started with, and for requests. Raises UserError, OSError."""
        for each in wanted_of(self._place):
            node = f"{configured.node_address}:{each.target}"
            await self._add(Port(each.address, each.port, each.network, node, f"port {each.target} of the node"))
        self._write()
        control = socket.socket(socket.AF_UNIX)
        with _near(self._place) as path:
            Path(path).unlink(missing_ok=True)
            control.bind(path)
        await asyncio.start_unix_server(self._asked, sock=control)

    async def _add(self, wanted: Port) -> Port:
        listener = listen(wanted.network, wanted.address, wanted.port)
        made = Port(wanted.address, listener.getsockname()[1], wanted.network, wanted.to, wanted.of)
        await self._forwarder.serve(listener, made.network, made.to)
        self._open.append(made)
        return made

    def _write(self) -> None:
        self._place.write_file(_OPEN, json.dumps({"ports": [asdict(each) for each in self._open]}))

    async def _asked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request: a port that is wanted, by the port that there is, or by why there is none."""
        with contextlib.closing(writer), contextlib.suppress(OSError):
            try:
                made = await self._add(decoded(Port, parse_json(await reader.readline()), "request"))
                self._write()
                answer: dict[str, Any] = asdict(made)
            except (UserError, ValueError, OSError) as error:
                answer = {"error": error.message if isinstance(error, UserError) else str(error)}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()


def ask(place: Place, wanted: Port) -> Port:
    """Have a cluster's supervisor open a port, for as long as the cluster runs. Raises UserError."""
    try:
        with _near(place) as path, socket.socket(socket.AF_UNIX) as control:
            control.settimeout(_ANSWER)
            control.connect(path)
            control.sendall(json.dumps(asdict(wanted)).encode() + b"\n")
            answer = parse_json(control.makefile("rb").readline())
    except (OSError, ValueError) as error:
        raise UserError(
            f"cluster {place.name}: its supervisor does not answer ({error})",
            hint="without --background it is not asked",
        ) from None
    if "error" in answer:
        raise UserError(str(answer["error"]), hint="choose another with --port, or leave it out for a free one")
    return decoded(Port, answer, "answer")

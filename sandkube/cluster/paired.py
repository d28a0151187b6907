"""Two processes that do something together, one here and one in the node, joined by a socket of packets that is theirs
alone: on both standard inputs. Each ends when the other has.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandkube.cluster.told import next_line
from sandkube.run import base_environment

_CANNOT = 3


class Impossible(Exception):
    """The one in the node cannot do its work in this place, and says why: exit status 3."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What the two are: a module of ours that is given the cluster's folder, and a command of the node's. What they log
    is the component's. `environment` is that of the module, by the cluster's folder; `ready` is called for each line
    that the module says on standard output.
    """

    component: bytes
    module: str
    command: tuple[str, ...]
    environment: Callable[[Path], Mapping[str, str]] = base_environment

    async def run(
        self,
        folder: Path,
        argv: Callable[[Sequence[str]], Sequence[str]],
        log: Callable[[bytes], None],
        ready: Callable[[], None],
    ) -> None:
        """Have both run until one of them ends, and the other one with it. Raises Impossible."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        here = [sys.executable, "-m", self.module, str(folder)]
        root = Path(__file__).resolve().parents[2]
        with ours, theirs:
            host = await _start(here, ours, self.environment(folder), root)
            node = await _start(argv(self.command), theirs, base_environment(Path("/root")), Path("/"))
        _, last, _ = await asyncio.gather(self._follow(host, log), self._follow(node, log), _heed(host, ready))
        if node.returncode == _CANNOT:
            raise Impossible(last.decode(errors="replace").strip())

    async def _follow(self, process: asyncio.subprocess.Process, log: Callable[[bytes], None]) -> bytes:
        """Log what it says until it has ended; its last line."""
        assert process.stderr is not None
        last = b""
        while line := await next_line(process.stderr):
            log(self.component + b"\t" + line)
            last = line
        await process.wait()
        return last


async def _heed(process: asyncio.subprocess.Process, ready: Callable[[], None]) -> None:
    assert process.stdout is not None
    while await next_line(process.stdout):
        ready()


async def _start(
    argv: Sequence[str], control: socket.socket, environment: Mapping[str, str], cwd: Path
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *argv,
        stdin=control.fileno(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        cwd=cwd,
        process_group=0,
    )

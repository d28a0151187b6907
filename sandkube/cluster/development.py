"""A registry for development: a process of this machine on its loopback, which people push to, and which the cluster's
containerd pulls from by the same name (sandkube/cluster/pull.py).

It is the distribution project's; its blobs are in the cluster's folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandkube.cluster.place import REGISTRY, Place
from sandkube.cluster.told import Failed, next_line
from sandkube.run import base_environment

COMPONENT = b"registry"
LOOPBACK = "127.0.0.1"
_CONFIGURATION = "registry.json"
_MOMENT = 0.02
_PATIENCE = 30.0  # seconds until it listens
_HOSTING = "localRegistryHosting.v1"


def address(port: int) -> str:
    """What names of its images begin with, here and in pods."""
    return f"localhost:{port}"


def configuration(folder: Path, port: int) -> dict[str, Any]:
    """What its program is told: docs of distribution 3, "Configuring a registry"."""
    return {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder)}, "delete": {"enabled": True}},
        "http": {"addr": f"{LOOPBACK}:{port}"},
    }


def announcement(port: int) -> dict[str, Any]:
    """The object by which tools find it (KEP-1755)."""
    told = f'host: "{address(port)}"\nhelp: "./do help run-cluster, option --registry"\n'
    metadata = {"name": "local-registry-hosting", "namespace": "kube-public"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {_HOSTING: told}}


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return False
    writer.close()
    return True


@dataclass(frozen=True, slots=True)
class Registry:
    """Its program, the cluster, its port, and where it logs."""

    program: Path
    place: Place
    port: int
    log: Callable[[bytes], None]

    async def start(self) -> asyncio.subprocess.Process:
        """Have it listen. Raises Failed where it cannot."""
        try:
            socket.create_server((LOOPBACK, self.port)).close()
        except OSError as error:
            why = os.strerror(error.errno or 0)
            sentence = f"it cannot listen on port {self.port} of {LOOPBACK}: {why}; --registry-port takes another"
            raise Failed(COMPONENT.decode(), sentence) from None
        told = configuration(self.place.folder / REGISTRY, self.port)
        self.place.write_file(_CONFIGURATION, json.dumps(told))
        process = await asyncio.create_subprocess_exec(
            *(self.program, "serve", self.place.folder / _CONFIGURATION),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=base_environment(self.place.folder) | {"OTEL_TRACES_EXPORTER": "none"},
            cwd=self.place.folder,
            process_group=0,
        )
        loop = asyncio.get_running_loop()
        end = loop.time() + _PATIENCE
        while not await _listens(self.port):
            if process.returncode is not None or loop.time() > end:
                raise Failed(COMPONENT.decode(), "it does not listen")
            await asyncio.sleep(_MOMENT)
        return process

    async def keep(self, running: asyncio.subprocess.Process, ends: Callable[[], Awaitable[bool]]) -> None:
        """Log what it says, and start it again when it ends before the cluster does."""
        while True:
            assert running.stderr is not None
            while line := await next_line(running.stderr):
                self.log(COMPONENT + b"\t" + line)
            await running.wait()
            if await ends():
                return
            running = await self.start()

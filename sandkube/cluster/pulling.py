"""The way out to registries, as the supervisor has it: a process in the node that containerd connects to, and one here
that asks the registries, joined by a socket that is theirs alone (sandkube/cluster/pull.py).
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sandkube.cluster.pull import MODULE
from sandkube.cluster.told import next_line
from sandkube.run import NETWORK_ENVIRONMENT, base_environment

COMMAND = ("/usr/bin/sandkube-node", "pull")
COMPONENT = b"pull"
_VARIABLE = "SANDKUBE_PULL"
_LOGINS = ("HOME", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR")
_HELPERS = (
    "AWS_",
    "AZURE_",
    "CLOUDSDK_",
    "GOOGLE_",
    "DBUS_SESSION_BUS_ADDRESS",
    "GNUPGHOME",
    "PASSWORD_STORE_DIR",
    "VAULT_",
)
"""What credential helpers of docker's read, or how it begins."""


def inherited(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """A variable with what of the user's environment registries are asked by: the supervisor has one that is built."""
    names = (*_LOGINS, *NETWORK_ENVIRONMENT)
    taken = {key: value for key, value in environment.items() if key in names or key.startswith(_HELPERS)}
    return {_VARIABLE: json.dumps(taken)}


def _environment(folder: Path) -> dict[str, str]:
    taken: dict[str, str] = json.loads(os.environ.get(_VARIABLE, "{}"))
    return base_environment(folder) | taken


async def pull(folder: Path, argv: Callable[[], Sequence[str]], log: Callable[[bytes], None]) -> None:
    """Have a cluster's containerd reach registries until one of the two processes ends, and the other one with it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here = [sys.executable, "-m", MODULE, str(folder)]
    root = Path(__file__).resolve().parents[2]
    with ours, theirs:
        host = await _start(here, ours, _environment(folder), root)
        node = await _start(argv(), theirs, base_environment(Path("/root")), Path("/"))
    await asyncio.gather(*(_follow(each, log) for each in (host, node)))


async def _start(
    argv: Sequence[str], control: socket.socket, environment: Mapping[str, str], cwd: Path
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *argv,
        stdin=control.fileno(),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        cwd=cwd,
        process_group=0,
    )


async def _follow(process: asyncio.subprocess.Process, log: Callable[[bytes], None]) -> None:
    assert process.stderr is not None
    while line := await next_line(process.stderr):
        log(COMPONENT + b"\t" + line)
    await process.wait()

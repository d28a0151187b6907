"""What workers give a command: found by a program that tries, in an action of its own."""

from __future__ import annotations

from dataclasses import dataclass

from sandkube.build.box import Call
from sandkube.build.boxes.probe import program
from sandkube.build.remote.merkle import Digest, File, Folder

_NETWORK, _NO_USER = 1, 2
_CODE = bytes.fromhex(
    "b829000000 bf02000000 be02000000 31d2 0f05"  # socket(AF_INET, SOCK_DGRAM, 0)
    "89c7 b82a000000 488d352f000000 ba10000000 0f05"  # connect(it, where, 16): sends nothing, but needs a route
    "31db 85c0 0f94c3"  # ebx = there was one
    "b810010000 bf00000010 0f05"  # unshare(CLONE_NEWUSER)
    "85c0 0f95c0 0fb6c0 01c0 09d8"  # eax = 2 * (that was refused) | ebx
    "89c7 b83c000000 0f05"  # exit(eax)
    "0200 0009 c0000201 0000000000000000"  # where: 192.0.2.1, an address of nobody (RFC 5737)
)
PROGRAM = program(_CODE)
CALL = Call(["/probe"])
ROOT = Folder({"probe": File(Digest.of(PROGRAM), True, PROGRAM)})
"""It is found at that path only where the input root is a worker's root."""


@dataclass(frozen=True, slots=True)
class Worker:
    """What commands find on a worker."""

    network: bool
    """A way to other machines, which steps must not have."""
    user_namespaces: bool


def read(status: int) -> Worker | None:
    """What the program's exit status says; None where the program was not started."""
    if status not in range(4):
        return None
    return Worker(bool(status & _NETWORK), not status & _NO_USER)

"""The node in namespaces and cgroups of this machine's own kernel: the kind of sandbox `linux`.

The program `userns` of the node's file system makes the namespaces, waits beside them and removes the cgroups at their
end; the script of a node in place (native/starter) makes the root in them. The API comes in by a socket that listens on
the loopback of this machine and is handed in: nothing else leads out or in.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sandkube.cluster import cgroups
from sandkube.cluster.deadline import TRIAL
from sandkube.errors import UserError
from sandkube.run import base_environment, run

_RECORD = "cgroups.json"
_NOTE = "first.pid"
_IDS = 65536
"""Numbers of users and groups that images and pods may ask for."""
_KINDS = "the kinds modern and confined need nothing of this"


@dataclass(frozen=True, slots=True)
class Given:
    """What a boot is given: the socket that listens for the API, the descriptor for the number of the first process."""

    api: socket.socket
    note: int
    folders: dict[str, Path]

    def close(self) -> None:
        """Leave it to the node."""
        self.api.close()
        os.close(self.note)


@dataclass(frozen=True, slots=True)
class Linux:
    """Command lines; the counterpart of `sandbox.Sandbox`. `userns` is the program's file, below the node's root, and
    `name` the node's name.
    """

    userns: Path
    folder: Path
    container: str
    name: str
    arguments: tuple[str, ...] = ()
    data: str = ""
    """The folder of data that stay; "" for none."""

    @property
    def _root(self) -> Path:
        return self.userns.parents[2]

    def prepare(self, port: int) -> Given:
        """Make the cgroups and the socket. Raises UserError, OSError for the port."""
        api = socket.create_server(("127.0.0.1", port), backlog=128)
        try:
            folders = self._cgroups()
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            return Given(api, os.open(self.folder / _NOTE, flags, 0o600), folders)
        except BaseException:
            api.close()
            raise

    def _cgroups(self) -> dict[str, Path]:
        folders = cgroups.make(self.container)
        cgroups.record(self.folder / _RECORD, folders)
        return folders

    def boot(self, given: Given, parent: int) -> list[str]:
        """Boot, and end with the thread of `parent` that starts it; stages on standard output, logs on the other."""
        words = (f"--api-fd={given.api.fileno()}", "--in-place", *self.arguments)
        return self._apart(given.folders, [f"--note={given.note}", f"--parent={parent}"], words)

    def run(self, _bundle: Path, parent: int) -> list[str]:
        """Run the node's program with its arguments alone: nothing comes in. Raises UserError."""
        return self._apart(self._cgroups(), [f"--parent={parent}"], ("--in-place", *self.arguments))

    def _apart(self, folders: dict[str, Path], options: Sequence[str], words: Sequence[str]) -> list[str]:
        busybox, script = self._root / "bin/busybox", self._root / "usr/share/sandkube/starter"
        options = [*options, *(f"--cgroup={folder}" for folder in folders.values())]
        data = [f"--data={self.data}"] if self.data else []
        inside = [str(busybox), "sh", str(script), "apart", *data, self.name, " ".join(folders), *words]
        return [str(self.userns), "--first", *options, *maps(), "--", *inside]

    def execute(self, command: Sequence[str]) -> list[str]:
        """Run a command in the node's namespaces, on this terminal."""
        first = (self.folder / _NOTE).read_text().strip()
        # Of version 2, no process can be in one that has others below it: the node is in `node` (native/starter).
        made = cgroups.recorded(self.folder / _RECORD)
        folders = [folder / "node" if folder.joinpath("node").exists() else folder for folder in made]
        where = [str(self.userns), f"--beside={first}", *(f"--cgroup={folder}" for folder in folders), "--"]
        term = os.environ.get("TERM", "dumb")
        return [*where, "/bin/busybox", "env", "-i", "PATH=/usr/bin:/bin", "HOME=/root", f"TERM={term}", *command]


def numbers(path: str) -> tuple[str, str]:
    """First number and count of subordinate numbers that this user has (subuid(5))."""
    with contextlib.suppress(OSError, KeyError):
        names = (pwd.getpwuid(os.geteuid()).pw_name, str(os.geteuid()))
        for line in Path(path).read_text().splitlines():
            name, _, numbers = line.partition(":")
            first, _, count = numbers.partition(":")
            if name in names and count.isdecimal() and int(count) >= _IDS:
                return first, count
    raise UserError(
        f"--sandbox linux needs {_IDS} subordinate numbers of users and groups, and {path} has none for you",
        hint=f"as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 NAME; {_KINDS}",
    )


def maps() -> list[str]:
    """Options of `userns` for an ordinary user; root needs no user namespace. Raises UserError: what is missing."""
    if os.geteuid() == 0:
        return []
    if not shutil.which("newuidmap"):
        raise UserError(
            "--sandbox linux needs newuidmap, which is not here", hint=f"install the package uidmap; {_KINDS}"
        )
    found = {"--uids": ("/etc/subuid", os.geteuid()), "--gids": ("/etc/subgid", os.getegid())}
    return [f"{option}=0 {own} 1 1 {' '.join(numbers(path))}" for option, (path, own) in found.items()]


def check() -> str:
    """What there is to say about such a sandbox. Raises UserError where cgroups or numbers of users are missing."""
    maps()
    cgroups.places()
    return "no gVisor, as you asked: pods run on this machine's own kernel, and whoever breaks that is on this machine"


def try_out(userns: Path) -> None:
    """Have it tried whether namespaces are to be had, and all that a node does in them. Raises UserError."""
    if os.geteuid() not in (0, userns.stat().st_uid):
        raise UserError(
            f"--sandbox linux needs files of your own, and {userns} is another user's", hint="build in a clone of yours"
        )
    with tempfile.TemporaryFile() as said:
        words = [str(userns), "--first", *maps(), "--", str(userns), "--try=within", "/tmp"]
        done = run(words, env=base_environment(Path("/root")), cwd=Path("/"), log=said, check=False, seconds=TRIAL)
        said.seek(0)
        if done.status != 0:
            text = said.read().decode(errors="replace").strip().removeprefix("userns: ")
            raise UserError(f"--sandbox linux cannot be here: {text}", hint=_KINDS)


def memory_of(folder: Path) -> int:
    """Bytes of the memory files of a cluster, which belong to none of its processes."""
    return sum(map(cgroups.shared_memory, cgroups.recorded(folder / _RECORD)))


def clear(folder: Path, seconds: float) -> int:
    """End what is left of a cluster, and remove its cgroups; the number of a process that does not end, or 0."""
    return cgroups.clear(folder / _RECORD, seconds)

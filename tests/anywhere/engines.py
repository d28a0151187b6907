"""Container engines for a test session: a dockerd of its own, podman with folders of its own, an OCI runtime alone.

Nothing that a developer runs is touched: every daemon, image and container has its state below one folder, which is
gone after the session with all mounts and processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sandkube.cluster.sandbox import Sandbox
from tests.anywhere.containers import DOCKER, PATH, PLACE, Container, Manner, engine_words, oci

IMAGE = "sandkube-test"
LIMIT = 2700.0  # seconds for all commands of one container
_READY = 300.0  # seconds for a daemon to answer
_ENV = {"PATH": PATH, "LANG": "C.UTF-8"}
_HIDE = "! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified"
"""crun cannot do with versions 1 and 2 of cgroups side by side, which some machines have."""
_APART = (*("setpriv", "--pdeathsig=KILL"), "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
"""In a process namespace that ends with its first process: a container ends with the tests, however they end."""
GUEST = ["python3", "tests/anywhere/guest.py", PLACE]


class NoEngine(Exception):
    """An engine that cannot be used here, and why."""


@dataclass(frozen=True)
class Done:
    """What became of one command."""

    words: list[str]
    status: int
    seconds: float
    said: str


@dataclass(frozen=True)
class Found:
    """What became of a plan: its commands, and what was left after them that was not there before."""

    done: list[Done]
    left: list[str]
    gone: list[str]


class Engine(Protocol):
    """Starts containers that run `words` with the checkout at `PLACE`."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    def argv(self, one: Container, checkout: Path, words: Sequence[str]) -> list[str]: ...


def run(engine: Engine, one: Container, checkout: Path, plan: list[list[str]], prelude: Sequence[str] = ()) -> Found:
    """Run a plan in a new container. Raises NoEngine if it does not come up."""
    argv = engine.argv(one, checkout, [*prelude, *GUEST])
    done = subprocess.run(
        argv, input=json.dumps(plan), capture_output=True, text=True, env=_ENV, timeout=LIMIT, check=False
    )
    if not done.stdout.startswith("{"):
        raise NoEngine(f"{engine.name}: exit status {done.returncode}: {done.stdout}{done.stderr}".strip())
    found: dict[str, Any] = json.loads(done.stdout)
    return Found([Done(**each) for each in found["done"]], found["left"], found["gone"])


def _tool(*words: str, **more: Any) -> str:
    """Run a tool of the host; NoEngine when it fails or is not there."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, env=_ENV, check=False, **more)
    except OSError as error:
        raise NoEngine(f"{words[0]}: {error.strerror}") from None
    if done.returncode != 0:
        raise NoEngine(f"{words[0]}: exit status {done.returncode}: {done.stdout}{done.stderr}".strip())
    return str(done.stdout)


@dataclass(frozen=True)
class Docker:
    """A dockerd of this session."""

    socket: Path
    name: str = "docker"

    def argv(self, one: Container, checkout: Path, words: Sequence[str]) -> list[str]:
        """`docker run`."""
        return ["docker", f"--host=unix://{self.socket}", "run", *engine_words(one, checkout), IMAGE, *words]


def _mounted_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [place for place in (line.split()[1] for line in lines) if place.startswith(f"{folder}/")]


@contextlib.contextmanager
def docker(folder: Path, image: Path) -> Iterator[Docker]:
    """Start dockerd without a bridge, import the image (a tar file), stop all of it at the end."""
    if os.geteuid() != 0:
        raise NoEngine("docker: its daemon needs root")
    folder.mkdir()
    socket, log = folder / "socket", folder / "log"
    words = [
        *("setpriv", "--pdeathsig=TERM"),  # stopped in order, too, when the tests are killed
        *("dockerd", f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"--pidfile={folder}/pid"),
        *(f"--host=unix://{socket}", "--bridge=none", "--iptables=false", "--ip6tables=false"),
    ]
    try:
        with log.open("wb") as sink:
            process = subprocess.Popen(words, stdout=sink, stderr=sink, env=_ENV, start_new_session=True)
    except OSError as error:
        raise NoEngine(f"dockerd: {error.strerror}") from None
    try:
        _wait_for_docker(process, socket, log)
        _tool("docker", f"--host=unix://{socket}", "import", str(image), IMAGE)
        yield Docker(socket)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_READY)
        for place in reversed(_mounted_below(folder)):
            subprocess.run(["umount", "--lazy", place], check=True)


def _wait_for_docker(process: subprocess.Popen[bytes], socket: Path, log: Path) -> None:
    """Until the daemon answers a request; it has no other sign of readiness without systemd."""
    end = time.monotonic() + _READY
    while True:
        with contextlib.suppress(NoEngine):
            _tool("docker", f"--host=unix://{socket}", "version")
            return
        if process.poll() is not None or time.monotonic() > end:
            raise NoEngine(f"dockerd does not answer: {log.read_text()[-2000:]}")
        time.sleep(0.1)


def _bundle(folder: Path, spec: object) -> Path:
    """A new OCI bundle below a folder."""
    made = folder / uuid.uuid4().hex[:8]
    made.mkdir(parents=True)
    (made / "config.json").write_text(json.dumps(spec))
    return made


@dataclass(frozen=True)
class Runtime:
    """An OCI runtime without a daemon: the same confinement made by hand."""

    folder: Path
    root: Path
    manner: Manner
    name: str = "crun"

    def argv(self, one: Container, checkout: Path, words: Sequence[str]) -> list[str]:
        """`crun run` of a new bundle."""
        bundle = _bundle(self.folder, oci(one, self.manner, self.root, checkout, list(words)))
        own = ["--cgroup-manager=disabled", f"--root={self.folder}/state"]
        return [
            *_APART,
            "sh",
            "-c",
            f'{_HIDE}; exec "$@"',
            "sh",
            "crun",
            *own,
            "run",
            f"--bundle={bundle}",
            f"test-{bundle.name}",
        ]


_ENTER = f"""\
{_HIDE}
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/subid" /etc/subuid
mount --bind "$1/subid" /etc/subgid
shift
exec "$@"
"""
"""In a mount namespace of its own: the user and the numbers that it has there, without editing this machine's files."""
_PROCESSES = 10000
"""For root's podman: its own limit is higher than what root without CAP_SYS_RESOURCE may set."""
ROOTLESS = 1000
"""Who runs rootless podman."""
OF_ROOTLESS = ((0, ROOTLESS, 1), (1, 100000, 65536))
"""How users of its containers are numbered on this machine: (first inside, first outside, how many)."""


def mapped(user: int) -> int:
    """The number that this machine has for a user in rootless podman."""
    return next(outside + user - inside for inside, outside, size in OF_ROOTLESS if 0 <= user - inside < size)


@dataclass(frozen=True)
class Podman:
    """podman with its own folders, run by root or by an ordinary user; state in `folder`."""

    folder: Path
    user: int

    @property
    def name(self) -> str:
        """For messages."""
        return "rootless podman" if self.user else "rootful podman"

    def tool(self, *words: str) -> list[str]:
        """A podman command line."""
        enter = ["unshare", "--mount", "sh", "-e", "-c", _ENTER, "sh", str(self.folder)]
        become = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"] if self.user else []
        clean = ["env", "-i", f"PATH={PATH}", f"HOME={self.folder}/home", f"XDG_RUNTIME_DIR={self.folder}/run"]
        own = [
            f"--root={self.folder}/home/data",
            f"--runroot={self.folder}/run/data",
            f"--tmpdir={self.folder}/run/tmp",
        ]
        own += ["--runtime=crun", "--cgroup-manager=cgroupfs", "--storage-driver=overlay", "--events-backend=none"]
        return [*enter, *become, *clean, "podman", *own, *words]

    def argv(self, one: Container, checkout: Path, words: Sequence[str]) -> list[str]:
        """`podman run`."""
        return self.tool("run", "--cgroups=disabled", *self._limits(one), *engine_words(one, checkout), IMAGE, *words)

    def _limits(self, one: Container) -> list[str]:
        """For root limits that this machine's root may set without CAP_SYS_RESOURCE, which not every machine has."""
        if self.user:
            return []
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        given = [] if one.files else [f"--ulimit=nofile={files}:{files}"]
        return [*given, f"--ulimit=nproc={_PROCESSES}:{_PROCESSES}"]


@contextlib.contextmanager
def podman(folder: Path, image: Path, user: int) -> Iterator[Podman]:
    """Import the image (a tar file) into a store of its own; everything is removed at the end."""
    if os.geteuid() != 0:
        raise NoEngine("podman: these tests start it as root, for a user of their own")
    folder.mkdir()
    (folder / "passwd").write_text(
        f"root:x:0:0::/root:/bin/sh\ntester:x:{ROOTLESS}:{ROOTLESS}::{folder}/home:/bin/sh\n"
    )
    (folder / "subid").write_text("tester:100000:65536\n")
    for name in ("home", "run"):
        (folder / name).mkdir(mode=0o700)
        os.chown(folder / name, user, user)
    one = Podman(folder, user)
    try:
        _tool(*one.tool("import", str(image), IMAGE))
        yield one
        _tool(*one.tool("system", "reset", "--force"))
    finally:
        for pid in folder.rglob("pause.pid"):
            os.kill(int(pid.read_text()), signal.SIGTERM)


@dataclass(frozen=True)
class Gvisor:
    """The built runsc: containers inside its sandbox."""

    folder: Path
    root: Path
    runsc: Path
    name: str = "gVisor"

    def argv(self, one: Container, checkout: Path, words: Sequence[str]) -> list[str]:
        """`runsc run` of a new bundle."""
        bundle = _bundle(self.folder, oci(one, DOCKER, self.root, checkout, list(words)))
        return Sandbox(self.runsc, self.folder, f"test-{bundle.name}").run(bundle, os.getpid())

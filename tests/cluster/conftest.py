"""Real boots: they need what `./do build` makes, in outputs/result."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sandkube.cluster import linux, ports, start, stop
from sandkube.cluster.configured import configure
from sandkube.cluster.place import Place, State, all_places, place
from sandkube.cluster.pod import Kubectl
from sandkube.cluster.programs import Programs, maker
from sandkube.cluster.programs import sandbox as sandbox_of
from sandkube.cluster.sandbox import KINDS
from sandkube.errors import UserError
from sandkube.run import base_environment
from tests.clones import Clone
from tests.small import let_in

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Cluster:
    """A started cluster and the events of its start."""

    place: Place
    kubectl: Kubectl
    events: list[dict[str, Any]]

    @property
    def state(self) -> State:
        """As it is recorded now."""
        state = self.place.read()
        assert state is not None
        return state


@pytest.fixture(scope="session")
def programs(here: Clone) -> Programs:  # noqa: ARG001
    """What was built last."""
    result = ROOT / "outputs/result"
    made = Programs(
        runsc=(result / "gvisor/bin/runsc").resolve(),
        bundle=(result / "bundle").resolve(),
        kubectl=(result / "kubectl/bin/kubectl").resolve(),
    )
    for path in (made.runsc, made.bundle, made.kubectl):
        if not path.exists():
            pytest.fail(f"{path} is missing: run ./do build first", pytrace=False)
    return made


def boot(one: Place, programs: Programs, *, keep: bool = False) -> Cluster:
    """Start a cluster."""
    with one.lock():
        events = list(start.start(one, programs, keep=keep))
    return Cluster(one, Kubectl(programs.kubectl, one), events)


def inside(cluster: Cluster, script: str, stdin: str = "", timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a script in the node's own root and network."""
    return subprocess.run(
        sandbox_of(cluster.place, cluster.state.container).execute(["sh", "-c", script]),
        env=base_environment(Path("/root")),
        capture_output=True,
        text=True,
        input=stdin,
        timeout=timeout,
    )


def processes(cluster: Cluster, module: str) -> list[int]:
    """Those of a module of ours that work for a cluster."""
    words = [b"-m", module.encode(), bytes(cluster.place.folder)]
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (each / "cmdline").read_bytes().split(b"\0")[1:4] == words:
                found.append(int(each.name))
    return found


def got(cluster: Cluster, *words: str) -> Any:
    """What `kubectl get` finds."""
    return json.loads(cluster.kubectl("get", *words, "--output=json").stdout)


def api_through_a_port(one: Place) -> str:
    """What the API's Service answers to plain HTTP, at a port of this machine that the supervisor is asked for."""
    made = ports.ask(one, ports.Port("127.0.0.1", 0, "tcp", "10.96.0.1:443", "the API's Service"))
    with socket.create_connection((made.address, made.port), timeout=60) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return client.recv(4096).decode().splitlines()[0]


def ordinary_python() -> str:
    """A Python that the user nobody may run; this one may be below a home that is closed to others."""
    for each in (sys.executable, "/usr/bin/python3"):
        code = "import sys; sys.exit(sys.version_info < (3, 11))"
        with_user = {"user": "nobody", "cwd": "/", "capture_output": True}
        try:
            if subprocess.run([each, "-c", code], **with_user).returncode == 0:  # type: ignore[call-overload]
                return each
        except OSError:
            continue
    pytest.skip("there is no Python 3.11 that the user nobody may run")


def as_nobody(script: str, made: Programs, folders: pytest.TempPathFactory, *more: str) -> str:
    """What a script says, run by the user nobody with this checkout, programs, a folder and a kind."""
    base = folders.mktemp("ordinary")
    let_in(base)
    os.chown(base, 65534, 65534)
    words = [str(each) for each in (ROOT, made.runsc, made.bundle, made.kubectl, base, made.kind)]
    done = subprocess.run(
        [ordinary_python(), "-c", script, *words, *more],
        user=65534,
        group=65534,
        extra_groups=[],
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def outputs(tmp_path: Path) -> Iterator[Path]:
    """A folder for clusters of one test; its path is longer than a socket's may be."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    yield folder
    for one in all_places(folder):
        stop.stop(one)


def of_kind(programs: Programs, kind: str) -> Programs:
    """The same node in another kind of sandbox. Skips where this machine has not what `linux` needs."""
    made = replace(programs, kind=kind, runsc=maker(kind, lambda name: ROOT / "outputs/result" / name).resolve())
    if KINDS[kind].native:
        try:
            linux.check()
            linux.try_out(made.runsc)
        except UserError as error:
            pytest.skip(f"{error.message}; {error.hint}")
    return made


def bounded(programs: Programs, **bounds: str | int) -> Programs:
    """The same with a bound on all of a cluster."""
    return replace(programs, configured=configure(None, {"sandbox": bounds}, str))


GVISOR = [kind for kind in KINDS if not KINDS[kind].native]
SHARED = [kind for kind in GVISOR if not KINDS[kind].confined]  # those have tests of their own, in containers too


@pytest.fixture(scope="session", params=SHARED)
def cluster(
    request: pytest.FixtureRequest, programs: Programs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """One cluster of each kind for all tests that leave it as it is."""
    one = place(tmp_path_factory.mktemp("outputs"), "shared")
    try:
        yield boot(one, of_kind(programs, request.param))
    finally:
        if one.folder.exists():
            stop.stop(one)

"""What is measured side by side: our cluster, and two that are made of the same Kubernetes' own programs.

*bare*: kube-apiserver and etcd with the arguments, and asked in the way, of controller-runtime's envtest.
*kwok*: a cluster of kwokctl, in which one made-up node runs made-up pods.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.built import product
from sandkube.cluster import linux, stop
from sandkube.cluster.place import place
from sandkube.cluster.pod import POD, Kubectl
from sandkube.cluster.processes import end_or_kill, memory_of, opened, tree_of
from sandkube.errors import UserError
from tests.api import Api, Said
from tests.certificates import certificates
from tests.clones import ROOT

NAME = "bench-figures"
PATIENCE = 180.0
MOMENT = 0.01
READY, WHOLE, RUNNING = "ready", "whole", "pod Running"
"""Stages: `whole` is, of the bare control plane, its first good answer, and of kwok, that the node is Ready."""
PODS = "/api/v1/namespaces/default/pods"
NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "made-up"}}


@dataclass(frozen=True)
class Booted:
    """One that is up: seconds from the command to each stage, its processes' first ones, and a client if pods run."""

    stages: Mapping[str, float]
    roots: tuple[int, ...]
    kubectl: Callable[..., Said] | None = None
    folder: Path | None = None
    """Of our cluster; a sandbox of the kind `linux` has memory that no process has."""

    def memory(self) -> int:
        """Bytes that it takes, as `./do status` counts them."""
        return sum(map(memory_of, self.roots)) + (linux.memory_of(self.folder) if self.folder else 0)

    def cpu(self) -> float:
        """Seconds of CPU time that its processes took, those that ended and were waited for among them."""
        return sum(spent(pid) for root in self.roots for pid in tree_of(root))


def spent(pid: int) -> float:
    """User and system time of a process and of its children that it waited for, in seconds (proc(5), stat)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Clock:
    """Seconds from a command to each stage."""

    began: float = field(default_factory=time.monotonic)
    stages: dict[str, float] = field(default_factory=dict)

    def note(self, stage: str) -> None:
        """It is reached now."""
        self.stages[stage] = time.monotonic() - self.began

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait for it, and note it. Raises UserError."""
        while not holds():
            if time.monotonic() > self.began + PATIENCE:
                raise UserError(f"bench: {what}: not within {PATIENCE:.0f} s")
            time.sleep(MOMENT)
        self.note(what)


Enter = Callable[..., Sequence[str]]
"""A command line from a command's words, as `tests.quota.Quota.argv` is one."""


def as_it_is(*words: str) -> Sequence[str]:
    """No bound."""
    return words


@contextmanager
def ours(enter: Enter = as_it_is, without: Sequence[str] = ()) -> Iterator[Booted]:
    """`./do run-cluster`, with nothing to build, without some parts; each stage when the command has told it."""
    one = place(ROOT / "outputs", NAME)
    clock = Clock()
    try:
        words = ("./do", "run-cluster", "--json", "--name", NAME, *(f"--disable={each}" for each in without))
        with subprocess.Popen(enter(*words), cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for line in process.stdout:
                event = json.loads(line)
                if event["event"] == "stage-reached":
                    clock.note(event["stage"])
                    clock.note(WHOLE)
                elif event["event"] == "pod-running":
                    clock.note(RUNNING)
        state = one.running()
        if process.returncode or state is None:
            raise UserError(f"bench: run-cluster ended with status {process.returncode}")
        yield Booted(clock.stages, (state.pid,), Kubectl(product("kubectl/bin/kubectl"), one), one.folder)
    finally:
        if one.folder.exists():
            stop.stop(one)


def _port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _answers(connect: Callable[[], http.client.HTTPConnection], path: str, *processes: subprocess.Popen[bytes]) -> bool:
    if ended := next((each for each in processes if each.poll() is not None), None):
        raise UserError(f"bench: {ended.args!r} ended with status {ended.returncode}")
    try:
        with closing(connect()) as connection:
            connection.request("GET", path)
            return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False


def _etcd(folder: Path, url: str) -> list[str]:
    return [
        str(product("etcd/bin/etcd")),
        f"--listen-peer-urls=http://127.0.0.1:{_port()}",
        f"--data-dir={folder / 'data'}",
        f"--advertise-client-urls={url}",
        f"--listen-client-urls={url}",
        "--unsafe-no-fsync=true",
    ]


def _apiserver(folder: Path, etcd: str, port: int) -> list[str]:
    serving, accounts = certificates(folder / "serving"), certificates(folder / "accounts")
    return [
        str(product("kubernetes-plain/bin/kube-apiserver")),
        f"--etcd-servers={etcd}",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--allow-privileged=true",
        "--disable-admission-plugins=ServiceAccount",
        "--authorization-mode=RBAC",
        f"--cert-dir={folder / 'serving'}",
        f"--tls-cert-file={serving.server}",
        f"--tls-private-key-file={serving.key}",
        f"--client-ca-file={serving.authority}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--service-account-issuer=https://127.0.0.1:{port}/",
        f"--service-account-key-file={accounts.server}",
        f"--service-account-signing-key-file={accounts.key}",
    ]


@contextmanager
def _started(argv: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen(argv, env={"PATH": "/usr/bin:/bin"}, stdout=file, stderr=file)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@contextmanager
def bare(enter: Enter = as_it_is) -> Iterator[Booted]:
    """etcd, then the API server, in a folder of their own: from before their certificates to the first good answer."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    with tempfile.TemporaryDirectory(prefix="bare-") as name, ExitStack() as stack:
        folder, clock = Path(name), Clock()
        port, client = _port(), _port()
        url = f"http://127.0.0.1:{client}"
        etcd = stack.enter_context(_started(enter(*_etcd(folder, url)), folder / "etcd.log"))
        clock.until(
            "datastore", lambda: _answers(lambda: http.client.HTTPConnection("127.0.0.1", client), "/health", etcd)
        )
        argv = enter(*_apiserver(folder, url, port))
        apiserver = stack.enter_context(_started(argv, folder / "apiserver.log"))
        clock.until(
            "first answer",
            lambda: _answers(
                lambda: http.client.HTTPSConnection("127.0.0.1", port, context=trusting), "/readyz", etcd, apiserver
            ),
        )
        clock.note(WHOLE)
        yield Booted(clock.stages, (etcd.pid, apiserver.pid))


@dataclass(frozen=True)
class Client:
    """kubectl with a kubeconfig."""

    kubeconfig: Path

    def __call__(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        """Run it."""
        argv = [str(product("kubectl/bin/kubectl")), f"--kubeconfig={self.kubeconfig}", *words]
        return subprocess.run(argv, env={"HOME": str(self.kubeconfig.parent)}, check=True, stdout=subprocess.PIPE)


def _kwokctl(folder: Path, *words: str) -> tuple[list[str], dict[str, str]]:
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "KWOK_WORKDIR": str(folder / "kwok"),
        "KWOK_KUBECTL_BINARY": str(product("kubectl/bin/kubectl")),
    }
    return [str(product("kwok/bin/kwokctl")), *words, "--name=bench"], environment


def _create(folder: Path, kubeconfig: Path) -> tuple[list[str], dict[str, str]]:
    plain = {each: f"kubernetes-plain/bin/{each}" for each in ("kube-apiserver", "kube-controller-manager")}
    plain["kube-scheduler"] = "kubernetes-plain/bin/kube-scheduler"
    programs = plain | {"etcd": "etcd/bin/etcd", "kwok-controller": "kwok/bin/kwok"}
    options = [f"--{name}-binary={product(path)}" for name, path in programs.items()]
    return _kwokctl(
        folder, "create", "cluster", "--runtime=binary", f"--kubeconfig={kubeconfig}", "--quiet-pull", *options
    )


def _pids(folder: Path) -> tuple[int, ...]:
    return tuple(int(each.read_text()) for each in sorted(folder.glob("kwok/clusters/bench/pids/*.pid")))


def _delete(folder: Path) -> None:
    """By kwokctl; what runs on after that is ended."""
    left = _pids(folder)
    argv, environment = _kwokctl(folder, "delete", "cluster")
    subprocess.run(argv, env=environment, check=False, capture_output=True)
    for pid in left:
        with opened(pid, lambda pid=pid: str(folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()) as process:  # type: ignore[misc]
            if process is not None:
                end_or_kill(process, 5)


def _make_pod(api: Api, clock: Clock) -> None:
    def served() -> bool:
        return api.get_status("/api/v1/namespaces/default/serviceaccounts/default") == 200

    def ready() -> bool:
        conditions = api("GET", "/api/v1/nodes/made-up").get("status", {}).get("conditions", [])
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    api("POST", "/api/v1/nodes", NODE)
    clock.until(READY, ready)
    clock.note(WHOLE)
    clock.until("accounts", served)
    api("POST", PODS, POD)
    path = f"{PODS}/{POD['metadata']['name']}"
    clock.until(RUNNING, lambda: api("GET", path)["status"].get("phase") == "Running")


@contextmanager
def kwok(enter: Enter = as_it_is) -> Iterator[Booted]:
    """`kwokctl create cluster`, then a node and a pod: nothing of it runs."""
    with tempfile.TemporaryDirectory(prefix="kwok-") as name:
        folder, clock = Path(name), Clock()
        kubeconfig = folder / "kubeconfig"
        argv, environment = _create(folder, kubeconfig)
        try:
            done = subprocess.run(enter(*argv), env=environment, check=False, capture_output=True, text=True)
            if done.returncode:
                raise UserError(f"bench: kwokctl: {done.stderr.strip()}")
            clock.note("kwokctl")
            with closing(Api(Client(kubeconfig))) as api:
                _make_pod(api, clock)
            yield Booted(clock.stages, _pids(folder), Client(kubeconfig))
        finally:
            _delete(folder)

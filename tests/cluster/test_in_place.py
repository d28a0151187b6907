"""The exported archive, started inside sandboxes with nothing but its own script."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandkube.cluster.place import Place
from sandkube.cluster.pod import NAME, POD
from sandkube.cluster.programs import Programs, bundle
from sandkube.cluster.sandbox import KINDS, Sandbox
from sandkube.run import base_environment
from tests import confinement
from tests.cluster.conftest import ROOT, SHARED, of_kind

SCRIPT = "/opt/sandkube-node/sandkube"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system with a shell and the unpacked archive, nothing else."""
    folder = tmp_path_factory.mktemp("export")
    archive = folder / "node.tar.gz"
    subprocess.run(["./do", "export-node", str(archive)], cwd=ROOT, check=True)
    root = folder / "root"
    for name in ("bin", "dev", "opt", "proc", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(ROOT / "outputs/result/busybox/bin/busybox", root / "bin")
    for applet in ("sh", "sleep"):
        (root / "bin" / applet).symlink_to("busybox")
    subprocess.run(["tar", "xzf", archive, "-C", root / "opt"], check=True)
    archive.unlink()
    return root


@dataclass(frozen=True)
class Guest:
    """A sandbox that somebody else started: its first process sleeps."""

    sandbox: Sandbox
    root: Path

    def __call__(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command in it."""
        return subprocess.run(
            self.sandbox.execute(words),
            env=base_environment(Path("/root")),
            capture_output=True,
            text=True,
            input=stdin,
            timeout=120,
        )


def guest_of(kind: str, programs: Programs, unpacked: Path, tmp_path: Path, *, locked: bool) -> Iterator[Guest]:
    """A sandbox of a kind; `locked`: its root has the default capabilities only."""
    if KINDS[kind].copied:
        unpacked = Path(shutil.copytree(unpacked, tmp_path / "root", symlinks=True))
    place = Place(tmp_path / "guest")
    place.folder.mkdir()
    place.runsc.mkdir()
    made = of_kind(programs, kind)
    made.prepare(place)
    config = bundle(place) / "config.json"
    spec = json.loads(config.read_text())
    spec["root"]["path"] = str(unpacked)
    spec["hostname"] = "somewhere"
    spec["process"]["args"] = ["/bin/sh", "-c", "echo up; exec sleep 2147483647"]
    for held in spec["process"]["capabilities"].values():
        held[:] = [f"CAP_{each}" for each in confinement.CAPABILITIES] if locked else held
    config.write_text(json.dumps(spec))
    sandbox = Sandbox(made.runsc, place.runsc, f"guest-{os.getpid()}", kind)
    process = subprocess.Popen(
        sandbox.run(bundle(place), os.getpid()),
        env=base_environment(Path("/root")),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    yield Guest(sandbox, unpacked)
    process.kill()
    process.wait()
    process.stdout.close()


PLAIN = [kind for kind in SHARED if not KINDS[kind].copied]


@pytest.fixture(params=[*SHARED, *(f"{kind}, locked" for kind in PLAIN)])
def guest(request: pytest.FixtureRequest, programs: Programs, unpacked: Path, tmp_path: Path) -> Iterator[Guest]:
    kind, _, locked = request.param.partition(", ")
    yield from guest_of(kind, programs, unpacked, tmp_path, locked=bool(locked))


@pytest.fixture(params=PLAIN)
def locked(request: pytest.FixtureRequest, programs: Programs, unpacked: Path, tmp_path: Path) -> Iterator[Guest]:
    yield from guest_of(request.param, programs, unpacked, tmp_path, locked=True)


def is_in_a_network_of_its_own(guest: Guest) -> None:
    assert guest("/bin/busybox", "ip", "-4", "addr").stdout.count("inet ") == 1, "no address of it is in this network"
    assert guest("/bin/busybox", "nc", "-w", "2", "10.88.0.1", "6443").returncode != 0


@pytest.mark.parametrize("guest", ["modern, locked"], indirect=True)
def test_data_that_stay(guest: Guest) -> None:
    """They are in a folder of the sandbox: after an end in order, and after the node's processes were killed."""

    def do(*words: str) -> str:
        done = guest(SCRIPT, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    start = ("start", "--data=/tmp/new/data")
    do(*start)
    kubeconfig = guest("/bin/busybox", "cat", "/opt/sandkube-node/state/kubeconfig").stdout
    do("kubectl", "create", "configmap", "one")
    assert do("stop") == "the node is stopped\n"
    assert guest("/bin/busybox", "stat", "-c%s", "/tmp/new/data/db/state.db-wal").stdout == "0\n"
    do(*start)
    assert guest("/bin/busybox", "cat", "/opt/sandkube-node/state/kubeconfig").stdout == kubeconfig
    do("kubectl", "create", "configmap", "two")
    kill(guest, "pid")
    do(*start)
    assert do("kubectl", "get", "configmap", "one", "two", "--output=name") == "configmap/one\nconfigmap/two\n"
    do("stop", "--now")


def test_the_archive_goes_in_and_kubectl_answers(guest: Guest) -> None:
    started = guest(SCRIPT, "start")
    assert started.returncode == 0, started.stderr
    assert "the node is ready\n" in started.stdout
    assert guest(SCRIPT, "status").returncode == 0
    assert guest("/bin/sh", "-c", f"ln -s {SCRIPT} /tmp/link && CDPATH=/:/tmp /tmp/link status").returncode == 0
    again = guest(SCRIPT, "start")
    assert (again.returncode, "runs already" in again.stderr) == (1, True)

    def kubectl(*words: str, stdin: str = "") -> str:
        done = guest(SCRIPT, "kubectl", *words, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    kubectl("apply", "--filename=-", stdin=json.dumps(POD))
    kubectl("wait", f"pod/{NAME}", "--for=condition=Ready", "--timeout=60s")
    line = next(line.split() for line in kubectl("get", "pods", "--output=wide").splitlines() if line.startswith(NAME))
    assert (line[1:3], line[5][:8], line[6]) == (["1/1", "Running"], "10.88.0.", "runsc")
    assert kubectl("logs", NAME) == "ready\n"
    kubectl("label", "pod", NAME, "app=web")
    kubectl("expose", "pod", NAME, "--name=web", "--port=80", "--target-port=8080")
    serve = "mkdir /w; echo page >/w/index.html; httpd -p 8080 -h /w"
    fetch = "until wget -q -O- http://web.default.svc.cluster.local/ 2>/dev/null; do sleep 0.1; done"
    assert kubectl("exec", NAME, "--", "timeout", "30", "sh", "-c", f"{serve}; {fetch}") == "page\n"
    kubectl("apply", "--filename=-", stdin=json.dumps(POD | {"metadata": {"name": "other"}}))
    kubectl("wait", "pod/other", "--for=condition=Ready", "--timeout=60s")
    for where in ("web.default.svc.cluster.local", f"{line[5]}:8080"):
        assert kubectl("exec", "other", "--", "wget", "-q", "-O-", f"http://{where}/") == "page\n"
    kubeconfig = "KUBECONFIG=/opt/sandkube-node/state/kubeconfig /opt/sandkube-node/rootfs/usr/bin/kubectl"
    assert guest("/bin/sh", "-c", f"{kubeconfig} get --raw=/livez/ping").stdout == "ok"
    assert "10.96.0.1" in kubectl("exec", NAME, "--", "nslookup", "kubernetes.default.svc.cluster.local")
    assert guest(SCRIPT, "shell", "/bin/sh", "-c", "ls /usr/bin/sandkube-node").stdout == "/usr/bin/sandkube-node\n"
    is_in_a_network_of_its_own(guest)

    stopped = guest(SCRIPT, "stop")
    assert (stopped.returncode, stopped.stdout) == (0, "the node is stopped\n"), stopped.stderr
    left = guest("/bin/busybox", "ps", "-o", "stat,args").stdout.splitlines()
    assert not [line for line in left if "sandkube" in line or "containerd" in line if not line.startswith("Z")], left
    assert "10." not in guest("/bin/busybox", "ip", "-4", "addr", "show", "dev", "lo").stdout
    assert "rootfs" not in guest("/bin/busybox", "mount").stdout
    assert guest("/bin/busybox", "find", "/sys/fs/cgroup", "-name", "kubepods").stdout == ""
    assert guest(SCRIPT, "stop").returncode == 1

    assert guest(SCRIPT, "start").returncode == 0, "once more, on what the first run left"
    assert "runsc" in kubectl("get", "nodes")


def test_a_failure_is_told(guest: Guest) -> None:
    failed = guest(SCRIPT, "start", "--fix", "pause-image=on", "--fix", "kernel-settings=off")
    assert failed.returncode == 1
    assert "kubelet" in failed.stderr
    assert "fix `kernel-settings` is off" in failed.stderr
    assert "10." not in guest("/bin/busybox", "ip", "-4", "addr", "show", "dev", "lo").stdout


@pytest.mark.parametrize("guest", ["modern"], indirect=True)
def test_pods_have_no_way_out(guest: Guest) -> None:
    """Where the network does not forward, that is said at once."""
    guest("/bin/sh", "-c", """echo '{"egress": {"enabled": true}}' >/opt/sandkube-node/settings.json""")
    failed = guest(SCRIPT, "start")
    assert failed.returncode == 1
    assert "pods can have no way out: the network of this sandbox does not forward" in failed.stderr


@pytest.mark.parametrize("guest", ["modern"], indirect=True)
def test_of_two_starts_at_once_one_boots(guest: Guest) -> None:
    both = f"for each in 1 2; do {SCRIPT} start >/tmp/said.$each 2>&1 & done; wait; cat /tmp/said.1 /tmp/said.2"
    said = guest("/bin/sh", "-c", both).stdout
    assert said.count("the node is ready\n") == 1, said
    assert said.count("sandkube: the node starts already\n") == 1, said
    assert guest(SCRIPT, "status").returncode == 0


def with_a_pod(guest: Guest) -> None:
    assert guest(SCRIPT, "start").returncode == 0
    assert guest(SCRIPT, "kubectl", "apply", "--filename=-", stdin=json.dumps(POD)).returncode == 0
    wait = guest(SCRIPT, "kubectl", "wait", f"pod/{NAME}", "--for=condition=Ready", "--timeout=60s")
    assert wait.returncode == 0, wait.stderr


def processes(guest: Guest, *, of: tuple[str, ...] = ("sandkube", "containerd", "/pause", "httpd")) -> list[str]:
    shown = guest("/bin/busybox", "ps", "-o", "stat,args").stdout.splitlines()
    return [line for line in shown if not line.startswith("Z") and any(word in line for word in of)]


def kill(guest: Guest, which: str) -> None:
    """End the node, or the process beside it; when this returns all that came of both has ended."""
    assert (
        guest(
            "/bin/sh", "-c", f'read -r pid rest </opt/sandkube-node/state/{which}; /bin/busybox kill -KILL "$pid"'
        ).stderr
        == ""
    )
    for _ in range(100):
        if not processes(guest, of=("sandkube", "containerd", "/pause", "httpd", "userns")):
            return
        time.sleep(0.1)  # nothing tells of the end of a process that is not a child
    raise AssertionError(processes(guest))


@pytest.mark.parametrize("guest", ["modern", "modern, locked"], indirect=True)
def test_nothing_is_left_of_a_killed_node(guest: Guest) -> None:
    """What the kernel does not take away is taken away by the process beside it, or by the next start, or by stop."""
    with_a_pod(guest)
    kill(guest, "first")
    assert guest("/bin/busybox", "find", "/sys/fs/cgroup", "-name", "kubepods").stdout == ""
    asked = json.dumps({"cluster": {"pods": "10.77.0.0/24", "services": "10.78.0.0/16", "api-port": 7443}})
    guest("/bin/sh", "-c", f"echo '{asked}' >/opt/sandkube-node/settings.json")
    started = guest(SCRIPT, "start")
    assert (started.returncode, started.stderr) == (0, "")
    with_a_second = guest(SCRIPT, "kubectl", "get", "pods")
    assert with_a_second.stderr == "No resources found in default namespace.\n"
    kill(guest, "pid")
    stopped = guest(SCRIPT, "stop")
    assert (stopped.returncode, stopped.stdout) == (0, "the node was killed, and what it left is removed\n")
    assert guest("/bin/busybox", "find", "/sys/fs/cgroup", "-name", "kubepods").stdout == ""
    assert "10." not in guest("/bin/busybox", "ip", "-4", "addr", "show", "dev", "lo").stdout
    assert guest(SCRIPT, "stop").stderr == "sandkube: the node does not run\n"


@pytest.mark.parametrize("guest", ["modern", "legacy"], indirect=True)
def test_a_kubelet_that_exits_says_why(guest: Guest) -> None:
    """It calls os.Exit where it cannot listen; in `legacy` it runs under the interceptor, in a process of its own."""
    template = "/opt/sandkube-node/rootfs/etc/sandkube/kubelet.yaml"
    guest("/bin/busybox", "sed", "-i", "s/^address: .*/address: 10.99.0.1/", template)
    started = guest(SCRIPT, "start")
    assert started.returncode == 1
    why = r'"Failed to listen and serve" err="listen tcp 10\.99\.0\.1:10250: bind: .*"'
    assert re.search(rf"^  \| kubelet\tE.*{why}$", started.stderr, re.MULTILINE), started.stderr
    assert re.search(rf"^sandkube: failed: kubelet: it exited with status 1: {why}$", started.stderr, re.MULTILINE)


def test_a_second_node_leaves_the_first_alone(guest: Guest) -> None:
    """From another folder, with a space in its name: it fails at the port, and takes nothing away."""
    other = "/opt/another folder"
    assert guest("/bin/busybox", "cp", "-r", str(Path(SCRIPT).parent), other).returncode == 0
    assert guest(SCRIPT, "start").returncode == 0
    second = guest(f"{other}/sandkube", "start")
    assert second.returncode == 1
    assert "127.0.0.1:6443: Address in use" in second.stderr
    nodes = guest(SCRIPT, "kubectl", "get", "nodes")
    assert "runsc   Ready" in nodes.stdout, nodes.stderr
    said = guest(SCRIPT, "shell", "nslookup", "kubernetes.default.svc.cluster.local", "10.96.0.10").stdout
    assert "10.96.0.1" in said
    assert guest(SCRIPT, "stop").returncode == 0
    assert guest(f"{other}/sandkube", "start").returncode == 0


def test_a_port_that_somebody_has_is_told(guest: Guest) -> None:
    assert guest("/bin/sh", "-c", "/bin/busybox httpd -p 127.0.0.1:6443 -h /tmp").returncode == 0
    started = guest(SCRIPT, "start")
    assert started.returncode == 1
    assert re.search("127.0.0.1:6443: (bind: a|A)ddress (already )?in use", started.stderr), started.stderr


def test_without_a_node_kubectl_asks_nobody(guest: Guest) -> None:
    done = guest(
        "/bin/sh", "-c", f"KUBERNETES_SERVICE_HOST=127.0.0.1 KUBERNETES_SERVICE_PORT=9 {SCRIPT} kubectl get pods"
    )
    assert (done.returncode, done.stderr) == (1, "sandkube: there is no node to ask: sandkube start boots one\n")


def test_doctor_inside(guest: Guest) -> None:
    said = guest(SCRIPT, "doctor").stdout
    assert "kernel-settings" in said
    assert len(said.splitlines()) < 30


def test_without_the_right_to_mount(locked: Guest) -> None:
    """What is chosen there, how it is told, and what becomes of a start without it."""
    said = json.loads(locked(SCRIPT, "doctor", "--json").stdout)
    (row,) = (each for each in said["fixes"] if each["name"] == "mount-right")
    assert (row["needed"], row["used"]) == (True, "user namespace")
    assert not [each for each in said["fixes"] if each["needed"] and each["used"] == "nothing"]
    failed = locked(SCRIPT, "start", "--fix", "mount-right=off")
    assert failed.returncode == 1
    assert failed.stderr.startswith("sandkube: a node in place cannot be here: no mount namespace: ")
    assert " (fix `mount-right` is off); in a container, " in failed.stderr
    assert locked(SCRIPT, "status").returncode == 1


def test_wrong_words_are_answered(guest: Guest) -> None:
    assert guest(SCRIPT, "nonsense").returncode == 2
    for words, text in (
        (["--bogus"], "unknown flag: --bogus"),
        (["extra"], 'a node takes no argument "extra"'),
        (["--fix", "nonsense"], "nonsense must be formatted as key=value"),
        (["--fix", "nonsense=on"], 'there is no fix "nonsense"; there are mount-right, '),
    ):
        done = guest(SCRIPT, "start", *words)
        assert (done.returncode, text in done.stderr) == (1, True), done.stderr
    assert "start" in guest(SCRIPT, "--help").stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="the sandbox shows this machine's files, and only root may read them all")
@pytest.mark.parametrize("locked", [False, True], ids=["root", "locked root"])
def test_from_a_checkout_inside(programs: Programs, tmp_path: Path, *, locked: bool) -> None:
    """This checkout in a sandbox: no second one can be started there, the tool says so, and runs the node in place."""
    for guest in guest_of("modern", programs, Path("/"), tmp_path, locked=locked):
        path = f"PATH={Path(sys.executable).resolve().parent}:/usr/bin:/bin HOME=/root"

        def do(*words: str, guest: Guest = guest, path: str = path) -> subprocess.CompletedProcess[str]:
            return guest("/bin/sh", "-c", f"cd {ROOT} && {path} ./do {' '.join(words)}")

        doctor = do("doctor")
        assert doctor.returncode == 0, doctor.stderr
        assert "no sandbox can be started here; this is about the place itself\n" in doctor.stderr
        assert re.search(rf"^mount-right +{'user namespace' if locked else 'nothing'} ", doctor.stdout, re.MULTILINE)
        refused = do("run-cluster", "--name", "inside")
        assert (refused.returncode, "the node runs in place: ./do run-cluster --in-place\n" in refused.stderr) == (
            1,
            True,
        )
        settings = "--node-name=there --pods=10.77.0.0/24 --services=10.78.0.0/16 --api-port=7443"
        started = do("run-cluster", "--in-place", "--name", "inside", settings)
        assert started.returncode == 0, started.stdout + started.stderr
        line = next(line.split() for line in started.stdout.splitlines() if line.startswith(NAME))
        assert (line[1:3], line[5][:8], line[6]) == (["1/1", "Running"], "10.77.0.", "there")
        (cluster,) = json.loads(do("status", "--json").stdout)
        assert (cluster["node"], cluster["address"]) == ("there", "https://127.0.0.1:7443")
        again = do("run-cluster", "--in-place", "--name", "inside", "--api-port=8443")
        assert "is running already, with those of options: the settings of options are others\n" in again.stderr
        assert do("kubectl", "--name", "inside", "--", "logs", NAME).stdout == "ready\n"
        assert do("shell-cluster", "--name", "inside", "hostname").returncode == 0
        exposed = do("expose", "kubernetes", "--name", "inside", "--background").stdout.strip()
        version = do("kubectl", "--name", "inside", "--", f"--server={exposed}", "get", "--raw=/version").stdout
        assert '"gitVersion"' in version
        assert do("stop-cluster", "--name", "inside").stderr == "cluster inside is stopped and gone\n"

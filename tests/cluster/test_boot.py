"""A cluster from boot to end: node, pod, access, several at once, every user, nothing left behind."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from pathlib import Path

import pytest

from sandkube.cluster import stop
from sandkube.cluster.place import place
from sandkube.cluster.pod import NAME, apply
from sandkube.cluster.processes import tree_of, with_words
from sandkube.cluster.programs import Programs
from sandkube.cluster.programs import sandbox as sandbox_of
from sandkube.cluster.status import row
from sandkube.run import base_environment
from tests.cluster.conftest import GVISOR, Cluster, as_nobody, boot, of_kind

ORDINARY = """\
import socket
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from sandkube.cluster import ports, start, stop
from sandkube.cluster.place import place
from sandkube.cluster.pod import NAME, Kubectl, apply
from sandkube.cluster.programs import Programs
from sandkube.cluster.status import row
runsc, bundle, kubectl, outputs = map(Path, sys.argv[2:6])
one = place(outputs, "ordinary")
with one.lock():
    for event in start.start(one, Programs(runsc, bundle, kubectl, sys.argv[6])):
        print(event)
ask = Kubectl(kubectl, one)
def say(what, *words):
    print(what, ask(*words).stdout.decode().split())
print(apply(ask, fresh=True))
say("logs", "logs", NAME)
say("exec", "exec", NAME, "--", "sh", "-c", "mkdir /w; echo page >/w/index.html; httpd -p 8080 -h /w; echo served")
ask("label", "pod", NAME, "app=web")
ask("expose", "pod", NAME, "--name=web", "--port=80", "--target-port=8080")
fetch = "until wget -q -O- http://web.default.svc.cluster.local/ 2>/dev/null; do sleep 0.1; done"
say("service", "exec", NAME, "--", "timeout", "30", "sh", "-c", fetch)
made = ports.ask(one, ports.Port("127.0.0.1", 0, "tcp", "10.96.0.1:443", "the API"))
with socket.create_connection((made.address, made.port), timeout=60) as client:
    client.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    print("port", client.recv(4096).decode().splitlines()[0].split())
print("memory", row(one).memory >> 20)
stop.stop(one)
print("left", [path.name for path in one.folder.parent.iterdir()])
"""


def mounts_below(folder: Path) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(folder) in line]


def test_the_node_is_ready_and_of_the_version(cluster: Cluster) -> None:
    (node,) = json.loads(cluster.kubectl("get", "nodes", "--output=json").stdout)["items"]
    assert node["metadata"]["name"] == "runsc"
    assert node["status"]["nodeInfo"]["kubeletVersion"] == "v1.34.2"
    assert {each["type"]: each["status"] for each in node["status"]["conditions"]}["Ready"] == "True"
    stages = [event["stage"] for event in cluster.events if event["type"] == "stage"]
    assert {"containerd", "apiserver", "ready"} <= set(stages)


def test_the_acceptance_pod_runs_and_is_kept(cluster: Cluster) -> None:
    first = apply(cluster.kubectl, fresh=False).splitlines()
    assert first[0].split()[:6] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP"]
    cells = first[1].split()
    assert cells[:4] == [NAME, "1/1", "Running", "0"]
    assert cells[5].startswith("10.88.0.")
    assert cells[6] == "runsc"
    assert apply(cluster.kubectl, fresh=False).splitlines()[1].split()[:4] == [NAME, "1/1", "Running", "0"]
    assert cluster.kubectl("logs", NAME).stdout == b"ready\n"
    assert cluster.kubectl("exec", NAME, "--", "echo", "hello").stdout == b"hello\n"


def test_the_api_is_on_loopback_with_its_own_certificate(cluster: Cluster) -> None:
    port = cluster.state.port
    assert f"server: https://127.0.0.1:{port}" in cluster.place.kubeconfig.read_text()
    assert cluster.place.kubeconfig.stat().st_mode & 0o777 == 0o600
    assert cluster.kubectl("get", "--raw=/livez/ping").stdout == b"ok"
    wanted = f"0100007F:{port:04X}"  # 127.0.0.1, proc(5) net/tcp
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines() if " 0A " in line]
    assert wanted in listening
    assert f"00000000:{port:04X}" not in listening


@pytest.mark.usefixtures("programs")
def test_a_shell_in_the_node(cluster: Cluster) -> None:
    sandbox = sandbox_of(cluster.place, cluster.state.container)
    done = subprocess.run(
        sandbox.execute(["/bin/sh", "-c", "hostname; id -u; cat; exit 7"]),
        env=base_environment(Path("/root")),
        input=b"through\n",
        capture_output=True,
    )
    assert (done.stdout, done.returncode) == (b"runsc\n0\nthrough\n", 7), done.stderr


def test_status_tells_memory_and_address(cluster: Cluster) -> None:
    mine = row(cluster.place)
    assert (mine.state, mine.node, mine.address) == ("running", "runsc", f"https://127.0.0.1:{cluster.state.port}")
    assert 100 << 20 < mine.memory < 2 << 30


def test_a_second_cluster_beside_the_first(cluster: Cluster, programs: Programs, outputs: Path) -> None:
    """Stopping it leaves nothing, and the first alone."""
    temporary = set(Path("/tmp").iterdir())
    second = boot(place(outputs, "second"), programs)
    assert second.state.port != cluster.state.port
    assert second.kubectl("get", "--raw=/livez/ping").stdout == b"ok"
    assert mounts_below(second.place.folder) == []
    stop.stop(second.place)
    assert list(with_words(f"--root={second.place.runsc}")) == []
    assert [path.name for path in outputs.rglob("*")] == ["clusters", ".second.lock"]
    assert not [path for path in set(Path("/tmp").iterdir()) - temporary if "runsc" in path.name]
    assert cluster.kubectl("get", "--raw=/livez/ping").stdout == b"ok"


def named(processes: list[int], word: bytes) -> int:
    """The process with this word on its command line."""
    return next(pid for pid in processes if word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))


@pytest.mark.parametrize(
    ("kind", "victim"),
    [
        ("modern", "supervisor"),
        ("modern", "runsc-sandbox"),
        ("confined", "supervisor"),
        ("confined", "run"),
        ("confined", "runsc-sandbox"),
        ("confined", "runsc-gofer"),
    ],
)
def test_after_a_kill_nothing_runs_and_it_starts_anew(
    programs: Programs, outputs: Path, kind: str, victim: str
) -> None:
    one = boot(place(outputs, "killed"), of_kind(programs, kind))
    processes = list(with_words(f"--root={one.place.runsc}"))
    assert len(processes) >= 4, "runsc run, its sandbox, its gofer, the forwarder"
    everything = [pid for pid in tree_of(one.state.pid) if pid != one.state.pid]
    descriptors = [os.pidfd_open(pid) for pid in (one.state.pid, *everything)]
    os.kill(one.state.pid if victim == "supervisor" else named(processes, victim.encode()), signal.SIGKILL)
    for descriptor in descriptors:
        assert select.select([descriptor], [], [], 20)[0]
        os.close(descriptor)
    mine = row(one.place)
    assert mine.state == ("killed" if victim == "supervisor" else "failed")
    if victim == "runsc-sandbox":
        assert mine.reason.startswith("sandbox: the sandbox ended (killed by signal 9;")
    again = boot(one.place, of_kind(programs, kind))
    assert again.kubectl("get", "--raw=/livez/ping").stdout == b"ok"


@pytest.mark.skipif(os.geteuid() != 0, reason="every test here is an ordinary user's already")
@pytest.mark.parametrize("kind", GVISOR)
def test_an_ordinary_user(programs: Programs, kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    lines = as_nobody(ORDINARY, of_kind(programs, kind), tmp_path_factory).splitlines()
    assert any(line.split()[:3] == [NAME, "1/1", "Running"] for line in lines)
    said = {line.split()[0]: line.partition(" ")[2] for line in lines if line.endswith("]")}
    assert {name: said[name] for name in ("logs", "exec", "service", "port")} == {
        "logs": "['ready']",
        "exec": "['served']",
        "service": "['page']",
        "port": "['HTTP/1.0', '400', 'Bad', 'Request']",
    }
    assert int(next(line.split()[1] for line in lines if line.startswith("memory"))) > 100
    assert lines[-1] == "left ['.ordinary.lock']"

"""containerd, or what serves pods' traffic, is killed inside the sandbox. Once: it is started again; pods and API go
on. Again and again: the node goes down, says so on the host, and leaves nothing running."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandkube.cluster import stop
from sandkube.cluster.place import Place, place
from sandkube.cluster.processes import with_words
from sandkube.cluster.programs import Programs
from sandkube.cluster.sandbox import Sandbox
from sandkube.run import base_environment
from tests.cluster.conftest import ROOT, Cluster, boot
from tests.cluster.test_boot import mounts_below
from tests.cluster.test_command_line import do

NAME = "test-death"
SAID = "signal: killed"
KILL = """
for end in $(seq "$1"); do
    while ! pid=$(pidof containerd); do :; done
    kill -KILL "$pid"
    while [ -d "/proc/$pid" ]; do :; done
done
"""
KILL_TRAFFIC = """
for each in /proc/[0-9]*; do
    [ "$(tr '\\0' ' ' <"$each/cmdline")" = "/usr/bin/sandkube-node traffic " ] && kill -KILL "${each#/proc/}"
done
"""
ASK = (
    "until nslookup -type=a kubernetes.default.svc.cluster.local && nc -w 5 10.96.0.1 443 </dev/null; "
    "do sleep 0.2; done"
)
ENDS = 5  # native/node/units: so many within two minutes are too many
PATIENCE = 30.0


def kill_containerd(one: Place, programs: Programs, times: int = ENDS) -> None:
    """Each time that it runs."""
    inside(one, programs, KILL, str(times))


def inside(one: Place, programs: Programs, script: str, *words: str) -> None:
    """From inside, as a crash would: nobody on the host touches anything."""
    state = one.read()
    assert state is not None
    sandbox = Sandbox(programs.runsc, one.runsc, state.container)
    subprocess.run(
        sandbox.execute(["/bin/sh", "-c", script, "sh", *words]),
        env=base_environment(Path("/root")),
        capture_output=True,
        timeout=PATIENCE,
        check=False,  # the sandbox may be gone before the command's own status comes out
    )


def last_lines(one: Place) -> list[str]:
    return (one.logs / "containerd.log").read_text().splitlines()


def check_nothing_runs(one: Place) -> None:
    """No process, no mount, no credentials; the logs and the state stay, to be read."""
    assert list(with_words(f"--root={one.runsc}")) == []
    assert list(with_words(stop.SUPERVISOR, str(one.folder))) == []
    assert mounts_below(one.folder) == []
    assert not one.kubeconfig.exists()
    state = one.read()
    assert state is not None
    assert (state.phase, state.port, state.alive()) == ("failed", 0, False)
    assert {path.name for path in one.runsc.rglob("*")} <= {"null-netns"}, "runsc left its state or a socket"


def container_of(cluster: Cluster, name: str) -> bytes:
    """The container of a pod that runs, or is made to."""
    if not cluster.kubectl("get", "pods", name, "--ignore-not-found").stdout:
        image = ["--image=sandkube.local/test:1", "--image-pull-policy=Never"]
        cluster.kubectl("run", name, *image, "--command", "--", "sleep", "100000")
    cluster.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s")
    return cluster.kubectl("get", "pods", name, "--output=jsonpath={.status.containerStatuses[*].containerID}").stdout


@pytest.fixture
def mine() -> Iterator[Place]:
    """A cluster of this checkout, as the commands see it; gone before and after."""
    one = place(ROOT / "outputs", NAME)

    def clear() -> None:
        if one.folder.exists():
            stop.stop(one)

    clear()
    try:
        yield one
    finally:
        clear()


def test_while_it_serves(programs: Programs, mine: Place) -> None:
    cluster: Cluster = boot(mine, programs)
    assert cluster.kubectl("get", "--raw=/livez/ping").stdout == b"ok"
    first = container_of(cluster, "first")
    kill_containerd(mine, programs, 1)
    assert container_of(cluster, "second") != container_of(cluster, "first") == first
    assert "containerd ended (signal: killed) and is started again" in last_lines(mine)
    inside(mine, programs, KILL_TRAFFIC)
    cluster.kubectl("exec", "first", "--", "timeout", "30", "sh", "-c", ASK)
    assert (mine.logs / "traffic.log").read_text() == "traffic ended (signal: killed) and is started again\n"
    processes = [cluster.state.pid, *with_words(f"--root={mine.runsc}")]
    assert len(processes) >= 4
    descriptors = [os.pidfd_open(pid) for pid in processes]
    kill_containerd(mine, programs)
    for descriptor in descriptors:
        assert select.select([descriptor], [], [], PATIENCE)[0], "a process of the cluster goes on"
        os.close(descriptor)
    check_nothing_runs(mine)
    said = do("status")
    (row,) = [line for line in said.out.splitlines() if line.startswith(f"{NAME} ")]
    assert row.split()[1] == "failed"
    assert f"{NAME}: containerd: {SAID}; ./do logs --name {NAME} lists its logs; " in said.err
    assert "containerd" in do("logs", "--name", NAME).out.splitlines()
    assert do("logs", "containerd", "--name", NAME, "--lines", "5").out.splitlines() == last_lines(mine)[-5:]
    assert do("kubectl", "--name", NAME, "--", "get", "nodes", status=1).err == (
        f"error: cluster {NAME} failed: containerd: {SAID}\n  hint: ./do run-cluster --name {NAME}\n"
    )
    again = boot(mine, programs)
    assert again.kubectl("get", "--raw=/livez/ping").stdout == b"ok"
    assert do("stop-cluster", "--name", NAME).err == f"cluster {NAME} is stopped and gone\n"
    assert not mine.folder.exists()


def test_while_it_starts(programs: Programs, mine: Place) -> None:
    """The command that waits for the node ends with the component, the reason, and the last lines of its log."""
    with subprocess.Popen(
        ["./do", "run-cluster", "--name", NAME], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line.rstrip("\n"))
            if line.split()[1:2] == ["containerd"]:
                kill_containerd(mine, programs)
        assert process.wait(PATIENCE) == 1, said
    at = said.index(f"error: cluster {NAME}: containerd failed: {SAID}")
    shown = [line.removeprefix("  | ") for line in said[at + 1 :] if line.startswith("  | ")]
    logged = last_lines(mine)
    assert 0 < len(shown) <= 20
    assert shown == logged[-len(shown) :]
    assert said[at + 1 + len(shown) :] == [
        f"  hint: ./do logs --name {NAME} containerd shows more; ./do run-cluster --name {NAME} starts it anew"
    ]
    check_nothing_runs(mine)
    assert "pod Running" not in "\n".join(said)
    assert do("stop-cluster", "--name", NAME).err == f"cluster {NAME} is stopped and gone\n"

"""A bound on all of a cluster, and a machine that has a quarter of a core for it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandkube.cluster import cgroups, stop
from sandkube.cluster.bound import Bound
from sandkube.cluster.cgroups import Need
from sandkube.cluster.place import place
from sandkube.cluster.pod import NAME, Kubectl, apply
from sandkube.cluster.processes import tree_of
from sandkube.cluster.programs import Programs
from sandkube.cluster.status import row
from sandkube.errors import UserError
from tests.cluster.conftest import ROOT, Cluster, boot, bounded, inside
from tests.cluster.test_hostile import create, pod

GIB = 1 << 30
AROUND = 160 << 20  # native/node/cluster: what a cluster takes beside what its own kernel knows of
LEFT = 50 << 20
MOST = "mkdir /tmp/most; while :; do i=$((i + 1)); dd if=/dev/zero of=/tmp/most/$i bs=1M count=50; done"
QUOTA = {
    "cpu": {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "25000"},
    "unified": {"cpu.max": "25000 100000"},
}
BOOT = """\
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from sandkube.cluster import start
from sandkube.cluster.place import place
from sandkube.cluster.programs import Programs
runsc, bundle, kubectl, outputs = map(Path, sys.argv[2:6])
one = place(outputs, "slow")
with one.lock():
    for event in start.start(one, Programs(runsc, bundle, kubectl)):
        print(event)
"""


def test_a_cluster_ends_at_its_bound(programs: Programs, outputs: Path) -> None:
    """The node knows of it, all of the cluster is in it, and whoever takes more ends that and nothing else."""
    try:
        Bound(GIB, 3000).check(native=False)
    except UserError as error:
        pytest.skip(f"{error.message}; {error.hint}")
    one = boot(place(outputs, "bounded"), bounded(programs, memory="1Gi", pids=3000))
    folders = cgroups.recorded(one.place.folder / "bound.json")
    for pid in tree_of(one.state.pid):
        assert all(pid in cgroups.processes(each) for each in folders), Path(f"/proc/{pid}/cmdline").read_bytes()
    (node,) = json.loads(one.kubectl("get", "nodes", "--output=json").stdout)["items"]
    assert node["status"]["allocatable"]["memory"] == f"{(GIB - AROUND - LEFT) >> 10}Ki"
    size = int(inside(one, "df -k /var/lib/kubelet/pods | awk 'END {print $2}'").stdout)
    assert size == (GIB - AROUND) // 4 >> 10
    with one.state.opened() as supervisor:
        assert supervisor is not None
        inside(one, MOST, timeout=120)  # no pod, which the kubelet might end in time
        assert select.select([supervisor], [], [], 20)[0], "it goes on"
    assert row(one.place).reason.startswith("sandbox: the cluster asked for more memory than its bound of 1024 MiB; ")
    assert not [each for each in folders if each.exists()]


@pytest.fixture
def slow(programs: Programs, outputs: Path) -> Iterator[Cluster]:
    """A cluster that has a quarter of a core from its first moment on."""
    need = Need("this test", ("cpu",), ("cpu",), "")
    try:
        folders = cgroups.make(f"sandkube-slow-{os.getpid()}", need=need)
    except UserError as error:
        pytest.skip(f"{error.message}; {error.hint}")
    try:
        for controllers, folder in folders.items():
            for name, text in QUOTA["unified" if controllers == "unified" else "cpu"].items():
                (folder / name).write_text(text)
        joins = "".join(f"echo $$ >{folder}/cgroup.procs; " for folder in folders.values())
        words = [str(each) for each in (ROOT, programs.runsc, programs.bundle, programs.kubectl, outputs)]
        command = ["sh", "-c", f'{joins}exec "$@"', "sh", sys.executable, "-c", BOOT, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        one = place(outputs, "slow")
        yield Cluster(one, Kubectl(programs.kubectl, one), [])
    finally:
        if (one := place(outputs, "slow")).folder.exists():
            stop.stop(one)
        cgroups.remove(folders.values())


def test_a_quarter_of_a_core(slow: Cluster) -> None:
    """It boots, and is whole when it says so: what comes first of all finds an account, controllers and the API."""
    labels = {"app": "first"}
    template = {"metadata": {"labels": labels}, "spec": pod("x", ["sleep", "infinity"])["spec"]}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    create(
        slow,
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "first"}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "first"}, "spec": spec},
    )
    apply(slow.kubectl, fresh=True)
    said = slow.kubectl("exec", NAME, "--", "env").stdout.decode().splitlines()
    assert "KUBERNETES_SERVICE_HOST=10.96.0.1" in said
    assert "KUBERNETES_SERVICE_PORT=443" in said
    slow.kubectl("rollout", "status", "deployment/first", "--timeout=120s")

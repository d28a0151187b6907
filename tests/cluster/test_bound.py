"""A bound on all of a cluster."""

from __future__ import annotations

import json
import select
from pathlib import Path

import pytest

from sandkube.cluster import cgroups
from sandkube.cluster.bound import Bound
from sandkube.cluster.place import place
from sandkube.cluster.processes import tree_of
from sandkube.cluster.programs import Programs
from sandkube.cluster.status import row
from sandkube.errors import UserError
from tests.cluster.conftest import boot, bounded, inside

GIB = 1 << 30
AROUND = 160 << 20  # native/node/cluster: what a cluster takes beside what its own kernel knows of
LEFT = 50 << 20
MOST = "mkdir /tmp/most; while :; do i=$((i + 1)); dd if=/dev/zero of=/tmp/most/$i bs=1M count=50; done"


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
    assert node["status"]["allocatable"]["memory"] == f"{(GIB - AROUND - LEFT) >> 20}Mi"
    size = int(inside(one, "df -k /var/lib/kubelet/pods | awk 'END {print $2}'").stdout)
    assert size == (GIB - AROUND) // 4 >> 10
    with one.state.opened() as supervisor:
        assert supervisor is not None
        inside(one, MOST, timeout=120)  # no pod, which the kubelet might end in time
        assert select.select([supervisor], [], [], 20)[0], "it goes on"
    assert row(one.place).reason.startswith("sandbox: the cluster asked for more memory than its bound of 1024 MiB; ")
    assert not [each for each in folders if each.exists()]

"""kine as the node patches and sets it: bounded, and as far as its clients need it at once."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sandkube.cluster.programs import sandbox as sandbox_of
from sandkube.run import base_environment
from tests.api import Api
from tests.cluster.conftest import Cluster

MAPS = "/api/v1/namespaces/default/configmaps"
LOG_LIMIT = 8 << 20  # native/node/components/datastore.go


@pytest.fixture(scope="session")
def api(cluster: Cluster) -> Iterator[Api]:
    with closing(Api(cluster.kubectl)) as one:
        yield one


def sizes(cluster: Cluster) -> dict[str, int]:
    """Bytes of the datastore's files."""
    argv = sandbox_of(cluster.place, cluster.state.container).execute(
        ["sh", "-c", "cd /var/lib/sandkube/db && stat -c '%n %s' *"]
    )
    said = subprocess.run(argv, env=base_environment(Path("/root")), capture_output=True, text=True, check=True).stdout
    return {name: int(size) for name, size in (line.split() for line in said.splitlines())}


def test_the_log_is_written_back(cluster: Cluster, api: Api) -> None:
    """3,000 writes, each of a dozen pages: the log held all of them for the life of the cluster, the database none."""
    api("POST", MAPS, {"metadata": {"name": "log"}})
    before = sizes(cluster)
    for at in range(3000):
        api("PATCH", f"{MAPS}/log", {"data": {"at": str(at)}})
    api("DELETE", f"{MAPS}/log")
    after = sizes(cluster)
    print(before, after)
    assert after["state.db-wal"] < 3 * LOG_LIMIT
    assert after["state.db"] > before["state.db"]


def seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def test_a_list_after_a_write_of_another_kind_costs_about_a_write(api: Api) -> None:
    """It took until the next tick of one second, two hundred times as long as the write itself."""
    api("POST", MAPS, {"metadata": {"name": "other"}})
    writes, lists = [], []
    for at in range(20):
        writes.append(seconds(lambda at=at: api("PATCH", f"{MAPS}/other", {"data": {"at": str(at)}})))  # type: ignore[misc]
        lists.append(seconds(lambda: api("GET", "/api/v1/namespaces/default/podtemplates")))
    api("DELETE", f"{MAPS}/other")
    write, read = statistics.median(writes), statistics.median(lists)
    print(f"a write {write * 1000:.1f} ms, the list after it {read * 1000:.1f} ms")
    assert read < 25 * write


def test_an_empty_namespace_goes(cluster: Cluster, api: Api) -> None:
    api("POST", "/api/v1/namespaces", {"metadata": {"name": "empty"}})
    cluster.kubectl("delete", "namespace", "empty", "--timeout=60s")
    assert api.get_status("/api/v1/namespaces/empty") == 404


def test_all_components_are_healthy(api: Api) -> None:
    items = api("GET", "/api/v1/componentstatuses")["items"]
    found = {each["metadata"]["name"]: each["conditions"][0] for each in items}
    assert set(found) == {"controller-manager", "scheduler", "etcd-0"}
    assert {each["status"] for each in found.values()} == {"True"}, found


def test_components_go_by_their_own_names(cluster: Cluster, api: Api) -> None:
    """What writes is told by the names that it has in other clusters."""
    pod = {"containers": [{"name": "one", "image": "sandkube.local/test:1", "command": ["sleep", "2147483647"]}]}
    labels = {"app": "named"}
    made = {
        "metadata": {"name": "named"},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }
    deployments = "/apis/apps/v1/namespaces/default/deployments"
    api("POST", deployments, made)
    cluster.kubectl("rollout", "status", "deployment/named", "--timeout=60s")
    items = api("GET", "/api/v1/namespaces/default/pods?labelSelector=app%3Dnamed")["items"]
    managers = {each["manager"] for item in items for each in item["metadata"]["managedFields"]}
    assert managers == {"kube-controller-manager", "kubelet"}
    (node,) = api("GET", "/api/v1/nodes")["items"]
    assert {each["manager"] for each in node["metadata"]["managedFields"]} <= {"kubelet", "kube-controller-manager"}
    api("DELETE", f"{deployments}/named")

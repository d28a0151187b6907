"""The database that clusters begin with is what an API server writes: one finds nothing to add or to change."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandkube.cluster import stop
from sandkube.cluster.configured import configure
from sandkube.cluster.place import place
from sandkube.cluster.programs import Programs
from sandkube.run import base_environment
from tests.cluster.conftest import ROOT, boot

MADE = "1980-01-01T00:00:00Z"
KINDS = (
    "apiservices,clusterrolebindings,clusterroles,flowschemas,ipaddresses,namespaces,priorityclasses,"
    "prioritylevelconfigurations,rolebindings,roles,servicecidrs,services"
)
LATER = ("local-storage", "metrics-server")
COMPLETED = {"ClusterRole admin", "ClusterRole edit", "ClusterRole view", "ServiceCIDR kubernetes"}
"""What controllers complete: roles whose rules are gathered from others, a range that gets a finalizer."""


def rows() -> dict[str, int]:
    """Revision by key."""
    with sqlite3.connect(f"file:{ROOT}/outputs/result/seed/state.db?mode=ro&immutable=1", uri=True) as database:
        return dict(database.execute("SELECT name, id FROM kine WHERE name LIKE '/registry/%'"))


def name(one: dict[str, Any]) -> str:
    return f"{one['kind']} {one['metadata']['name']}"


@pytest.fixture(scope="module")
def listed(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    """What a cluster has that nobody used yet, without the parts that come when it is whole."""
    one = place(tmp_path_factory.mktemp("outputs"), "fresh")
    cluster = boot(one, replace(programs, configured=configure(None, {"disable": list(LATER)}, str)))
    try:
        yield json.loads(cluster.kubectl("get", KINDS, "--all-namespaces", "--output=json").stdout)["items"]
    finally:
        stop.stop(one)


def test_a_cluster_adds_nothing_to_it_and_changes_nothing(listed: list[dict[str, Any]]) -> None:
    last = max(rows().values())
    seeded = [one for one in listed if one["metadata"]["creationTimestamp"] == MADE]
    assert len(seeded) > 150
    assert [name(one) for one in listed if one not in seeded] == []
    changed = {name(one) for one in seeded if int(one["metadata"]["resourceVersion"]) > last}
    assert changed <= COMPLETED


@pytest.mark.usefixtures("programs")
def test_it_has_the_same_bytes_again(tmp_path: Path) -> None:
    """Made outside of the build sandbox: another folder, user and umask, other ports."""
    result = ROOT / "outputs/result"
    manifests = result / "rootfs-files/etc/sandkube/manifests"
    subprocess.run(
        [str(result / "node/bin/sandkube-node"), "seed", str(tmp_path / "state.db"), str(manifests)],
        cwd=tmp_path,
        env=base_environment(tmp_path) | {"TMPDIR": str(tmp_path)},
        umask=0o077,
        capture_output=True,
        check=True,
        timeout=120,
    )
    assert (tmp_path / "state.db").read_bytes() == (result / "seed/state.db").read_bytes()


def test_it_holds_no_secret() -> None:
    assert {key.split("/")[2] for key in rows()} & {"secrets", "configmaps", "serviceaccounts"} == set()
    data = (ROOT / "outputs/result/seed/state.db").read_bytes()
    for word in (b"PRIVATE KEY", b"BEGIN CERTIFICATE"):
        assert word not in data


def test_its_objects_have_uids_of_their_own(listed: list[dict[str, Any]]) -> None:
    uids = [one["metadata"]["uid"] for one in listed]
    assert len({*uids}) == len(uids)
    assert {uid[14] for uid in uids} == {"5"}

"""The fix `cgroup-namespace`, with runc alone: containerd asks for that namespace only where cgroups are v2."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandkube.cluster import stop
from sandkube.cluster.place import place
from sandkube.cluster.pod import apply
from sandkube.cluster.programs import Programs
from tests.cluster.conftest import Cluster, boot, inside, of_kind

BUNDLE = "/run/trial"


@pytest.fixture(scope="module")
def legacy(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = boot(place(tmp_path_factory.mktemp("outputs"), "namespace"), of_kind(programs, "legacy"))
    yield cluster
    stop.stop(cluster.place)


def test_runc_fails_without_the_wrapper_and_runs_with_it(legacy: Cluster) -> None:
    made = inside(
        legacy,
        f"mkdir -p {BUNDLE}/rootfs/bin && cd {BUNDLE} && cp /bin/busybox rootfs/bin && runc spec && cat config.json",
    )
    assert made.returncode == 0, made.stderr
    spec = json.loads(made.stdout)
    spec["process"] |= {"terminal": False, "args": ["/bin/busybox", "echo", "through"]}
    spec["linux"]["namespaces"].insert(1, {"type": "cgroup"})
    assert [each["type"] for each in spec["linux"]["namespaces"]].count("cgroup") == 1
    text = json.dumps(spec, indent=1)
    assert inside(legacy, f"cat >{BUNDLE}/config.json", text).returncode == 0

    plain = inside(legacy, f"runc run --no-new-keyring --bundle {BUNDLE} plain")
    assert plain.returncode != 0
    assert "cgroup namespaces aren't enabled in the kernel" in plain.stderr

    wrapped = inside(legacy, f"runc-wrapper run --no-new-keyring --bundle {BUNDLE} wrapped")
    assert (wrapped.returncode, wrapped.stdout) == (0, "through\n"), wrapped.stderr
    spec["linux"]["namespaces"].pop(1)
    assert json.loads(inside(legacy, f"cat {BUNDLE}/config.json").stdout) == spec


def test_containers_run_behind_the_wrapper(programs: Programs, outputs: Path) -> None:
    """Switched on where nothing needs it, it is in the way of nothing."""
    made = replace(of_kind(programs, "legacy"), arguments=("--fix=cgroup-namespace=on",))
    cluster = boot(place(outputs, "wrapped"), made)
    assert "1/1" in apply(cluster.kubectl, fresh=True)
    config = inside(cluster, "grep BinaryName /run/sandkube/containerd.toml").stdout
    assert "runc-wrapper" in config

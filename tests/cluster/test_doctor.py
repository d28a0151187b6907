"""./do doctor, in both kinds of sandbox and right here; and a boot in place from this checkout."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from sandkube.cluster.pod import NAME
from tests.clones import Said
from tests.cluster.conftest import ROOT
from tests.confinement import CAPABILITIES, DOCKER, Confinement


def do(*words: str, status: int = 0) -> Said:
    done = subprocess.run(["./do", *words], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == status, done.stdout + done.stderr
    return Said(done.stdout, done.stderr)


def table(*words: str) -> dict[str, dict[str, str]]:
    """The fixes in the one place that was asked for."""
    (found,) = json.loads(do("doctor", "--json", *words).out)["found"].values()
    return {each["name"]: each for each in found["fixes"]}


def test_both_kinds_on_one_page() -> None:
    said = do("doctor").out
    print(said)
    assert len(said.splitlines()) <= 60
    assert "build sandbox: whole\ncluster sandbox: modern, in namespaces of its own\n" in said
    assert "== modern" in said
    assert "== legacy" in said


def test_each_kind_gets_the_cheapest_means_that_works() -> None:
    modern, legacy = table("--sandbox", "modern"), table("--sandbox", "legacy")
    assert modern["kernel-settings"]["used"] == "bind mount"
    assert legacy["kernel-settings"]["used"] == "interceptor"
    assert (modern["cap-last-cap"]["used"], legacy["cap-last-cap"]["used"]) == ("nothing", "patched program")
    assert (modern["storage-statistics"]["used"], legacy["storage-statistics"]["used"]) == ("nothing", "interceptor")
    for each in (modern, legacy):
        assert not [name for name, row in each.items() if row["needed"] and row["used"] == "nothing"]


def test_a_choice_can_be_overridden() -> None:
    found = table("--sandbox", "modern", "--fix", "kernel-settings=interceptor", "--fix", "cap-last-cap=on")
    assert (found["kernel-settings"]["used"], found["cap-last-cap"]["used"]) == ("interceptor", "patched program")
    said = do("doctor", "--sandbox", "modern", "--fix", "cap-last-cap=bind-mount", status=1).err
    assert 'fix cap-last-cap cannot be "bind-mount" here; it can be on, off, auto, patched-program' in said
    assert "not of the form NAME=VALUE" in do("doctor", "--fix", "nonsense", status=1).err


def test_here() -> None:
    assert "unprivileged-sysctls" in table("--here")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be confined so")
@pytest.mark.parametrize(
    ("confinement", "used", "found"),
    [
        (
            DOCKER,
            "nothing",
            "refused: no mount namespace: Operation not permitted; "
            "in a user namespace: no user namespace: Operation not permitted",
        ),
        (
            Confinement((*CAPABILITIES, "SYS_ADMIN")),
            "user namespace",
            "refused where the node is started, but not to root of a user namespace, which this is",
        ),
    ],
    ids=["docker", "SYS_ADMIN without NET_ADMIN"],
)
def test_here_it_says_what_the_script_does(confinement: Confinement, used: str, found: str) -> None:
    program = (ROOT / "outputs/result/bundle/rootfs/usr/bin/sandkube-node").resolve()
    done = confinement.run(str(program), "doctor", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = (each for each in json.loads(done.stdout)["fixes"] if each["name"] == "mount-right")
    assert (row["used"], row["found"]) == (used, found)


@pytest.mark.skipif(os.geteuid() != 0, reason="a node in place needs root")
@pytest.mark.skipif("overlay" not in Path("/proc/filesystems").read_text(), reason="this kernel has no overlays")
def test_in_place_from_a_checkout() -> None:
    """In a network namespace, so that the node's addresses are not this machine's."""
    script = (
        "set -e; outputs/result/busybox/bin/busybox ip link set lo up\n"
        "trap './do stop-cluster --name in-place' EXIT\n"
        "./do run-cluster --in-place --name in-place\n"
        "./do shell-cluster --name in-place ls /usr/bin/sandkube-node\n"
    )
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(line.split() for line in done.stdout.splitlines() if line.startswith(NAME))
    assert (line[1:3], line[5][:8]) == (["1/1", "Running"], "10.88.0.")
    assert "/usr/bin/sandkube-node\n" in done.stdout
    assert "cluster in-place is stopped and gone" in done.stderr
    assert not list(Path("/sys/fs/cgroup").glob("*/kubepods"))

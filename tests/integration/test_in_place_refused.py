"""Where a node in place cannot be: its script says so at once, in one sentence, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.clones import ROOT
from tests.confinement import ADMIN, CAPABILITIES, DOCKER, OPEN, PRIVILEGED, ROOTLESS, UNFILTERED, Confinement

RESULT = Path(__file__).resolve().parents[2] / "outputs/result"
WAY_OUT = (
    "; in a container, ./do run-cluster of a checkout needs none of this, without --in-place; "
    "or start the container with more rights\n"
)
NO_NETWORK = "no right to change the network: Operation not permitted"
NO_MOUNTS = "no mount namespace: Operation not permitted"
NO_FORWARD = "net.ipv4.ip_forward is off and cannot be set: Read-only file system"
FORWARDED = subprocess.run(
    ["unshare", "--net", "cat", "/proc/sys/net/ipv4/ip_forward"], capture_output=True, text=True, check=False
).stdout.strip()
"""A new network begins with what the machine's first one has."""
NO_PROC = "no new /proc for containers (is a part of /proc covered here?): Operation not permitted"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="a node in place needs root, and so does a confinement of root"
)


MORE = replace(ADMIN, capabilities=(*CAPABILITIES, "SYS_ADMIN", "NET_ADMIN"))
FIRST = (UNFILTERED, ADMIN, MORE, ROOTLESS)
"""Where a new user namespace comes as far as its network, whose settings may only be read."""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The script in a folder with what it needs before the node boots."""
    for product, path in (("busybox", "bin/busybox"), ("userns", "usr/bin/userns")):
        target = tmp_path / "rootfs" / path
        target.parent.mkdir(parents=True)
        shutil.copy(RESULT / product / "bin" / target.name, target)
    return Path(shutil.copy(ROOT / "native/starter/sandkube", tmp_path))


@pytest.mark.parametrize(
    ("confinement", "here", "apart"),
    [
        pytest.param(DOCKER, NO_MOUNTS, "no user namespace: Operation not permitted", id="docker"),
        pytest.param(UNFILTERED, NO_MOUNTS, NO_PROC, id="docker without a filter"),
        pytest.param(ADMIN, NO_NETWORK, NO_PROC, id="docker with SYS_ADMIN"),
        pytest.param(
            MORE,
            "no pivot_root: Operation not permitted",
            NO_PROC,
            id="docker with SYS_ADMIN and NET_ADMIN",
        ),
        pytest.param(ROOTLESS, NO_MOUNTS, "no host name for containers: Operation not permitted", id="podman"),
        pytest.param(
            Confinement(CAPABILITIES, users=True, no_more_users=True),
            NO_MOUNTS,
            "no user namespace (user.max_user_namespaces allows none): No space left on device",
            id="root of a user namespace, and no more of them",
        ),
    ],
)
def test_it_is_one_sentence_and_nothing_is_left(script: Path, confinement: Confinement, here: str, apart: str) -> None:
    code = "cat /proc/self/mountinfo; {} start; echo $?; cat /proc/self/mountinfo"
    done = confinement.run("/bin/sh", "-c", code.format(script))
    if FORWARDED == "0" and confinement in FIRST:
        apart = NO_FORWARD
    assert done.stderr == (
        f"sandkube: a node in place cannot be here: {here}; as root of a user namespace: {apart}{WAY_OUT}"
    )
    before, after = re.split(r"^1\n", done.stdout, flags=re.MULTILINE)
    assert before == after
    assert sorted(path.name for path in script.parent.iterdir()) == ["rootfs", "sandkube"]
    assert len(list((script.parent / "rootfs").rglob("*"))) == 5
    assert not list(Path("/sys/fs/cgroup").rglob("sandkube-trial-*"))


@pytest.mark.parametrize(
    "confinement",
    [Confinement(), PRIVILEGED, OPEN, Confinement(users=True, foreign=True, no_more_users=True)],
    ids=["none", "privileged", "open", "a network of others"],
)
def test_where_it_can_be_it_does_not_complain(script: Path, confinement: Confinement) -> None:
    """Read-only cgroups are made writable, or are mounted anew in a cgroup namespace. The network is the node's own."""
    done = confinement.run(str(script), "try")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_choice_is_respected(script: Path) -> None:
    off = DOCKER.run(str(script), "try", "--fix", "mount-right=off")
    assert off.stderr == (f"sandkube: a node in place cannot be here: {NO_MOUNTS} (fix `mount-right` is off){WAY_OUT}")
    on = UNFILTERED.run(str(script), "try", "--fix=mount-right=on")
    why = NO_FORWARD if FORWARDED == "0" else NO_PROC
    assert on.stderr == f"sandkube: a node in place cannot be here: as root of a user namespace: {why}{WAY_OUT}"


def test_the_command_says_the_same_before_it_makes_anything(script: Path) -> None:
    """`./do run-cluster --in-place` after the build."""
    carried = script.parent / "rootfs/usr/share/sandkube/starter"
    carried.parent.mkdir(parents=True)
    shutil.copy(script, carried)
    code = f"from sandkube.cluster.in_place import *; check(Path({str(script.parent)!r}), ())"
    done = DOCKER.run(sys.executable, "-c", code)
    assert done.stderr.splitlines()[-1] == (
        f"sandkube.errors.UserError: a node in place cannot be here: {NO_MOUNTS}; as root of a user namespace: "
        f"no user namespace: Operation not permitted{WAY_OUT}".rstrip()
    )
    assert Confinement().run(sys.executable, "-c", code).returncode == 0


@pytest.mark.skipif(not Path("/sys/fs/cgroup/cpuset").is_dir(), reason="cgroups are of version 2: one hierarchy")
def test_each_hierarchy_is_mounted_in_its_own_place(script: Path) -> None:
    """Read-only ones, anew; each has its own files, and a cgroup can be made in it."""
    program = script.parent / "rootfs/usr/bin/userns"
    files = "cpuset/cpuset.cpus cpu/cpu.shares cpuacct/cpuacct.usage memory/memory.limit_in_bytes"
    inside = f"{program} --cgroups / && cd /sys/fs/cgroup && ls {files} && mkdir cpuset/trial && rmdir cpuset/trial"
    done = OPEN.run(str(program), "/bin/sh", "-c", inside)
    assert (done.returncode, done.stderr) == (0, "")

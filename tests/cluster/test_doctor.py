"""./do doctor, in both kinds of sandbox and right here; and a boot in place from this checkout."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from sandkube.cluster.pod import NAME
from tests.cluster.conftest import ROOT


def do(*words: str, status: int = 0) -> str:
    done = subprocess.run(["./do", *words], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def table(*words: str) -> dict[str, dict[str, str]]:
    lines = [line for line in do("doctor", "--json", *words).splitlines() if line.startswith("{")]
    return {each["name"]: each for each in json.loads(lines[-1])["fixes"]}


def test_both_kinds_on_one_page() -> None:
    said = do("doctor")
    print(said)
    assert len(said.splitlines()) < 60
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
    said = do("doctor", "--sandbox", "modern", "--fix", "cap-last-cap=bind-mount", status=1)
    assert 'fix cap-last-cap cannot be "bind-mount" here; it can be on, off, auto, patched-program' in said
    assert "not of the form NAME=VALUE" in do("doctor", "--fix", "nonsense", status=1)


def test_here() -> None:
    assert "unprivileged-sysctls" in table("--here")


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
    assert (line[1:3], line[5]) == (["1/1", "Running"], "10.88.0.2")
    assert "/usr/bin/sandkube-node\n" in done.stdout
    assert "cluster in-place is stopped and gone" in done.stdout
    assert not list(Path("/sys/fs/cgroup").glob("*/kubepods"))

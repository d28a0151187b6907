"""A cluster where no namespaces are to be had: what keeps it apart instead, and how it is found out."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandkube.cluster import enter, programs
from sandkube.cluster.processes import tree_of
from sandkube.cluster.sandbox import Sandbox
from tests import confined as places
from tests.clones import Said
from tests.cluster.conftest import ROOT, Cluster, api_through_a_port

confined = pytest.mark.parametrize("cluster", ["confined"], indirect=True)


def status_of(pid: int) -> dict[str, str]:
    """proc(5), /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def inner(cluster: Cluster) -> Iterator[int]:
    """The sandbox, its file server, and the processes that run what is in it."""
    for pid in tree_of(cluster.state.pid):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if words[0] in (b"runsc-sandbox", b"runsc-gofer"):
            yield pid
            yield from (each for each in tree_of(pid) if each != pid)


@confined
def test_no_capability_is_kept_and_none_can_be_gained(cluster: Cluster) -> None:
    found = list(inner(cluster))
    assert len(found) >= 3, "the sandbox, the file server, and at least one process of the node"
    for pid in found:
        status = status_of(pid)
        names = ("CapInh", "CapPrm", "CapEff", "CapAmb", *(["CapBnd"] if os.geteuid() == 0 else []))
        sets = {name: status[name] for name in names}
        assert set(sets.values()) == {"0000000000000000"}, (pid, sets)
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), pid


@confined
def test_no_namespace_is_made(cluster: Cluster) -> None:
    for kind in ("mnt", "pid", "net", "ipc", "uts", "user"):
        found = {Path(f"/proc/{pid}/ns/{kind}").readlink() for pid in tree_of(cluster.state.pid)}
        assert found == {Path(f"/proc/self/ns/{kind}").readlink()}


@confined
def test_ports_of_this_machine_lead_into_it(cluster: Cluster) -> None:
    assert api_through_a_port(cluster.place) == "HTTP/1.0 400 Bad Request"


@confined
@pytest.mark.skipif(enter.landlock() == 0, reason="this kernel has no Landlock, or it is off")
def test_files_of_this_user_are_out_of_reach(cluster: Cluster, tmp_path: Path) -> None:
    """Behind the same wall as the sandbox of this cluster, with busybox in runsc's place."""
    (tmp_path / "secret").write_text("secret\n")
    sandbox = programs.sandbox(cluster.place, cluster.state.container)
    assert isinstance(sandbox, Sandbox)
    busybox = (ROOT / "outputs/result/busybox/bin/busybox").resolve()
    words = replace(sandbox, runsc=busybox).run(programs.bundle(cluster.place), 0)
    wall = words[: words.index(str(busybox), words.index("/dev/null"))]

    def cat(path: Path | str) -> str:
        done = subprocess.run([*wall, str(busybox), "cat", str(path)], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    assert "sandkube" in cat(programs.bundle(cluster.place) / "config.json")
    for path in (tmp_path / "secret", "/etc/passwd", cluster.place.kubeconfig, f"/proc/{os.getpid()}/root/etc/passwd"):
        assert cat(path) == f"cat: can't open '{path}': Permission denied\n"


def do(*words: str, status: int = 0) -> Said:
    """./do where namespaces are forbidden."""
    done = subprocess.run(
        [*places.words(places.NO_NAMESPACES), "/bin/sh", "./do", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return Said(done.stdout, done.stderr)


def test_it_is_chosen_where_namespaces_are_refused() -> None:
    refusal = "user namespaces: No space left on device"
    wanted = do("run-cluster", "--name", "chosen", "--sandbox", "modern", status=1)
    assert wanted.err.endswith(
        f"error: --sandbox modern needs namespaces, and this place refuses them ({refusal})\n"
        "  hint: --sandbox confined needs none\n"
    )
    doctor = do("doctor", "--no-build-sandbox").out
    assert f"\ncluster sandbox: no namespaces here ({refusal}): the sandbox is confined. " in doctor
    assert "== confined: modern, where" in doctor
    assert "== confined-legacy: legacy, where" in doctor
    try:
        said = do("run-cluster", "--name", "chosen")
        assert f"\n  no namespaces here ({refusal}): the sandbox is confined. " in said.err
        assert re.search(r"^test-100-final +1/1 +Running ", said.out, re.MULTILINE), said
        assert re.search(r"^chosen +running +\S+ +confined +runsc ", do("status").out, re.MULTILINE)
        assert do("shell-cluster", "--name", "chosen", "hostname").out == "runsc\n"
    finally:
        do("stop-cluster", "--name", "chosen")

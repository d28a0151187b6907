"""Names, states, rows: what is known of a cluster without talking to it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sandkube.cluster.place import State, all_places, birth, boot_id, needs_running, place
from sandkube.cluster.processes import memory_limit
from sandkube.cluster.sandbox import Sandbox
from sandkube.cluster.start import kubectl_link
from sandkube.cluster.status import row, rows
from sandkube.errors import UserError


def state_of(pid: int) -> State:
    return State("running", pid, birth(pid), boot_id(), "sandkube-1", 1.0, port=1234)


@pytest.mark.parametrize("name", ["a", "dev-1", "0", "x" * 32])
def test_good_names(tmp_path: Path, name: str) -> None:
    assert place(tmp_path, name).folder == tmp_path / "clusters" / name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a/b", "..", "a b", "x" * 33, "ä"])
def test_bad_names_are_a_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError) as caught:
        place(tmp_path, name)
    assert str(caught.value) == (
        f"{name!r} is not a cluster's name\n  hint: use up to 32 of a-z, 0-9 and inner hyphens, such as dev-1"
    )


def test_what_stands_in_the_way_of_a_cluster_is_said(tmp_path: Path) -> None:
    (tmp_path / "a/clusters/.x.lock").mkdir(parents=True)
    (tmp_path / "a/clusters/.y.lock").symlink_to("nowhere")
    (tmp_path / "b").mkdir()
    for name in ("bin", "clusters"):
        (tmp_path / "b" / name).touch()
    with place(tmp_path / "a", "x").lock():
        pass
    with pytest.raises(UserError, match=r"/a/clusters/\.y\.lock: is no regular file, where a lock belongs\n"):
        place(tmp_path / "a", "y").lock().__enter__()
    with pytest.raises(UserError, match="/b/clusters: is no folder, where one belongs\n"):
        place(tmp_path / "b", "x").lock().__enter__()
    with pytest.raises(UserError, match="/b/bin: is no folder, where one belongs\n"):
        kubectl_link(tmp_path / "b", tmp_path / "b/result/kubectl")
    kubectl_link(tmp_path / "a", tmp_path / "a/result/kubectl/bin/kubectl")
    assert str((tmp_path / "a/bin/kubectl").readlink()) == "../result/kubectl/bin/kubectl"


def test_state_is_alive_only_for_the_very_process() -> None:
    mine = state_of(os.getpid())
    assert mine.alive()
    assert not replace(mine, born=mine.born + 1).alive(), "a later process with the same number"
    assert not replace(mine, boot="another").alive(), "the machine restarted"


def test_an_ended_process_that_nobody_waited_for_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert birth(child.pid) == -1
    child.wait()


def test_state_survives_the_disk(tmp_path: Path) -> None:
    one = place(tmp_path, "a")
    one.folder.mkdir(parents=True)
    one.write(state_of(os.getpid()))
    assert one.read() == state_of(os.getpid())
    assert one.running() is not None
    assert [each.name for each in all_places(tmp_path)] == ["a"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"phase": "running"}'])
def test_damaged_state_is_no_state(tmp_path: Path, text: str) -> None:
    one = place(tmp_path, "a")
    one.folder.mkdir(parents=True)
    (one.folder / "state.json").write_text(text)
    assert one.read() is None
    assert row(one).state == "damaged"


def test_rows_tell_what_to_do(tmp_path: Path) -> None:
    one = place(tmp_path, "a")
    one.folder.mkdir(parents=True)
    one.write(replace(state_of(os.getpid()), boot="another"))
    (killed,) = rows(tmp_path)
    assert (killed.state, killed.memory, killed.address) == ("killed", 0, "")
    assert killed.reason.endswith("./do run-cluster --name a starts it anew, ./do stop-cluster --name a clears it away")
    one.write(state_of(os.getpid()))
    (mine,) = rows(tmp_path)
    assert (mine.state, mine.node, mine.address) == ("running", "runsc", "https://127.0.0.1:1234")
    assert mine.memory > 1 << 20
    assert mine.reason == ""


def test_nothing_to_list(tmp_path: Path) -> None:
    assert rows(tmp_path / "nothing") == []


def test_a_cluster_that_does_not_run_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        needs_running(place(tmp_path, "a"))
    assert str(caught.value) == "cluster a is not running\n  hint: ./do run-cluster --name a"


FLAGS = (
    *("--root=/o/clusters/a/runsc", "--ignore-cgroups", "--network=none", "--platform=systrap"),
    *("--net-raw", "--in-sandbox-cgroup=v2", "--overlay2=root:memory"),
)


def test_command_line_of_the_sandbox() -> None:
    argv = Sandbox(Path("/r/runsc"), Path("/o/clusters/a/runsc"), "c1").run(Path("/b"), 77)
    assert argv[1:3] == ["-I", "-S"]
    assert argv[4:] == ["namespaces", "77", "/r/runsc", *FLAGS, "run", "--bundle=/b", "c1"]


def test_command_line_of_a_confined_sandbox(tmp_path: Path) -> None:
    """It may reach its program, its bundle, its state, and of the machine what gVisor reads of any."""
    (tmp_path / "config.json").write_text('{"root": {"path": "/s/rootfs"}}')
    sandbox = Sandbox(Path("/r/runsc"), Path("/o/clusters/a/runsc"), "c1", "confined")
    assert sandbox.run(tmp_path, 77)[4:] == [
        *("confined", "77", "--execute", "/r/runsc"),
        *("--read", str(tmp_path), "--read", "/s/rootfs", "--read", "/proc", "--read", "/sys"),
        *("--read", "/etc/localtime", "--read", "/dev/urandom"),
        *("--write", "/o/clusters/a/runsc", "--write", "/dev/null"),
        *("/r/runsc", *FLAGS, "--confined", "--directfs=false", "run", f"--bundle={tmp_path}", "c1"),
    ]
    assert sandbox.port_forward(0, 6443, 77)[4:7] == ["confined", "77", "/r/runsc"]


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/\n", {}, 0),
        ("0::/a/b\n", {"a/memory.max": "max\n", "a/b/memory.max": "536870912\n"}, 512 << 20),
        ("0::/a/b\n", {"a/memory.max": "268435456\n", "a/b/memory.max": "max\n"}, 256 << 20),
        # Docker on version 1 shows the container's group as the root, and its path on the machine.
        ("4:cpu,memory:/docker/12\n0::/\n", {"memory/memory.limit_in_bytes": "536870912\n"}, 512 << 20),
        ("4:memory:/x\n", {"memory/x/memory.limit_in_bytes": "9223372036854771712\n"}, 0),
    ],
)
def test_memory_that_a_container_may_use(tmp_path: Path, groups: str, files: dict[str, str], limit: int) -> None:
    for name, text in ({"proc/self/cgroup": groups} | {f"sys/fs/cgroup/{k}": v for k, v in files.items()}).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory_limit(tmp_path) == limit

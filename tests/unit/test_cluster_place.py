"""Names, states, rows: what is known of a cluster without talking to it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sandkube.cluster.place import State, all_places, birth, boot_id, needs_running, place
from sandkube.cluster.sandbox import Sandbox
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


def test_command_line_of_the_sandbox() -> None:
    argv = Sandbox(Path("/r/runsc"), Path("/o/clusters/a/runsc"), "c1").run(Path("/b"), 77)
    assert argv[1:3] == ["-I", "-S"]
    assert argv[4:] == [
        *("77", "/r/runsc", "--root=/o/clusters/a/runsc", "--ignore-cgroups", "--network=none", "--platform=systrap"),
        *("--net-raw", "--in-sandbox-cgroup=v2", "--overlay2=root:memory", "run", "--bundle=/b", "c1"),
    ]

"""A bound on all of a cluster, on machines that are made of files, and on this one if cgroups can be made. Files show
what is written, and no kernel's answer: where this machine has version 1, version 2 is tried nowhere else.
"""

from __future__ import annotations

import os
import select
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from sandkube.cluster import bound, cgroups, start, stop
from sandkube.cluster.bound import Bound, Bounded, bound_of
from sandkube.cluster.configured import Configured
from sandkube.cluster.place import place
from sandkube.cluster.processes import tree_of
from sandkube.cluster.status import row
from sandkube.errors import UserError
from tests.unit.fake_runsc import BOOTS, WAITS, programs
from tests.unit.test_cluster_cgroups import ALL, Be, Machine, machine, mine, session, version_1

__all__ = ["machine", "mine"]
# ruff: noqa: F811

BOTH = Bound(1 << 30, 2000)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cluster's; folders of files do not go as cgroups do, so they are tried once."""
    monkeypatch.setattr(cgroups, "_TRIES", 1)
    (made := tmp_path / "cluster").mkdir()
    return made


def entered(machine: Machine, folder: Path, wanted: Bound, *, native: bool = False) -> Bounded:
    made = Bounded(folder, "one", wanted, native=native, root=machine.root)
    made.enter()
    return made


def written(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text().strip() for path in folder.rglob("*") if path.is_file()}


def test_version_1(machine: Machine, mine: Be, folder: Path) -> None:
    version_1(machine)
    mine(0)
    base = machine.root / "sys/fs/cgroup"
    one = entered(machine, folder, BOTH)
    memory, pids = base / "memory/here/one-bound", base / "pids/here/one-bound"
    assert written(memory) == {"memory.limit_in_bytes": str(1 << 30), "cgroup.procs": str(os.getpid())}
    assert written(pids) == {"pids.max": "2000", "cgroup.procs": str(os.getpid())}
    assert not list(base.glob("cp*/here/one-bound"))
    assert cgroups.recorded(folder / "bound.json") == [memory, pids]
    assert one.exceeded() == ""
    (memory / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
    assert one.exceeded() == "the cluster asked for more memory than its bound of 1024 MiB"
    one.leave()
    assert (base / "memory/here/cgroup.procs").read_text() == f"{os.getpid()}\n"
    assert (base / "pids/here/cgroup.procs").read_text() == f"{os.getpid()}\n"
    assert not (folder / "bound.json").exists()


def test_memory_that_is_swapped_out_counts(
    machine: Machine, mine: Be, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version_1(machine)
    mine(0)
    make = Path.mkdir

    def as_the_kernel(path: Path, *words: object, **more: object) -> None:
        make(path, *words, **more)  # type: ignore[arg-type]
        if path.name == "one-bound":
            (path / "memory.memsw.limit_in_bytes").touch()

    monkeypatch.setattr(Path, "mkdir", as_the_kernel)
    entered(machine, folder, Bound(memory=1 << 30))
    made = machine.root / "sys/fs/cgroup/memory/here/one-bound"
    assert (made / "memory.memsw.limit_in_bytes").read_text() == str(1 << 30)
    assert not (machine.root / "sys/fs/cgroup/pids/here/one-bound").exists(), "nobody asked for it"


@pytest.mark.parametrize("native", [False, True])
def test_version_2(machine: Machine, mine: Be, folder: Path, native: bool) -> None:  # noqa: FBT001
    """The supervisor is in a leaf, and a sandbox of its own kernel finds the cgroup above it to make its own in."""
    folders = session(machine)
    mine(1000, folders[2:])
    (folders[3] / "cgroup.subtree_control").unlink()
    (folders[3] / "cgroup.subtree_control").mkdir()  # stands for EBUSY
    one = entered(machine, folder, BOTH, native=native)
    made = folders[2] / "one-bound"
    assert written(made) == {
        "memory.max": str(1 << 30),
        "pids.max": "2000",
        "supervisor/cgroup.procs": str(os.getpid()),
    }
    (made / "memory.events.local").write_text("low 0\nhigh 0\nmax 9\noom 1\noom_kill 0\n")
    assert one.exceeded()
    one.leave()
    assert (folders[-1] / "cgroup.procs").read_text() == f"{os.getpid()}\n"
    if native:
        machine.own = [f"0::/{(made / 'supervisor').relative_to(folders[0])}"]
        machine.write()
        for each, controllers in ((made, ALL), (made / "supervisor", "")):
            machine.cgroup(str(each.relative_to(folders[0])), controllers, controllers)
        mine(1000, [*folders[2:], made, made / "supervisor"])
        assert cgroups.places(machine.root) == {"unified": made}


def test_what_is_missing_is_said(machine: Machine, mine: Be, folder: Path) -> None:
    folders = session(machine)
    mine(1000, [])
    with pytest.raises(UserError) as caught:
        entered(machine, folder, Bound(memory=1 << 30))
    assert caught.value.message == (
        f"a bound on memory needs a cgroup of your own, and {folders[-1]} is not delegated to you"
    )
    assert (caught.value.hint or "").endswith("--property=Delegate=yes ./do run-cluster")


def test_no_controllers_are_said(machine: Machine, mine: Be, folder: Path) -> None:
    machine.mount("cgroup2", "/sys/fs/cgroup", "rw", "/")
    machine.cgroup(".", "cpu memory")
    mine(0)
    with pytest.raises(UserError) as caught:
        entered(machine, folder, BOTH)
    assert caught.value.message == "a bound on memory and pids needs cgroups, and there is none here for pids"
    assert caught.value.hint == "leave it out: no cluster needs one"
    entered(machine, folder, Bound())


def test_what_a_document_says() -> None:
    assert not bound_of(None)
    assert not bound_of({"disable": []})
    assert bound_of({"sandbox": {"memory": 1 << 30, "pids": 0}}) == Bound(memory=1 << 30)
    bound.refuse_in_place(Bound())
    with pytest.raises(UserError, match="a node in place has no sandbox of its own to bound"):
        bound.refuse_in_place(Bound(pids=5000))


GREEDY = """\
while not os.path.exists(scenario + "/go"):
    time.sleep(0.05)
taken = b"x" * (600 << 20)
"""


def test_on_this_machine(tmp_path: Path) -> None:
    """A stand-in for the sandbox takes more than the bound: the kernel ends it, and the supervisor says why."""
    wanted = Bound(512 << 20, 3000)
    try:
        wanted.check(native=False)
    except UserError as error:
        pytest.skip(f"{error.message}; {error.hint}")
    one = place(tmp_path, "a")
    asked = {"disable": [], "sandbox": {"memory": wanted.memory, "pids": wanted.pids}}
    made = programs(tmp_path / "bundle", BOOTS + GREEDY + WAITS)
    try:
        with one.lock():
            list(start.start(one, replace(made, configured=Configured("options", document=asked))))
        folders = cgroups.recorded(one.folder / "bound.json")
        assert folders
        state = one.read()
        assert state is not None
        inside = set.intersection(*({*cgroups.processes(each)} for each in folders))
        assert inside >= {*tree_of(state.pid)}
        with state.opened() as supervisor:
            assert supervisor is not None
            (tmp_path / "bundle/go").touch()
            assert select.select([supervisor], [], [], 60)[0]
        assert row(one).reason.startswith("sandbox: the cluster asked for more memory than its bound of 512 MiB; ")
        assert not [each for each in folders if each.exists()]
        assert not (one.folder / "bound.json").exists()
    finally:
        if one.folder.exists():
            stop.stop(one)


def test_what_a_killed_supervisor_leaves_is_removed(tmp_path: Path) -> None:
    wanted = Bound(pids=3000)
    try:
        wanted.check(native=False)
    except UserError as error:
        pytest.skip(f"{error.message}; {error.hint}")
    one = place(tmp_path, "a")
    asked = {"disable": [], "sandbox": {"memory": 0, "pids": wanted.pids}}
    made = replace(programs(tmp_path / "bundle", BOOTS + WAITS), configured=Configured("options", document=asked))
    try:
        with one.lock():
            list(start.start(one, made))
        folders = cgroups.recorded(one.folder / "bound.json")
        state = one.read()
        assert state is not None
        with state.opened() as supervisor:
            assert supervisor is not None
            os.kill(state.pid, signal.SIGKILL)
            assert select.select([supervisor], [], [], 60)[0]
        assert [each for each in folders if each.exists()] == folders != []
        stop.stop(one)
        assert not [each for each in folders if each.exists()]
    finally:
        if one.folder.exists():
            stop.stop(one)

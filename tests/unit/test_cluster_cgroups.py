"""Where cgroups of a sandbox can be, on machines that are made of files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from sandkube.cluster import cgroups, linux
from sandkube.errors import UserError

ALL = "cpuset cpu io memory pids"


class Machine:
    """What proc and the cgroup file systems show of one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "proc/self").mkdir(parents=True)
        self.mounts: list[str] = []
        self.own: list[str] = []
        self.write()

    def write(self) -> None:
        """What proc shows."""
        (self.root / "proc/self/mountinfo").write_text("".join(f"{each}\n" for each in self.mounts))
        (self.root / "proc/self/cgroup").write_text("".join(f"{each}\n" for each in self.own))

    def mount(self, kind: str, folder: str, options: str, own: str, within: str = "/") -> None:
        """A hierarchy, and the cgroup of this process in it."""
        self.mounts.append(f"30 24 0:26 {within} {folder} rw,nosuid shared:9 - {kind} {kind} {options}")
        listed = "" if kind == "cgroup2" else options.removeprefix("rw,")
        self.own.append(f"{len(self.own)}:{listed}:{own}")
        self.write()

    def cgroup(self, path: str, controllers: str = "", control: str = "") -> Path:
        """One of version 2."""
        folder = self.root / "sys/fs/cgroup" / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in (("procs", ""), ("controllers", controllers), ("subtree_control", control)):
            (folder / f"cgroup.{name}").write_text(text)
        return folder


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Iterable[Path]], None]:
    """Be a user to whom some folders belong; the superuser writes anywhere."""

    def be(user: int, folders: Iterable[Path] = ()) -> None:
        owned = {str(path) for folder in folders for path in (folder, folder / "cgroup.procs")}
        monkeypatch.setattr(os, "geteuid", lambda: user)
        monkeypatch.setattr(os, "access", lambda path, _mode: user == 0 or str(path) in owned)

    return be


Be = Callable[..., None]


def session(machine: Machine) -> list[Path]:
    """As systemd has it for somebody who is logged in; top first."""
    machine.mount("cgroup2", "/sys/fs/cgroup", "rw", "/user.slice/user@1000.service/app.slice/a.scope")
    top = machine.cgroup(".", ALL, ALL)
    user = machine.cgroup("user.slice", ALL, "cpu memory pids")
    service = machine.cgroup("user.slice/user@1000.service", "cpu memory pids", "cpu memory pids")
    slice_ = machine.cgroup("user.slice/user@1000.service/app.slice", "cpu memory pids", "memory pids")
    scope = machine.cgroup("user.slice/user@1000.service/app.slice/a.scope", "memory pids")
    return [top, user, service, slice_, scope]


def test_root_has_the_nearest_that_hands_on(machine: Machine, mine: Be) -> None:
    folders = session(machine)
    mine(0)
    folders[3].joinpath("cgroup.subtree_control").write_text("cpu memory pids")
    assert cgroups.places(machine.root) == {"unified": folders[3]}


def test_a_user_has_what_is_delegated(machine: Machine, mine: Be) -> None:
    folders = session(machine)
    mine(1000, folders[2:])
    (folders[3] / "cgroup.subtree_control").unlink()
    (folders[3] / "cgroup.subtree_control").mkdir()  # stands for EBUSY: there are processes in it
    assert cgroups.places(machine.root) == {"unified": folders[2]}


def test_what_is_not_handed_on_yet_is_asked_for(machine: Machine, mine: Be, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = session(machine)
    mine(1000, folders[2:])
    control = folders[3] / "cgroup.subtree_control"
    asked = []

    def write(path: Path, text: str) -> int:
        asked.append((path, text))
        with path.open("w") as file:
            return file.write(text.replace("+", ""))  # as the kernel shows it

    monkeypatch.setattr(Path, "write_text", write)
    assert cgroups.places(machine.root) == {"unified": folders[3]}
    assert asked == [(control, "+cpu +memory +pids")]


def refusal(machine: Machine) -> UserError:
    with pytest.raises(UserError) as caught:
        cgroups.places(machine.root)
    return caught.value


def test_nothing_is_delegated(machine: Machine, mine: Be) -> None:
    folders = session(machine)
    mine(1000, [])
    error = refusal(machine)
    assert error.message == f"--sandbox linux needs a cgroup of your own, and {folders[-1]} is not delegated to you"
    assert "Delegate=yes" in str(error.hint)


def test_the_one_of_a_container_has_processes(machine: Machine, mine: Be) -> None:
    machine.mount("cgroup2", "/sys/fs/cgroup", "rw", "/")
    folder = machine.cgroup(".", ALL, "")
    (folder / "cgroup.subtree_control").unlink()
    (folder / "cgroup.subtree_control").mkdir()  # stands for EBUSY
    mine(0)
    assert refusal(machine).message == (
        f"--sandbox linux needs a cgroup that hands on cpu, memory, pids, and none of yours does: {folder}"
    )


def test_a_controller_is_missing(machine: Machine, mine: Be) -> None:
    machine.mount("cgroup2", "/sys/fs/cgroup/unified", "rw", "/")
    machine.cgroup("unified", "cpu hugetlb")
    mine(0)
    assert refusal(machine).message == "--sandbox linux needs cgroups, and there is none here for memory, pids"


def test_no_cgroups_at_all(machine: Machine, mine: Be) -> None:
    mine(0)
    assert "there is none here for cpu, cpuacct, cpuset, memory, pids" in refusal(machine).message


def version_1(machine: Machine, within: str = "/") -> None:
    for controllers in ("cpu,cpuacct", "cpuset", "memory", "pids"):
        machine.mount("cgroup", f"/sys/fs/cgroup/{controllers}", f"rw,{controllers}", "/here", within)
        (machine.root / "sys/fs/cgroup" / controllers / "here").mkdir(parents=True)
    machine.mount("cgroup2", "/sys/fs/cgroup/unified", "rw", "/")
    for name in ("cpus", "mems"):
        (machine.root / f"sys/fs/cgroup/cpuset/here/cpuset.{name}").write_text("0-1\n")


def test_version_1_is_used_where_it_is_there(machine: Machine, mine: Be) -> None:
    version_1(machine)
    mine(0)
    made = cgroups.make("one", machine.root)
    base = machine.root / "sys/fs/cgroup"
    assert made == {name: base / name / "here/one" for name in ("cpu,cpuacct", "cpuset", "memory", "pids")}
    assert (made["cpuset"] / "cpuset.mems").read_text() == "0-1\n"


def test_version_1_of_a_container_is_mounted_from_its_own_cgroup_on(machine: Machine, mine: Be) -> None:
    version_1(machine, "/here")
    mine(0)
    assert cgroups.places(machine.root)["memory"] == machine.root / "sys/fs/cgroup/memory"


def test_version_1_is_not_delegated(machine: Machine, mine: Be) -> None:
    version_1(machine)
    mine(1000, [])
    folder = machine.root / "sys/fs/cgroup/cpu,cpuacct/here"
    assert refusal(machine).message == f"--sandbox linux needs to make cgroups, and {folder} cannot be written"


def test_what_was_made_before_one_was_refused_is_removed(machine: Machine, mine: Be) -> None:
    version_1(machine)
    mine(0)
    (machine.root / "sys/fs/cgroup/memory/here/one").mkdir()  # another's
    with pytest.raises(UserError, match=r"no cgroup can be made: .*/memory/here/one: File exists"):
        cgroups.make("one", machine.root)
    assert not (machine.root / "sys/fs/cgroup/cpu,cpuacct/here/one").exists()
    assert (machine.root / "sys/fs/cgroup/memory/here/one").exists()


def test_memory_files_are_counted_with_those_below(tmp_path: Path) -> None:
    assert cgroups.shared_memory(tmp_path) == 0
    (tmp_path / "memory.stat").write_text("cache 9\nshmem 1\ntotal_shmem 4096\n")
    assert cgroups.shared_memory(tmp_path) == 4096, "version 1"
    (tmp_path / "memory.stat").write_text("anon 9\nshmem 8192\n")
    assert cgroups.shared_memory(tmp_path) == 8192, "version 2"


def test_numbers_of_an_ordinary_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(UserError, match="needs newuidmap, which is not here"):
        linux.maps()
    listed = tmp_path / "subuid"
    listed.write_text("root:100000:65536\nnobody:200000:1000\n65534:300000:65536\n")
    assert linux.numbers(str(listed)) == ("300000", "65536")
    listed.write_text("root:100000:65536\nnobody:200000:1000\n")
    with pytest.raises(UserError, match=f"needs 65536 subordinate numbers of users and groups, and {listed} has none"):
        linux.numbers(str(listed))

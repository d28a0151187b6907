"""The kind of sandbox `linux`: the same node in namespaces and cgroups of this machine's own kernel."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandkube.cluster import cgroups, stop
from sandkube.cluster.place import place
from sandkube.cluster.pod import NAME, apply
from sandkube.cluster.processes import tree_of
from sandkube.cluster.programs import Programs
from sandkube.cluster.status import row
from tests.anywhere.packages import install
from tests.cluster.conftest import ROOT, Cluster, api_through_a_port, boot, bounded, inside, of_kind, ordinary_python
from tests.cluster.test_hostile import create, pod, service
from tests.small import let_in


@pytest.fixture(scope="module")
def native(programs: Programs) -> Programs:
    """The node of this kind, where it can be."""
    return of_kind(programs, "linux")


def settings() -> dict[Path, str]:
    """Settings of this machine that the node, in its own files or network, has otherwise."""
    names = ("kernel/panic", "kernel/panic_on_oops", "vm/overcommit_memory", "net/ipv4/ip_forward", "kernel/hostname")
    return {path: path.read_text() for name in names if (path := Path("/proc/sys") / name).exists()}


@pytest.fixture(scope="module")
def before() -> dict[Path, str]:
    """Settings before the boot."""
    return settings()


@pytest.fixture(scope="module")
def mine(before: dict[Path, str], native: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with the acceptance pod, and with a bound on all of it. At its end nothing is left of it."""
    assert before
    one = place(tmp_path_factory.mktemp("outputs"), "linux")
    try:
        made = boot(one, bounded(native, memory="4Gi", pids=10_000))
        apply(made.kubectl, fresh=True)
        yield made
        folders, processes = [*groups(made), *around(made)], list(tree_of(made.state.pid))
        stop.stop(one)
        assert left(folders, processes) == []
    finally:
        if one.folder.exists():
            stop.stop(one)


def groups(cluster: Cluster) -> list[Path]:
    """Its cgroups."""
    found = [Path(each) for each in json.loads((cluster.place.folder / "cgroups.json").read_text()).values()]
    assert found
    return found


def around(cluster: Cluster) -> list[Path]:
    """Those that bound it."""
    return cgroups.recorded(cluster.place.folder / "bound.json")


def left(folders: list[Path], processes: list[int]) -> list[Path]:
    """Which of these there are still."""
    return [path for path in (*folders, *(Path(f"/proc/{pid}") for pid in processes)) if path.exists()]


def test_it_is_used_as_any_other(mine: Cluster) -> None:
    found = row(mine.place)
    assert (found.state, found.sandbox, found.node) == ("running", "linux", "runsc")
    assert found.memory > 100e6
    assert mine.kubectl("logs", NAME).stdout == b"ready\n"
    assert mine.kubectl("exec", NAME, "--", "hostname").stdout.decode() == f"{NAME}\n"
    create(
        mine,
        pod("web", ["sh", "-c", "mkdir /w; echo page >/w/index.html; exec httpd -f -p 8080 -h /w"]),
        service("web", selector={"app": "web"}, ports=[{"port": 80, "targetPort": 8080}]),
    )
    mine.kubectl("wait", "pod/web", "--for=condition=Ready", "--timeout=60s")
    fetch = "until wget -q -O- http://web.default.svc.cluster.local/ 2>/dev/null; do sleep 0.1; done"
    assert mine.kubectl("exec", NAME, "--", "timeout", "30", "sh", "-c", fetch).stdout == b"page\n"
    assert api_through_a_port(mine.place) == "HTTP/1.0 400 Bad Request"
    assert inside(mine, "cat", stdin="typed\n").stdout == "typed\n"
    assert (inside(mine, "exit 3").returncode, inside(mine, "echo $$-$HOME").stdout[-7:]) == (3, "-/root\n")


def test_nothing_of_the_machine_is_seen(mine: Cluster) -> None:
    mounts = Path(f"/proc/{first(mine)}/mountinfo").read_text()
    for path in (ROOT, mine.place.folder, Path.home()):
        assert str(path) not in mounts or str(path) == "/root"
    assert inside(mine, "ls /").stdout.split() == (
        "bin dev etc opt proc root run sys tmp usr var".split()  # noqa: SIM905
    )
    numbers = inside(mine, "cd /proc; echo [0-9]*").stdout.split()
    assert 5 < len(numbers) <= len(list(tree_of(first(mine)))) + 2
    devices = inside(mine, "ls /sys/class/net").stdout.split()
    assert {re.sub("^pod.*", "pod", each) for each in devices} == {"lo", "pod"}
    assert inside(mine, "hostname").stdout == "runsc\n"
    for process in ("self", "1"):
        cgroups_of = inside(mine, f"cut -d: -f3 /proc/{process}/cgroup").stdout.split()
        assert set(cgroups_of) <= {"/", "/node"}
    descriptors = [each.readlink() for each in Path(f"/proc/{first(mine)}/fd").iterdir()]
    assert not [each for each in descriptors if mine.place.folder in each.parents]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert inside(mine, f"nc -w 2 127.0.0.1 {port} </dev/null").returncode != 0


def first(cluster: Cluster) -> int:
    """The node's process."""
    return int((cluster.place.folder / "first.pid").read_text())


def test_the_api_is_on_loopback_only(mine: Cluster) -> None:
    (line,) = (
        line
        for line in Path("/proc/net/tcp").read_text().splitlines()
        if f":{mine.state.port:04X} 00000000:0000" in line
    )
    assert line.split()[1].startswith("0100007F:")


def test_settings_of_the_machine_stay(mine: Cluster, before: dict[Path, str]) -> None:
    """The kubelet wants other values of some, and gets them in files of its own."""
    assert inside(mine, "cat /proc/sys/kernel/panic").stdout == "10\n"
    assert settings() == before
    assert inside(mine, "cat /proc/sys/net/ipv4/ip_forward").stdout == "1\n"


def test_all_of_it_is_within_its_bound(mine: Cluster) -> None:
    """Its own cgroups are below those, and so are its pods'."""
    bounds = around(mine)
    assert bounds
    inner = [each for each in groups(mine) if any(bound in each.parents for bound in bounds)]
    assert len(inner) == len(bounds)
    found = {pid for bound in bounds for pid in cgroups.processes(bound)}
    assert found >= {pid for pid in tree_of(mine.state.pid) if Path(f"/proc/{pid}").exists()}


def test_limits_are_enforced(mine: Cluster) -> None:
    takes = pod("takes", ["sh", "-c", "head -c 100m /dev/zero | tail"], restartPolicy="Never")
    takes["spec"]["containers"][0]["resources"] = {"limits": {"memory": "32Mi", "cpu": "200m"}}
    create(mine, takes)
    reason = "jsonpath={.status.containerStatuses[0].state.terminated.reason}"
    mine.kubectl("wait", "pod/takes", "--for=jsonpath={.status.phase}=Failed", "--timeout=60s")
    assert mine.kubectl("get", "pod", "takes", f"--output={reason}").stdout == b"OOMKilled"
    spins = pod("spins", ["sh", "-c", "while :; do :; done"])
    spins["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "100m"}}
    create(mine, spins)
    mine.kubectl("wait", "pod/spins", "--for=condition=Ready", "--timeout=60s")

    def used() -> float:
        (pid,) = (
            pid for pid in tree_of(first(mine)) if b"while :; do :; done" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before, began = used(), time.monotonic()
    time.sleep(3)
    assert (used() - before) / (time.monotonic() - began) < 0.2


def test_a_second_one_killed_with_its_supervisor(mine: Cluster, native: Programs, outputs: Path) -> None:
    """Nothing is left of it but its data, which come back, and the first goes on."""
    second = boot(place(outputs, "second"), native, keep=True)
    second.kubectl("create", "configmap", "stays")
    folders, processes = groups(second), list(tree_of(second.state.pid))
    assert second.kubectl("get", "--raw=/livez/ping").stdout == b"ok"
    assert second.state.port != mine.state.port
    os.kill(second.state.pid, signal.SIGKILL)
    for _ in range(200):
        if not left(folders, processes):
            break
        time.sleep(0.1)  # nothing tells of the end of a process that is not a child
    assert left(folders, processes) == []
    assert row(second.place).state == "killed"
    assert mine.kubectl("get", "--raw=/livez/ping").stdout == b"ok"
    again = boot(second.place, native)
    assert again.kubectl("get", "configmap", "stays", "--output=name").stdout == b"configmap/stays\n"
    apply(again.kubectl, fresh=True)
    folders = groups(again)
    stop.stop(again.place)  # in order: its pods, the API, the datastore
    assert (left(folders, []), row(again.place).state) == ([], "stopped")
    assert (again.place.data / "db/state.db-wal").stat().st_size == 0
    stop.delete(again.place)
    assert not again.place.folder.exists()


NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="this is an ordinary user already")
USER = 65534
ORDINARY = """
import sys
from pathlib import Path
root, bundle, kubectl, base = map(Path, sys.argv[1:])
sys.path.insert(0, str(root))
from sandkube.cluster import linux, start, stop
from sandkube.cluster.place import place
from sandkube.cluster.pod import NAME, Kubectl, apply
from sandkube.cluster.programs import Programs
made = Programs(bundle / "rootfs/usr/bin/userns", bundle, kubectl, "linux")
linux.check()
linux.try_out(made.runsc)
one = place(base, "ordinary")
(base / "clusters").mkdir()
try:
    with one.lock():
        list(start.start(one, made))
    print(apply(Kubectl(kubectl, one), fresh=True))
    print(Path("/proc", (one.folder / "first.pid").read_text().strip(), "uid_map").read_text())
finally:
    stop.stop(one)
"""


def as_user(base: Path, folders: list[Path], *words: str) -> subprocess.CompletedProcess[str]:
    """Python as an ordinary user who has subordinate numbers, in cgroups."""
    numbers = base / "subid"
    numbers.write_text(f"{USER}:200000:65536\n")
    joins = "".join(f"echo $$ >{folder}/cgroup.procs\n" for folder in folders)
    binds = "".join(f"mount --bind {numbers} {file}\n" for file in ("/etc/subuid", "/etc/subgid"))
    script = f'set -e\n{joins}{binds}exec setpriv --reuid {USER} --regid {USER} --clear-groups "$@"'
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", ordinary_python(), "-c", *words],
        cwd="/",
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def delegated(name: str) -> tuple[list[Path], list[Path]]:
    """Cgroups that belong to the user; and those to be in."""
    made = cgroups.make(name)
    inner = [made["unified"] / "leaf"] if "unified" in made else []
    for folder in (*made.values(), *inner):
        folder.mkdir(exist_ok=True)
        for path in (folder, *folder.glob("cgroup.*"), *folder.glob("tasks")):
            os.chown(path, USER, USER)
    return [*made.values()], inner or [*made.values()]


@NEEDS_ROOT
def test_a_store_in_a_container(native: Programs, tmp_path: Path, outputs: Path) -> None:
    """There the store is on an overlay itself, and the kernel allows two of them on each other."""
    store = tmp_path / "store"
    options = [f"lowerdir={native.runsc.parents[2]}"]
    for each in ("upper", "work"):
        tmp_path.joinpath(each).mkdir()
        options.append(f"{each}dir={tmp_path / each}")
    store.mkdir()
    subprocess.run(["mount", "-t", "overlay", "-o", ",".join(options), "store", store], check=True)
    try:
        made = boot(place(outputs, "stacked"), replace(native, runsc=store / "usr/bin/userns"))
        apply(made.kubectl, fresh=True)
        stop.stop(made.place)
    finally:
        subprocess.run(["umount", "--lazy", store], check=True)


@NEEDS_ROOT
def test_an_ordinary_user_with_cgroups(native: Programs, tmp_path_factory: pytest.TempPathFactory) -> None:
    install({"newuidmap": "uidmap"})
    for path in (Path("/etc/subuid"), Path("/etc/subgid")):  # which others are bound over
        path.touch()
    base = tmp_path_factory.mktemp("ordinary")
    let_in(base)
    shutil.copytree(native.runsc.parents[2], base / "bundle/rootfs", symlinks=True)  # a store of the user's own
    subprocess.run(["chown", "-R", f"{USER}:{USER}", base], check=True)
    all_of_them, own = delegated(f"sandkube-test-{os.getpid()}")
    try:
        words = [str(each) for each in (ROOT, base / "bundle", native.kubectl, base)]
        done = as_user(base, own, ORDINARY, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        table = [line.split() for line in done.stdout.splitlines()]
        assert [NAME, "1/1", "Running"] in [line[:3] for line in table]
        assert table[-3:-1] == [["0", str(USER), "1"], ["1", "200000", "65536"]]
        assert not [each for folder in own for each in folder.iterdir() if each.is_dir()], "its cgroups are gone"
    finally:
        cgroups.remove(all_of_them)
        subprocess.run(["rm", "-rf", base / "bundle"], check=True)


@NEEDS_ROOT
def test_an_ordinary_user_is_told_what_is_missing(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.mktemp("told")
    code = "import sys; sys.path.insert(0, sys.argv[1]); from sandkube.cluster import linux; linux.check()"
    done = as_user(base, [], code, str(ROOT))
    needs = "UserError: --sandbox linux needs (to make cgroups|a cgroup of your own|newuidmap)"
    assert re.search(needs, done.stderr), done.stderr

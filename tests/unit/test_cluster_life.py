"""The supervisor from start to end, with a stand-in for runsc: every way in which a cluster can end."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandkube.cluster import start, stop
from sandkube.cluster.configured import Configured
from sandkube.cluster.enter import NO_NAMESPACES
from sandkube.cluster.place import STATE, Place, State, place
from sandkube.cluster.processes import with_words
from sandkube.cluster.sandbox import NO_SANDBOX
from sandkube.cluster.start import NodeFailed
from sandkube.cluster.status import row
from sandkube.errors import UserError
from tests.unit.fake_runsc import BOOTS, WAITS, programs

FAILS = """\
print(json.dumps({"type": "failed", "component": "kubelet", "error": "no"}), flush=True)
sys.exit(1)
"""
LEAVES_A_PROCESS = """\
code = "import signal; signal.pause()"
subprocess.Popen([sys.executable, "-c", code, root], start_new_session=True)
"""


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Place]:
    yield (made := place(tmp_path, "a"))
    if made.folder.exists():
        stop.stop(made)


def boot(one: Place, scenario: str, port: int = 0) -> list[dict[str, Any]]:
    with one.lock():
        return list(start.start(one, programs(one.folder.parents[1] / "bundle", scenario), port))


def wait_end(pid: int) -> None:
    """Until a process that is not our child has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert select.select([descriptor], [], [], 20)[0]
    os.close(descriptor)


def state_of(one: Place) -> State:
    state = one.read()
    assert state is not None
    return state


def processes(one: Place) -> list[int]:
    return list(with_words(f"--root={one.runsc}"))


READS = """\
given = sys.stdin.read()
words = json.load(open(bundle + "/config.json"))
open(scenario + "/given", "w").write(json.dumps([words["process"]["args"], words["hostname"], given]))
"""


def test_a_node_gets_its_settings(one: Place) -> None:
    """However large they are: more than a pipe holds."""
    folder = one.folder.parents[1] / "bundle"
    asked = {"disable": ["dns"], "manifests": [{"name": "a.yaml", "text": "#" * 500_000}]}
    wanted = Configured("a.toml", 7443, "one", asked)
    boots = "".join(line for line in BOOTS.splitlines(keepends=True) if '"dns"' not in line).replace("6443", "7443")
    with one.lock():
        list(start.start(one, replace(programs(folder, READS + boots + WAITS), configured=wanted)))
    words, host, given = json.loads((folder / "given").read_text())
    assert (words, host) == (["node", "--settings-fd=0"], "one")
    assert json.loads(given) == asked
    assert one.kubeconfig.read_text() == f"server: https://127.0.0.1:{state_of(one).port}"
    assert (row(one).node, row(one).settings) == ("one", "a.toml")


def test_a_node_that_ends_before_it_has_read_them(one: Place) -> None:
    asked = {"disable": [], "manifests": [{"name": "a.yaml", "text": "#" * 500_000}]}
    made = replace(programs(one.folder.parents[1] / "bundle", FAILS), configured=Configured("a.toml", document=asked))
    with one.lock(), pytest.raises(NodeFailed) as caught:
        list(start.start(one, made))
    assert caught.value.message == "cluster a: kubelet failed: no"
    assert (caught.value.hint or "").endswith("; its settings are those of a.toml")


def test_a_cluster_starts_and_stops(one: Place) -> None:
    events = boot(one, LEAVES_A_PROCESS + BOOTS + WAITS)
    assert {event.get("stage", event["type"]) for event in events} == {
        *("mounts", "apiserver", "access", "ready", "accounts", "manifests", "service", "services", "controllers"),
        "dns",
    }
    state = state_of(one)
    assert (state.phase, state.alive()) == ("running", True)
    assert one.kubeconfig.read_text() == f"server: https://127.0.0.1:{state.port}"
    assert one.kubeconfig.stat().st_mode & 0o777 == 0o600
    assert row(one).memory > 1 << 20
    socket.create_connection(("127.0.0.1", state.port)).close()
    assert len(processes(one)) == 3
    stop.stop(one)
    assert not state.alive()
    assert processes(one) == []
    assert [path.name for path in one.folder.parent.iterdir()] == [".a.lock"]


def test_the_port_can_be_chosen_and_a_taken_one_is_a_sentence(one: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError) as caught:
            boot(one, BOOTS + WAITS, port)
        assert str(caught.value) == (
            f"port {port} of 127.0.0.1: Address already in use\n"
            "  hint: choose another with --port, or leave it out for a free one"
        )
    boot(one, BOOTS + WAITS, port)
    assert state_of(one).port == port


def test_a_failed_component_is_told_with_its_log(one: Place) -> None:
    scenario = BOOTS.partition('say(type="credentials"')[0] + (
        'log("kubelet\\tx")\nsay(type="failed", component="kubelet", error="no cgroup", log=["one", "two"])\n' + WAITS
    )
    with pytest.raises(start.NodeFailed) as caught:
        boot(one, scenario)
    assert str(caught.value) == (
        "cluster a: kubelet failed: no cgroup\n  | one\n  | two\n"
        "  hint: ./do logs --name a kubelet shows more; ./do run-cluster --name a starts it anew"
    )
    assert row(one).state == "failed"
    assert row(one).reason.startswith("kubelet: no cgroup; ")
    assert processes(one) == []


def test_a_sandbox_that_does_not_start_tells_its_last_lines(one: Place) -> None:
    with pytest.raises(start.NodeFailed) as caught:
        boot(one, 'print("cannot do this", file=sys.stderr); sys.exit(3)')
    assert caught.value.message == ("cluster a: sandbox failed: the sandbox ended (exit status 3)\n  | cannot do this")


def test_a_sandbox_that_ends_without_a_word_tells_who_complained_last(one: Place) -> None:
    says = (
        'apiserver\tE0905 10:00:00.000000 1 a.go:1] "Once"',
        'kubelet\tI0905 10:00:00.000000 1 k.go:1] "Starting"',
        'kubelet\tE0905 10:00:00.000000 1 k.go:2] "Failed to start ContainerManager" err="read-only file system"',
        'apiserver\tI0905 10:00:00.000000 1 a.go:1] "Serving"',
    )
    with pytest.raises(start.NodeFailed) as caught:
        boot(one, f"for each in {says!r}:\n    print(each, file=sys.stderr)\nsys.exit(1)")
    assert caught.value.message == (
        "cluster a: sandbox failed: the sandbox ended (exit status 1)\n"
        '  | kubelet: I0905 10:00:00.000000 1 k.go:1] "Starting"\n'
        '  | kubelet: E0905 10:00:00.000000 1 k.go:2] "Failed to start ContainerManager" err="read-only file system"'
    )


@pytest.mark.parametrize(
    ("kind", "hint"), [("modern", "./do run-cluster --in-place"), ("confined", "a system call that gVisor needs")]
)
def test_a_sandbox_that_is_refused_says_the_way_out_of_its_kind(one: Place, kind: str, hint: str) -> None:
    one.folder.mkdir(parents=True)
    replace(programs(one.folder.parents[1] / "bundle", ""), kind=kind).prepare(one)
    told = start._failure(one, {"component": "sandbox", "error": f"{NO_SANDBOX}: EOF"})
    assert told.hint is not None
    assert hint in told.hint


def test_a_machine_without_namespaces_is_told_how_to_allow_them(one: Place) -> None:
    with pytest.raises(start.NodeFailed) as caught:
        boot(one, f'print({NO_NAMESPACES!r} + "user namespace: No space left on device", file=sys.stderr)')
    assert caught.value.hint is not None
    assert "sysctl -w user.max_user_namespaces=10000" in caught.value.hint


def test_a_sandbox_that_ends_later_is_in_the_status(one: Place) -> None:
    boot(one, LEAVES_A_PROCESS + BOOTS + WAITS)
    state = state_of(one)
    main = next(pid for pid in processes(one) if b"run\0" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(main, signal.SIGKILL)
    wait_end(state.pid)
    assert processes(one) == []
    assert row(one).reason.startswith(
        "sandbox: the sandbox ended (killed by signal 9; did this machine run out of memory?); "
    )
    assert not one.kubeconfig.exists()
    boot(one, BOOTS + WAITS)
    assert row(one).state == "running"


def test_a_forwarder_that_dies_is_started_again_on_its_port(one: Place) -> None:
    boot(one, BOOTS + WAITS)
    port = state_of(one).port
    logs = one.folder / "supervisor.log"
    forwarder = next(pid for pid in processes(one) if b"port-forward" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(forwarder, signal.SIGKILL)
    wait_end(forwarder)
    stop_at = threading.Event()
    threading.Timer(20, stop_at.set).start()
    while not stop_at.is_set():  # nothing tells a client that a port is open again but the port itself
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except ConnectionRefusedError:
            continue
    assert state_of(one).alive(), logs.read_text()


def test_a_port_that_is_taken_meanwhile_is_another_one_then(one: Place) -> None:
    """By a connection, say, that came upon it: it is tried again, and is no cluster's end."""
    boot(one, BOOTS + WAITS)
    state = state_of(one)
    forwarder = next(pid for pid in processes(one) if b"port-forward" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(state.pid, signal.SIGSTOP)
    os.kill(forwarder, signal.SIGKILL)
    wait_end(forwarder)
    with socket.create_server(("127.0.0.1", state.port)):
        os.kill(state.pid, signal.SIGCONT)
        eventually(lambda: state_of(one).port != state.port)
        port = state_of(one).port
        socket.create_connection(("127.0.0.1", port)).close()
    assert one.kubeconfig.read_text() == f"server: https://127.0.0.1:{port}"
    assert row(one).state == "running"


FILLS = f"""\
state = os.path.dirname(root.removeprefix("--root=")) + "/.{STATE}"
os.mkdir(state)
"""


def test_a_disk_that_fills_meanwhile_ends_nothing(one: Place) -> None:
    """A folder in the place of its temporary file keeps the state from being written; it is, when there is room."""
    before, _, after = BOOTS.partition('say(type="stage", stage="ready"')
    boot(one, f'{before}{FILLS}say(type="stage", stage="ready"{after}{WAITS}')
    assert state_of(one).phase == "starting"
    (one.folder / f".{STATE}").rmdir()
    eventually(lambda: state_of(one).phase == "running")
    assert f"{STATE}: Is a directory" in (one.logs / "supervisor.log").read_text()


def eventually(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)  # what another process does


def test_children_die_with_a_killed_supervisor_and_the_rest_is_cleared(one: Place) -> None:
    boot(one, LEAVES_A_PROCESS + BOOTS + WAITS)
    state = state_of(one)
    orphan = next(pid for pid in processes(one) if b"-c" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))
    children = [pid for pid in processes(one) if pid != orphan]
    descriptors = [os.pidfd_open(pid) for pid in children]
    os.kill(state.pid, signal.SIGKILL)
    for descriptor in descriptors:
        assert select.select([descriptor], [], [], 20)[0]
        os.close(descriptor)
    assert row(one).state == "killed"
    assert processes(one) == [orphan]
    stop.stop(one)
    assert processes(one) == []
    assert not one.folder.exists()


def test_a_cluster_whose_folder_is_removed_ends(one: Place) -> None:
    boot(one, BOOTS + WAITS)
    state = state_of(one)
    (one.folder / "state.json").unlink()
    wait_end(state.pid)
    assert processes(one) == []
    assert not (one.folder / "state.json").exists()


def test_a_cluster_whose_state_is_damaged_can_be_stopped(one: Place) -> None:
    boot(one, BOOTS + WAITS)
    state = state_of(one)
    (one.folder / "state.json").write_text("{")
    assert row(one).state == "damaged"
    stop.stop(one)
    assert not state.alive()
    assert processes(one) == []
    assert not one.folder.exists()


def test_stopping_a_cluster_that_starts(one: Place) -> None:
    """The one that starts it learns of it; nothing waits for the boot."""
    scenario = BOOTS.partition('say(type="stage", stage="ready"')[0] + WAITS
    made = programs(one.folder.parents[1] / "bundle", scenario)
    with pytest.raises(UserError, match="^cluster a was stopped while it started$"), one.lock():
        for event in start.start(one, made):
            if event["type"] == "access":
                stopper = threading.Thread(target=stop.stop, args=(one,))
                stopper.start()
    stopper.join()
    assert not one.folder.exists()


def test_leaving_early_removes_the_cluster(one: Place) -> None:
    made = programs(one.folder.parents[1] / "bundle", BOOTS + WAITS)
    with one.lock():
        events = start.start(one, made)
        assert next(events)["stage"] == "mounts"
        with pytest.raises(KeyboardInterrupt):
            events.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    assert not one.folder.exists()
    assert processes(one) == []


def test_too_little_memory_is_a_sentence(one: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "MEMORY_NEEDED", 1 << 60)
    monkeypatch.setattr(start, "memory_limit", lambda: 0)
    with pytest.raises(UserError, match=r"^\d+ MB of memory are free; a node needs 1099511627776 MB to start"):
        boot(one, BOOTS + WAITS)


def test_a_full_disk_is_a_sentence(one: Place) -> None:
    """A limit on the size of files stands in for the disk: both refuse the write. Compiled modules are smaller."""
    made = programs(one.folder.parents[1] / "bundle", BOOTS.replace("6443", "6443" + "x" * 60000) + WAITS)
    code = (
        "import resource, signal, sys\nfrom pathlib import Path\n"
        "from sandkube.cluster import start\nfrom sandkube.cluster.place import Place\n"
        "from sandkube.cluster.programs import Programs\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (57344, 57344))\n"
        f"made = Programs(Path({str(made.runsc)!r}), Path({str(made.bundle)!r}), Path('/'))\n"
        f"one = Place(Path({str(one.folder)!r}))\n"
        "try:\n  with one.lock(): list(start.start(one, made))\n"
        "except start.NodeFailed as error: print(error.message)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.splitlines()[0] == (f"cluster a: supervisor failed: {one.kubeconfig}: File too large"), (
        done.stderr
    )


def test_stopping_nothing_is_a_sentence(one: Place) -> None:
    with pytest.raises(UserError, match="^there is no cluster a\n  hint: ./do status lists them$"):
        stop.stop(one)

"""A boot that hangs: it is bounded, says what is missing, and a signal ends it at once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sandkube.cluster import in_place, pod, start, stop
from sandkube.cluster.deadline import NEVER, Deadline
from sandkube.cluster.place import Place, State, birth, boot_id, place
from sandkube.cluster.pod import Kubectl, table
from sandkube.cluster.processes import with_words
from sandkube.cluster.programs import Programs
from sandkube.cluster.progress import OWED, WHOLE, Progress
from sandkube.cluster.status import row
from sandkube.errors import UserError
from tests.unit.fake_runsc import BOOTS, WAITS, programs

ROOT = Path(__file__).resolve().parents[2]
HANGS = BOOTS.partition('say(type="stage", stage="ready"')[0].replace(
    'up")\n', 'up")\nfor each in range(30):\n    log(f"containerd\\tline {each}")\n'
)
COMMAND = """\
import sys, time
from pathlib import Path
from sandkube.cli.building import Checkout
from sandkube.app.guard import guarded
from sandkube.app.run_cluster import run_cluster
from sandkube.app.signals import release_signals
from sandkube.cluster.programs import Programs
home, bundle = Checkout(lambda *words: 0, outputs=Path(sys.argv[1])), Path(sys.argv[2])
release_signals()
made = Programs(bundle / "runsc", bundle, Path("/"))
words = {"name": "a", "port": 0, "timeout": float(sys.argv[3]), "json": False, "keep": False}
words |= {"publish": (), "wait": False, "kubeconfig-merge": False}
sys.exit(guarded(lambda: run_cluster(home, words, made, time.monotonic(), "")))
"""


@dataclass(frozen=True)
class Told(Deadline):
    """A deadline that is over when a test says so: nothing here depends on how fast the machine is."""

    over: list[bool] = field(default_factory=list)

    def left(self) -> float | None:
        return 0.0 if self.over else 0.01


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Place]:
    yield (made := place(tmp_path, "a"))
    if made.folder.exists():
        stop.stop(made)


def everything(one: Place) -> list[int]:
    """Supervisor and sandbox."""
    return [*with_words(stop.SUPERVISOR, str(one.folder)), *with_words(f"--root={one.runsc}")]


def stop_sandbox(one: Place) -> None:
    for pid in with_words(f"--root={one.runsc}"):
        os.kill(pid, signal.SIGSTOP)


def stop_all(one: Place) -> None:
    for pid in everything(one):
        os.kill(pid, signal.SIGSTOP)


def nothing(_one: Place) -> None:
    """The sandbox waits for something by itself."""


HANG = pytest.mark.parametrize("hang", [nothing, stop_sandbox, stop_all], ids=["waits", "stopped", "all stopped"])


def overdue(one: Place, hang: Callable[[Place], None]) -> start.NodeFailed:
    """The failure of a boot that hangs once the API can be reached."""
    deadline = Told(5.0)
    made = programs(one.folder.parents[1] / "bundle", HANGS + WAITS)
    with pytest.raises(start.NodeFailed) as caught, one.lock():
        for event in start.start(one, made, deadline=deadline):
            if event["type"] == "access":
                hang(one)
                deadline.over.append(True)
    return caught.value


@HANG
def test_a_boot_that_takes_too_long_says_what_is_missing(one: Place, hang: Callable[[Place], None]) -> None:
    told = overdue(one, hang)
    about = (
        "not up within 5 s: the last stage was access, missing are probe, settings, network, images, certificates, "
        "datastore, containerd, accounts, manifests, services, dns, ready, service, controllers; sandbox owes probe"
    )
    assert told.message == f"cluster a is {about}"
    assert told.hint == (
        "--timeout gives it longer; ./do logs --name a shows more; ./do run-cluster --name a starts it anew"
    )
    assert everything(one) == []
    assert (row(one).state, row(one).reason.partition("; ./do")[0]) == ("failed", about)
    assert not one.kubeconfig.exists()
    assert (one.logs / "apiserver.log").read_text() == "up\n"


def test_the_log_of_who_owes_the_next_stage_is_shown(one: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandkube.cluster.progress.OWED", {"apiserver": "apiserver", "ready": "containerd"})
    told = overdue(one, nothing)
    first, *lines = told.message.splitlines()
    assert first.endswith("the last stage was access, missing are ready; containerd owes ready")
    assert lines == [f"  | line {each}" for each in range(10, 30)]
    assert told.hint is not None
    assert "; ./do logs --name a containerd shows more; " in told.hint


def test_a_sandbox_that_says_nothing_is_bounded_by_the_clock(one: Place) -> None:
    made = programs(one.folder.parents[1] / "bundle", WAITS)
    with pytest.raises(start.NodeFailed) as caught, one.lock():
        list(start.start(one, made, deadline=Deadline(0.2)))
    assert caught.value.message.startswith(
        "cluster a is not up within 0.2 s: it reached no stage, missing are probe, mounts, "
    )
    assert everything(one) == []
    assert row(one).state == "failed"


def test_a_supervisor_that_says_nothing_is_not_waited_for() -> None:
    reader, writer = os.pipe()
    with pytest.raises(TimeoutError):
        list(start._events(reader, Deadline(0.01)))
    os.write(writer, b'{"type": "a"}\n{"type": "b"}\n{"ty')
    events = start._events(reader, NEVER)
    assert [next(events), next(events)] == [{"type": "a"}, {"type": "b"}]
    os.write(writer, b'pe": "c"}\n{"half')
    os.close(writer)
    assert list(events) == [{"type": "c"}]
    os.close(reader)


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """A stand-in for the script that boots in place: it comes to one stage, and hangs before it has tried anything."""
    (tmp_path / "rootfs").mkdir()
    hangs = tmp_path / in_place.SCRIPT
    hangs.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = run ]; then printf "node\\tmounting\\n" >&2; echo \'{"type": "stage", "stage": "probe"}\'; fi\n'
        "exec sleep 600\n"
    )
    hangs.chmod(0o755)
    monkeypatch.setattr(in_place, "script", lambda _bundle: hangs)
    return Programs(Path(), tmp_path, Path(), in_place.KIND)


def test_a_boot_in_place_is_bounded(one: Place, script: Programs) -> None:
    deadline = Told(5.0)
    with pytest.raises(start.NodeFailed) as caught, one.lock():
        for _event in start.start(one, script, deadline=deadline):
            deadline.over.append(True)
    first, *lines = caught.value.message.splitlines()
    assert first.startswith("cluster a is not up within 5 s: the last stage was probe, missing are mounts, settings, ")
    assert (first.endswith("; node owes mounts"), lines) == (True, ["  | mounting"])
    assert list(with_words(stop.SUPERVISOR, str(one.folder))) == []
    assert row(one).state == "failed"


def test_the_trial_before_it_is_bounded(script: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_place, "TRIAL", 0.2)
    with pytest.raises(UserError, match=r"^sandkube: no end after 0\.2 s$"):
        in_place.check(script.bundle, ())


@HANG
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_ends_a_boot_that_hangs(one: Place, hang: Callable[[Place], None], number: signal.Signals) -> None:
    bundle = one.folder.parents[1] / "bundle"
    programs(bundle, HANGS + WAITS)
    words = [sys.executable, "-c", COMMAND, str(one.folder.parents[1]), str(bundle), "0"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            next(line for line in process.stderr if "apiserver" in line)
            hang(one)
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, "interrupted; " in said) == (130, True), said
    assert everything(one) == []
    assert not one.folder.exists()


def test_every_stage_of_the_node_has_somebody_who_owes_it() -> None:
    table = (ROOT / "native/node/table.go").read_text()
    row = r'^\t\t(?:units\.Unit)?{Name: (?:"|traffic\.)([\w-]+)"?,(?: Owner: "([\w-]+)",)?(.*)}'
    rows = re.findall(row, table, re.MULTILINE)
    owed = {name.lower(): owner or name.lower() for name, owner, rest in rows if "Silent: true" not in rest}
    assert owed | {"probe": "sandbox", "access": "sandbox", "egress": "egress"} == {**OWED}
    assert WHOLE - {*OWED} == set()


def test_who_owes_what() -> None:
    progress = Progress([stage for stage in OWED if stage not in ("containerd", "services", "controllers")])
    assert progress.debt() == (
        "containerd",
        "the last stage was nodes, missing are containerd, services, controllers; containerd owes containerd",
    )
    assert not progress.whole
    assert Progress([*WHOLE]).whole


def test_a_kubectl_that_does_not_end_is_a_sentence(one: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod, "_ANSWER", 0.2)
    one.folder.mkdir(parents=True)
    one.write(State("running", os.getpid(), birth(os.getpid()), boot_id(), "sandkube-1", 1.0))
    kubectl = one.folder / "kubectl"
    kubectl.write_text("#!/bin/sh\nexec sleep 600\n")
    kubectl.chmod(0o755)
    with pytest.raises(UserError) as caught:
        table(Kubectl(kubectl, one, Deadline(0.1)))
    (one.folder / "state.json").unlink()
    assert re.fullmatch(r"kubectl get pods: cluster a gave no answer in \d s", caught.value.message)
    assert caught.value.hint == "./do logs --name a apiserver shows more; --timeout gives it longer"

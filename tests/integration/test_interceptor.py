"""The interceptor around programs that make every call in every way, on this machine and inside gVisor."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from sandkube.cluster.place import Place
from sandkube.cluster.programs import Programs, bundle, sandbox
from sandkube.run import base_environment

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "outputs/result"
CASES = ("calls", "memory", "race", "children", "exec", "threads", "signals", "stop")
SOAK = 60  # seconds, shared out between the two places


class Runs(Protocol):
    """Runs a command where the files are; `folder` is theirs there."""

    folder: Path

    def __call__(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]: ...


class Here:
    """This machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)


class Inside:
    """A sandbox whose first process waits."""

    folder = Path("/t")

    def __init__(self, place: Place) -> None:
        self.place = place

    def __call__(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        one = sandbox(self.place, "interceptor")
        return subprocess.run(
            one.execute(words),
            env=base_environment(Path("/root")),
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )


def fill(folder: Path, seen: Path) -> None:
    """The files that target.c tells of; `seen` is the folder's name where it runs."""
    for name in ("named", "prepared", "nameX"):
        (folder / name).mkdir(parents=True)
    files = {
        "prepared/file": "prepared\n",
        "prepared/raced": "prepared\n",
        "nameX/raced": "plain\n",
        "named/raced": "named\n",
        "named/new-name": "plain\n",
        "plain": "plain\n",
        "rules": f"# for the tests\n{seen}/named/ {seen}/prepared/\n\n*/old-name\tnew-name\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    (folder / "prepared/link").symlink_to("target")
    for product in ("interceptor/bin/interceptor", "test-target/bin/target", "test-goroutines/bin/goroutines"):
        if not (RESULT / product).exists():
            pytest.fail(f"{RESULT / product} is missing: run ./do build first", pytrace=False)
        shutil.copy(RESULT / product, folder)


@contextmanager
def inside(base: Path) -> Iterator[Runs]:
    root = base / "root"
    for name in ("bin", "dev", "proc", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(RESULT / "busybox/bin/busybox", root / "bin")
    for applet in ("sh", "sleep"):
        (root / "bin" / applet).symlink_to("busybox")
    fill(root / "t", Path("/t"))
    place = Place(base / "guest")
    place.folder.mkdir()
    place.runsc.mkdir()
    made = Programs((RESULT / "gvisor/bin/runsc").resolve(), (RESULT / "bundle").resolve(), Path())
    made.prepare(place)
    config = bundle(place) / "config.json"
    spec = json.loads(config.read_text())
    spec["root"]["path"] = str(root)
    spec["process"]["args"] = ["/bin/sh", "-c", "echo up; exec sleep 2147483647"]
    config.write_text(json.dumps(spec))
    process = subprocess.Popen(
        sandbox(place, "interceptor").run(bundle(place), os.getpid()),
        env=base_environment(Path("/root")),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield Inside(place)
        process.kill()


@pytest.fixture(scope="module", params=["here", "in gVisor"])
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    base = tmp_path_factory.mktemp("i")
    if request.param == "here":
        fill(base / "t", base / "t")
        yield Here(base / "t")
    else:
        with inside(base) as made:
            yield made


def intercepted(runs: Runs, *words: str, options: tuple[str, ...] = ()) -> list[str]:
    where = str(runs.folder)
    return [f"{where}/interceptor", "--rules", f"{where}/rules", *options, "--", *words]


@pytest.mark.parametrize("case", CASES)
def test_case(runs: Runs, case: str) -> None:
    done = runs(*intercepted(runs, f"{runs.folder}/target", case, str(runs.folder)))
    assert (done.returncode, set(done.stdout.split())) == (0, {"ok"}), done.stdout + done.stderr


@pytest.mark.parametrize("case", ["calls", "exec"])
def test_case_with_a_stop_at_every_call(runs: Runs, case: str) -> None:
    done = runs(*intercepted(runs, f"{runs.folder}/target", case, str(runs.folder), options=("--all",)))
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


@pytest.mark.parametrize("case", ["calls", "children"])
def test_a_case_fails_without_the_interceptor(runs: Runs, case: str) -> None:
    assert runs(f"{runs.folder}/target", case, str(runs.folder)).returncode == 1


def test_goroutines(runs: Runs) -> None:
    done = runs(*intercepted(runs, f"{runs.folder}/goroutines", str(runs.folder)))
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


def test_soak(runs: Runs) -> None:
    seed = int(os.environ.get("SEED", time.time_ns() % 2**31))
    print(f"seed {seed}")
    seconds = int(os.environ.get("SOAK", SOAK // 2))
    words = intercepted(runs, f"{runs.folder}/target", "soak", str(runs.folder), str(seconds), str(seed))
    done = runs(*words, timeout=seconds + 120)
    assert (done.returncode, set(done.stdout.split())) == (0, {"ok"}), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill -15 $$; sleep 5", 143)]
)
def test_exit_status(runs: Runs, script: str, status: int) -> None:
    assert runs(*intercepted(runs, "/bin/sh", "-c", script)).returncode == status


def test_it_waits_for_what_the_program_leaves_behind(runs: Runs) -> None:
    script = f"(sleep 0.3; read -r x <{runs.folder}/named/file; echo later $x) & exit 4"
    done = runs(*intercepted(runs, "/bin/sh", "-c", script))
    assert (done.returncode, done.stdout) == (4, "later prepared\n")


def test_log(runs: Runs) -> None:
    done = runs(*intercepted(runs, f"{runs.folder}/target", "open", str(runs.folder), options=("--log", "-")))
    assert re.fullmatch(rf"\d+ open {runs.folder}/prepared/file\nstops \d+ redirections 1\n", done.stderr), done.stderr


def test_own_errors(runs: Runs) -> None:
    program = f"{runs.folder}/interceptor"
    for words, status, text in (
        ([], 125, "interceptor: --rules FILE is missing; --help tells more\n"),
        (["--rules", "/nosuch", "--", "x"], 125, "interceptor: /nosuch: No such file or directory\n"),
        (["--rules", f"{runs.folder}/rules"], 125, "interceptor: no program is named; --help tells more\n"),
        (["--rules", f"{runs.folder}/rules", "--", "no-such-program"], 127, ": No such file or directory\n"),
        (["--rules", f"{runs.folder}/rules", "--", f"{runs.folder}/plain"], 126, ": Permission denied\n"),
        (["--nonsense"], 125, "--help tells more\n"),
    ):
        done = runs(program, *words)
        assert done.returncode == status, words
        assert done.stderr.endswith(text), done.stderr
    assert runs(program, "--help").returncode == 0


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        ("/a", "1: a rule is two paths"),
        ("\n/a/ /b/ /c/", "2: a rule is two paths"),
        ("a /b", "1: a path does not start with a slash"),
        ("/a/ /b", "1: both paths end with a slash, or neither"),
        ("/a/../b /c", '1: a path has an empty part, "." or ".."'),
        ("/a//b /c", '1: a path has an empty part, "." or ".."'),
        ("*/a/b c", '1: a rule for last components is "*/NAME NAME"'),
        ("/" + "a" * 5000 + " /b", "1: a path is too long"),
        ("/a /b\n" * 65, "65: too many rules, 64 are the most"),
    ],
)
def test_wrong_rules(tmp_path: Path, rules: str, text: str) -> None:
    file = tmp_path / "rules"
    file.write_text(rules)
    words = [RESULT / "interceptor/bin/interceptor", "--rules", file, "--", "true"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (125, f"interceptor: {file}:{text}\n")


@pytest.fixture
def here(tmp_path: Path) -> Here:
    fill(tmp_path / "t", tmp_path / "t")
    return Here(tmp_path / "t")


def children_of(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def waiting(runs: Here) -> tuple[subprocess.Popen[str], int]:
    """The interceptor around a program that waits, and the program's id."""
    words = intercepted(runs, str(runs.folder / "target"), "wait", str(runs.folder))
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, preexec_fn=heed_hangups)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    return process, children_of(process.pid)[0]


def heed_hangups() -> None:
    """As nohup(1) does not: these tests may run under it."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def ends(process: subprocess.Popen[str]) -> int:
    """The exit status; a process that does not end is killed."""
    try:
        return process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def test_what_is_traced_dies_with_its_tracer(here: Here) -> None:
    process, traced = waiting(here)
    descriptor = os.pidfd_open(traced)
    with process:
        process.kill()
    assert select.select([descriptor], [], [], 10)[0], "it lives on"
    os.close(descriptor)


def test_a_traced_program_can_be_killed(here: Here) -> None:
    process, traced = waiting(here)
    with process:
        os.kill(traced, signal.SIGKILL)
        assert ends(process) == 137


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_signals_are_passed_on(here: Here, number: signal.Signals) -> None:
    process, _ = waiting(here)
    with process:
        process.send_signal(number)
        assert ends(process) == 128 + number


def test_an_ordinary_python(here: Here) -> None:
    """A large dynamic program with threads."""
    code = (
        "import sys, threading\n"
        "def work():\n"
        "    for _ in range(300): assert open(sys.argv[1]).read() == 'prepared\\n'\n"
        "all = [threading.Thread(target=work) for _ in range(8)]\n"
        "[each.start() for each in all]; [each.join() for each in all]; print('ok')\n"
    )
    done = here(*intercepted(here, sys.executable, "-c", code, str(here.folder / "named/file")))
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


def test_the_manual_page_has_every_option_and_call() -> None:
    page = (ROOT / "native/interceptor/interceptor.1").read_text().replace("\\-", "-")
    folder = ROOT / "native/interceptor"
    options = re.findall(r'\{"([a-z]+)", (?:no|required)_argument', (folder / "interceptor.c").read_text())
    calls = re.findall(r'\{(?:SYS_\w+|\d+), "(\w+)", (?:true|false)', (folder / "calls.c").read_text())
    statuses = re.findall(r"(?:OWN_ERROR|NOT_EXECUTABLE|NOT_FOUND) = (\d+)", (folder / "fail.h").read_text())
    assert (len(options), len(calls), len(statuses)) == (5, 15, 3)
    for word in (*(f"--{option}" for option in options), *calls, *statuses):
        assert re.search(rf"(?<!\w){word}\b", page), word

"""The interceptor around programs that make every call in every way, on this machine and inside gVisor."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.interceptors import ROOT, Here, Runs, fill, intercepted
from tests.sanitized import program

CASES = ("calls", "memory", "race", "children", "exec", "threads", "signals", "stop")
SOAK = 60  # seconds, shared out between the two places


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
        ("// /b/", '1: a path has an empty part, "." or ".."'),
        ("/. /b", '1: a path has an empty part, "." or ".."'),
        ("/a/ /b//", '1: a path has an empty part, "." or ".."'),
        ("*/a/b c", '1: a rule for last components is "*/NAME NAME"'),
        ("*/.. a", '1: a name is "." or ".."'),
        ("*/. a", '1: a name is "." or ".."'),
        ("*/a ..", '1: a name is "." or ".."'),
        ("*/a .", '1: a name is "." or ".."'),
        ("/a /b\n/c\0 /d\n", "2: the line has a NUL byte"),
        ("# a\0b\n", "1: the line has a NUL byte"),
        ("/" + "a" * 5000 + " /b", "1: a path is too long"),
        ("/a /b\n" * 65, "65: too many rules, 64 are the most"),
    ],
)
def test_wrong_rules(tmp_path: Path, rules: str, text: str) -> None:
    file = tmp_path / "rules"
    file.write_text(rules)
    words = [str(program("interceptor")), "--rules", str(file), "--", "true"]
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

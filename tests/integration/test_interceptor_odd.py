"""What programs rarely do, and what the interceptor once did not bear: tests/targets/interceptor/odd.c."""

from __future__ import annotations

import os

import pytest

from tests.interceptors import Here, Runs, intercepted

CASES = ("turns", "replaced", "unmap", "filter", "slash", "upper half", "chroot", "mount", "vfork")
OF_ROOT = ("chroot", "mount")
LIMIT = 30  # seconds; each takes one or two


def needs_root(runs: Runs) -> None:
    if isinstance(runs, Here) and os.geteuid() != 0:
        pytest.skip("only root may change roots and namespaces")


def target(runs: Runs, case: str) -> list[str]:
    return intercepted(runs, f"{runs.folder}/target", case, str(runs.folder))


def in_sh(runs: Runs, script: str, *words: str) -> tuple[int, str]:
    """`words` are "$@" in the script."""
    done = runs("/bin/sh", "-c", script, "sh", *words, timeout=LIMIT)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES)
def test_odd_case(runs: Runs, case: str) -> None:
    if case in OF_ROOT:
        needs_root(runs)
    done = runs(*target(runs, case), timeout=LIMIT)
    assert (done.returncode, set(done.stdout.split())) == (0, {"ok"}), done.stdout + done.stderr


def test_it_ends_when_nothing_is_traced_any_more(runs: Runs) -> None:
    """Whatever other children it has: with them, waitpid(2) waits for ever."""
    script = 'sleep 60 >/dev/null 2>&1 & echo $!; exec "$@"'
    status, said = in_sh(runs, script, *target(runs, "storm"))
    other, *rest = said.split()
    assert (status, rest) == (0, ["ok"])
    assert in_sh(runs, f"kill {other}") == (0, "")


def test_sigterm_ends_what_the_program_has_left_behind(runs: Runs) -> None:
    """Those that come too early are ignored by the program; it takes a hundred at most."""
    started = f"{runs.folder}/started"
    program = intercepted(runs, "/bin/sh", "-c", f"trap '' TERM; sleep 60 >/dev/null 2>&1 & echo $! >{started}; exit 4")
    script = (
        f'"$@" & tracer=$!; until [ -s {started} ]; do sleep 0.1; done\n'
        "for each in 1 2 3 4 5 6 7 8 9 0; do kill -TERM $tracer || break; sleep 0.3; done 2>/dev/null\n"
        "kill -KILL $tracer 2>/dev/null; wait $tracer; echo $?\n"
        f"read -r left <{started}; read -r x 2>/dev/null </proc/$left/cmdline; echo left: $x"
    )
    assert in_sh(runs, script, *program) == (0, "143\nleft:\n")


def test_another_pid_namespace_is_refused(runs: Runs) -> None:
    """There /proc has others by the ids of those that are traced."""
    needs_root(runs)
    words = [f"{runs.folder}/target", "namespace", str(runs.folder), *target(runs, "open")]
    done = runs(*words, timeout=LIMIT)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == "interceptor: /proc is missing or of another PID namespace\n"


def test_a_log_reader_may_go_away(runs: Runs) -> None:
    where = runs.folder
    program = intercepted(runs, f"{where}/target", "children", str(where), options=("--log", "-"))
    script = f'{{ "$@" 2>&1 >{where}/said; echo $? >{where}/status; }} | {{ read -r line; }}'
    assert in_sh(runs, script, *program) == (0, "")
    assert in_sh(runs, f"read -r status <{where}/status; echo $status") == (0, "0\n")


def test_rules_with_carriage_returns(runs: Runs) -> None:
    where = runs.folder
    script = f"printf '# rules\\r\\n\\r\\n{where}/named/ {where}/prepared/\\r\\n' >{where}/crlf"
    assert in_sh(runs, script) == (0, "")
    words = [f"{where}/interceptor", "--rules", f"{where}/crlf", f"{where}/target", "open", str(where)]
    done = runs(*words, timeout=LIMIT)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr

"""Children get a built environment, die with their parent, and report how they ended."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sandkube.errors import UserError
from sandkube.run import CommandFailed, base_environment, run, run_attached


def test_environment_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    words = [sys.executable, "-c", "import os; print(sorted(os.environ))"]
    done = run(words, env=base_environment(tmp_path), cwd=tmp_path, capture=True)
    assert "SECRET" not in done.stdout.decode()


def test_failure_tells_the_status(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"^sh: exit status 3$"):
        run(["sh", "-c", "exit 3"], env=base_environment(tmp_path), cwd=tmp_path)


def test_missing_program_is_a_sentence(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as sink, pytest.raises(CommandFailed):
        run([tmp_path / "no-such"], env=base_environment(tmp_path), cwd=tmp_path, log=sink)
    assert "No such file or directory" in log.read_text()


def test_child_dies_with_its_parent(tmp_path: Path) -> None:
    """The grandchild holds the write end of a pipe: end of file tells that it is gone, without a poll of /proc."""
    ours, theirs = os.pipe()
    child = f"import os, signal; os.write({theirs}, b'up\\n'); signal.pause()"
    code = (
        "import sys; from pathlib import Path; from sandkube.run import run, base_environment\n"
        f"run([sys.executable, '-c', {child!r}], env=base_environment(Path('/')), cwd=Path('/'), pass_fds=({theirs},))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], pass_fds=(theirs,), cwd=Path(__file__).parents[2])
    os.close(theirs)
    assert os.read(ours, 3) == b"up\n"
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    readable, _, _ = select.select([ours], [], [], 10)
    assert readable and os.read(ours, 1) == b""
    os.close(ours)


def test_attached_files_are_handed_over_as_pipes(tmp_path: Path) -> None:
    """The program sees pipes, our place in the files stays right, and its exit status comes back."""
    program = (
        "import os, stat, sys\n"
        "print([stat.S_ISFIFO(os.fstat(each).st_mode) for each in (0, 1, 2)], sys.stdin.read())\n"
        "sys.exit(3)"
    )
    code = (
        "import sys; from sandkube.run import run_attached\n"
        "print('before', flush=True)\n"
        f"print('after', run_attached([sys.executable, '-c', {program!r}], {{}}))"
    )
    (tmp_path / "in").write_text("given\n")
    with (tmp_path / "in").open() as given, (tmp_path / "out").open("a") as out:
        subprocess.run(
            [sys.executable, "-c", code], stdin=given, stdout=out, stderr=out, cwd=Path(__file__).parents[2], check=True
        )
    assert (tmp_path / "out").read_text() == "before\n[True, True, True] given\n\nafter 3\n"


def test_attached_program_that_is_missing_is_a_sentence() -> None:
    with pytest.raises(UserError, match=r"^/no/such: No such file or directory\n  hint: \./do build makes it$"):
        run_attached(["/no/such"], {})


def test_a_command_is_killed_with_another_process(tmp_path: Path) -> None:
    other = subprocess.Popen(["/bin/sh", "-c", "read x"], stdin=subprocess.PIPE)
    descriptor = os.pidfd_open(other.pid)
    assert other.stdin is not None
    other.stdin.close()
    with pytest.raises(CommandFailed, match=r"^sleep: signal 9$"):
        run(["sleep", "60"], env=base_environment(tmp_path), cwd=tmp_path, no_longer_than=descriptor)
    other.wait()
    os.close(descriptor)
    mine = os.pidfd_open(os.getpid())
    assert run(["true"], env=base_environment(tmp_path), cwd=tmp_path, no_longer_than=mine).status == 0
    os.close(mine)

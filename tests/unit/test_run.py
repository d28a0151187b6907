"""Children get a built environment, die with their parent, and report how they ended."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sandkube.run import CommandFailed, base_environment, run


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

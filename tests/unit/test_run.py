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
from sandkube.run import CommandFailed, Finished, TimedOut, base_environment, run, run_attached


def test_environment_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    words = [sys.executable, "-c", "import os; print(sorted(os.environ))"]
    done = run(words, env=base_environment(tmp_path), cwd=tmp_path, capture=True)
    assert "SECRET" not in done.stdout.decode()


def test_programs_of_the_user_are_found_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher finds git on the user's PATH, so the engine has to."""
    (tmp_path / "only-here").write_text("#!/bin/sh\necho found\n")
    (tmp_path / "sh").write_text("#!/bin/false\n")
    for name in ("only-here", "sh"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:relative:{os.environ['PATH']}")
    env = base_environment(tmp_path)
    assert run(["only-here"], env=env, cwd=Path("/"), capture=True).stdout == b"found\n"
    assert "relative" not in env["PATH"]


def test_failure_tells_the_status(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"^sh: exit status 3$"):
        run(["sh", "-c", "exit 3"], env=base_environment(tmp_path), cwd=tmp_path)


def test_missing_program_is_a_sentence(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as sink, pytest.raises(CommandFailed):
        run([tmp_path / "no-such"], env=base_environment(tmp_path), cwd=tmp_path, log=sink)
    assert "No such file or directory" in log.read_text()


def test_child_dies_with_its_parent() -> None:
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
    with pytest.raises(UserError, match=r"^/no/such: No such file or directory$"):
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


def test_a_command_is_killed_when_it_takes_too_long(tmp_path: Path) -> None:
    script = "exec sleep 60 & echo $!; wait"
    with pytest.raises(TimedOut, match=r"^sh: no end after 0\.2 s$") as caught:
        run(["sh", "-c", script], env=base_environment(tmp_path), cwd=tmp_path, capture=True, check=False, seconds=0.2)
    assert caught.value.finished.status == -9
    assert run(["true"], env=base_environment(tmp_path), cwd=tmp_path, seconds=60).status == 0


def test_programs_are_found_where_the_user_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NixOS, Guix and Homebrew have git in none of the usual folders. These come first; a relative one never counts."""
    program = tmp_path / "one-of-ours"
    program.write_text("#!/bin/sh\necho here\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f".::bin:{tmp_path}:/usr/bin")
    env = base_environment(tmp_path)
    assert env["PATH"] == f"/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:{tmp_path}"
    assert run(["one-of-ours"], env=env, cwd=tmp_path, capture=True).stdout == b"here\n"


def python(code: str, *, interrupt_at: str = "") -> tuple[int, str]:
    """Run code in a Python of its own, with SIGINT at the line that it then prints; its status and the other lines.

    What a shell starts in the background ignores SIGINT, these tests too then, and the Python must not.
    """
    argv = ["env", "--default-signal=INT", sys.executable, "-c", code]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            if line.strip() == interrupt_at:
                process.send_signal(signal.SIGINT)
            else:
                said.append(line)
    return process.returncode, "".join(said)


def test_the_signal_handler_needs_no_lock_that_its_thread_holds() -> None:
    """The signal comes while the main thread notes a child."""
    code = (
        "import signal; from sandkube import run\n"
        "signal.signal(signal.SIGINT, lambda number, frame: run.stop_children()); signal.alarm(10)\n"
        "with run._children_lock: signal.raise_signal(signal.SIGINT)\n"
        "print(run.stopping())"
    )
    assert python(code) == (0, "True\n")


def test_an_interrupt_is_no_failure_that_is_tried_again() -> None:
    code = (
        "import signal, threading; from pathlib import Path; from sandkube.errors import UserError\n"
        "from sandkube import run\n"
        "signal.signal(signal.SIGINT, lambda number, frame: run.stop_children())\n"
        "try: run.run(['sh', '-c', 'echo up >&2; exec sleep 60'], env=run.base_environment(Path('/')),\n"
        "    cwd=Path('/'), log=open(1, 'wb', closefd=False))\n"
        "except UserError: print('taken for a failure')\n"
        "except run.Interrupted: print('interrupted')"
    )
    assert python(code, interrupt_at="up") == (0, "interrupted\n")


def test_waiting_for_another_attempt_ends_with_an_interrupt() -> None:
    code = (
        "import signal, time; from sandkube import run\n"
        "signal.signal(signal.SIGINT, lambda number, frame: run.stop_children())\n"
        "began = time.monotonic(); run.wait(0.05); assert time.monotonic() - began >= 0.05\n"
        "print('up', flush=True)\n"
        "try: run.wait(600)\n"
        "except run.Interrupted: print('interrupted')"
    )
    assert python(code, interrupt_at="up") == (0, "interrupted\n")


def test_a_child_does_not_outlive_a_call_that_is_interrupted() -> None:
    """With the signals that Python starts with, the interrupt is a KeyboardInterrupt inside of the call."""
    code = (
        "import os; from pathlib import Path; from sandkube import run\n"
        "script = 'echo $$ >child; echo up >&2; exec sleep 60'\n"
        "import tempfile; folder = Path(tempfile.mkdtemp())\n"
        "try: run.run(['sh', '-c', script], env=run.base_environment(folder), cwd=folder,\n"
        "    log=open(1, 'wb', closefd=False))\n"
        "except KeyboardInterrupt:\n"
        "    try: os.kill(int((folder / 'child').read_text()), 0); print('lives')\n"
        "    except ProcessLookupError: print('gone')"
    )
    assert python(code, interrupt_at="up") == (0, "gone\n")


def test_long_work_of_our_own_is_left_at_the_next_file_and_a_removal_is_not(tmp_path: Path) -> None:
    (tmp_path / "tree/folder").mkdir(parents=True)
    (tmp_path / "tree/folder/file").write_text("text")
    code = (
        "import os; from pathlib import Path; from sandkube import archive, nar, pack, run, tree\n"
        f"root = Path({str(tmp_path)!r}); one = root / 'tree'; new = root / 'new'; new.mkdir()\n"
        "pack.write_tar({'.': one}, root / 'tar', modes={}, mtime=0)\n"
        "import zipfile; zipfile.ZipFile(root / 'zip', 'w').write(one / 'folder/file')\n"
        "run.stop_children()\n"
        "def left(work, *words, **more):\n"
        "    try: work(*words, **more); print(f'{work.__name__} went on')\n"
        "    except run.Interrupted: pass\n"
        "left(archive.unpack_tar, root / 'tar', new, name='tar')\n"
        "left(archive.unpack_zip, root / 'zip', new, name='zip')\n"
        "left(tree.copy, one, '.', new); left(tree.normalise, one); left(lambda: list(tree.walk(one)))\n"
        "left(nar.nar_hash, one)\n"
        "tree.remove_tree(one); print(one.exists())"
    )
    assert python(code) == (0, "False\n")


def test_a_killed_child_is_not_waited_for_by_others_that_have_its_pipe() -> None:
    code = (
        "import os, tempfile; from pathlib import Path; from sandkube import run\n"
        "from sandkube.cluster.place import birth\n"
        "folder = Path(tempfile.mkdtemp()); env = run.base_environment(folder)\n"
        "other = 'echo $$ >other; echo up >&2; exec sleep 30 2>&-'\n"
        "try: run.run(['setsid', '--fork', '--wait', 'sh', '-c', other], env=env, cwd=folder,\n"
        "    capture=True, log=open(1, 'wb', closefd=False))\n"
        "except KeyboardInterrupt:\n"
        "    pid = int((folder / 'other').read_text()); print('it lived' if birth(pid) > 0 else 'it ended')\n"
        "    os.kill(pid, 9)"
    )
    assert python(code, interrupt_at="up") == (0, "it lived\n")


def test_a_command_is_quoted_for_a_shell() -> None:
    assert Finished(("go", "build", "-ldflags", "-X main.v=a b"), 1, b"").command == "go build -ldflags '-X main.v=a b'"

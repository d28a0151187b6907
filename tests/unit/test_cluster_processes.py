"""Processes that are signalled are the ones that are meant, whatever becomes of their numbers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandkube.cluster import processes, stop
from sandkube.cluster.place import Place, State, birth, boot_id, needs_running, place
from sandkube.cluster.processes import end, kill_descendants, opened, opened_descendant, with_words
from sandkube.errors import UserError

SLEEPS = "import signal; print(flush=True); signal.pause()"


@contextlib.contextmanager
def sleeper(*words: str, code: str = SLEEPS) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs until it is signalled, or until the end of this."""
    with subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """Somebody's process: it must be alive at the end."""
    with sleeper() as process:
        yield process
        assert process.poll() is None, "a stranger was signalled"


@pytest.fixture
def one(tmp_path: Path) -> Place:
    made = place(tmp_path, "a")
    made.folder.mkdir(parents=True)
    return made


@pytest.fixture
def reused(stranger: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, bool]]:
    """Numbers whose process ends, and which the stranger has, in the moment in which a pidfd is asked for."""
    numbers: dict[int, bool] = {}
    real = os.pidfd_open

    def reuse(pid: int, flags: int = 0) -> int:
        if pid not in numbers:
            return real(pid, flags)
        numbers[pid] = True
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return real(stranger.pid, flags)

    monkeypatch.setattr(os, "pidfd_open", reuse)
    yield numbers
    assert set(numbers.values()) == {True}, "nobody came that way"


def state_of(pid: int) -> State:
    return State("running", pid, birth(pid), boot_id(), "sandkube-1", 1.0, port=1234)


def test_a_number_that_became_anothers_is_not_stopped(one: Place, reused: dict[int, bool]) -> None:
    with sleeper() as supervised:
        one.write(state_of(supervised.pid))
        reused[supervised.pid] = False
        stop.stop(one)
    assert not one.folder.exists()


def test_nor_is_it_waited_for(one: Place, reused: dict[int, bool]) -> None:
    with sleeper() as supervised:
        one.write(state_of(supervised.pid))
        reused[supervised.pid] = False
        with pytest.raises(UserError, match="^cluster a is not running"), one.supervisor():
            pytest.fail("a pidfd of a stranger")


def test_nor_is_it_taken_for_what_a_cluster_left(one: Place, reused: dict[int, bool]) -> None:
    with sleeper(f"--root={one.runsc}") as left:
        assert [*with_words(f"--root={one.runsc}")] == [left.pid]
        reused[left.pid] = False
        stop.end_left(one)


def test_what_a_cluster_left_is_ended(one: Place) -> None:
    with sleeper(f"--root={one.runsc}") as left:
        stop.end_left(one)
        assert left.wait(20) == -signal.SIGKILL


def test_a_supervisor_that_ignores_its_signal_is_killed(one: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop, "_PATIENCE", 0.5)
    with sleeper(code=f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {SLEEPS}") as supervised:
        one.write(state_of(supervised.pid))
        stop.stop(one)
        assert supervised.wait(20) == -signal.SIGKILL
    assert not one.folder.exists()


def test_what_cannot_be_ended_is_a_sentence(one: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that does not answer keeps a process, signals or not; here they do not arrive."""
    monkeypatch.setattr(stop, "_PATIENCE", 0.01)
    with sleeper() as supervised, sleeper(f"--root={one.runsc}") as left:
        one.write(state_of(supervised.pid))
        with monkeypatch.context() as deaf:
            deaf.setattr(signal, "pidfd_send_signal", lambda *_: None)
            for pid, ending in ((supervised.pid, stop.stop), (left.pid, stop.end_left)):
                with pytest.raises(UserError) as caught:
                    ending(one)
                assert str(caught.value) == f"cluster a: process {pid} does not end\n  hint: is a disk stuck?"


def test_a_later_process_of_that_number_gets_no_signal(one: Place, stranger: subprocess.Popen[bytes]) -> None:
    later = State("running", stranger.pid, birth(stranger.pid) - 1, boot_id(), "sandkube-1", 1.0)
    one.write(later)
    with later.opened() as process:
        assert process is None
    stop.stop(one)


@pytest.mark.parametrize("pid", [0, 1 << 22, 1 << 40], ids=["none", "nobody's", "no number"])
def test_a_number_of_no_process_is_nobody(pid: int) -> None:
    with opened(pid, lambda: True) as process:
        assert process is None


def test_descendants_are_told_from_others(monkeypatch: pytest.MonkeyPatch, stranger: subprocess.Popen[bytes]) -> None:
    """The supervisor kills what came from it; numbers of a look at /proc may be another's a moment later."""
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEPS!r}])"
    with sleeper(code=code) as child:
        (grandchild,) = [pid for pid in processes.tree_of(child.pid) if pid != child.pid]
        with opened_descendant(grandchild) as process:
            assert process is not None
        with opened_descendant(os.getppid()) as process:
            assert process is None
        # Seen from the child, the stranger is none of its own.
        monkeypatch.setattr(os, "getpid", lambda: child.pid)
        seen = iter([[grandchild, stranger.pid], []])
        monkeypatch.setattr(processes, "tree_of", lambda _pid: next(seen))
        kill_descendants()
        assert child.wait(20) == 0, "its own child was killed"


def test_a_stopped_process_is_woken_to_end() -> None:
    with sleeper() as process:
        os.kill(process.pid, signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        with opened(process.pid, lambda: True) as descriptor:
            assert descriptor is not None
            assert end(descriptor, signal.SIGTERM, 20)
        assert process.wait(20) == -signal.SIGTERM


def test_only_one_module_signals_processes_of_clusters() -> None:
    """By number nobody does."""
    for path in (Path(processes.__file__).parent).glob("*.py"):
        text = path.read_text()
        assert ("pidfd_" in text) == (path.name == "processes.py"), path
        assert "os.kill" not in text, path


def test_running_needs_the_very_process(one: Place, stranger: subprocess.Popen[bytes]) -> None:
    one.write(State("running", stranger.pid, birth(stranger.pid) - 1, boot_id(), "sandkube-1", 1.0))
    with pytest.raises(UserError, match="^cluster a is not running"):
        needs_running(one)

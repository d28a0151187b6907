"""kill -9 and Ctrl-C at random moments, twenty times each: the next run goes on, nothing is left over."""

from __future__ import annotations

import os
import random
import re
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandkube.tree import remove_tree
from tests.clones import Clone, clone

ROUNDS = 20
STEPS = ("image-test", "podnet")


def processes_in(folder: Path) -> Iterator[str]:
    """Command lines of processes that work in a folder or name it."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            place = os.readlink(entry / "cwd")  # noqa: PTH115
        except OSError:
            continue
        if str(folder) in line or place.startswith(str(folder)):
            yield f"{entry.name} {line}"


def kill_after(one: Clone, seconds: float, how: signal.Signals) -> bool:
    """Signal `./do build` after some seconds; whether it was still running."""
    process = one.popen("build", *STEPS)
    descriptor = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        ended = bool(poll.poll(seconds * 1000))
        if not ended:
            os.kill(process.pid, how)
    finally:
        os.close(descriptor)
    said, _ = process.communicate()  # ends when the last child that has a stream open ends
    if not ended and how == signal.SIGINT:
        assert process.returncode in (130, -signal.SIGINT, 0), said  # before it listens; after it ended
        assert "Traceback" not in said
    return not ended


@pytest.mark.parametrize(("how", "longest"), [(signal.SIGKILL, 10.0), (signal.SIGINT, 2.0)], ids=["kill", "Ctrl-C"])
def test_killed_twenty_times(here: Clone, tmp_path: Path, how: signal.Signals, longest: float) -> None:
    """`longest`: seconds until the signal, at most; a whole run of these steps that starts anew takes about ten."""
    one = clone(tmp_path, "killed", home=here.home)
    one.do("list")  # the set-up of .venv is not what is killed here
    moments = random.Random(20261124)
    killed = runs = 0
    while killed < ROUNDS:
        runs += 1
        assert runs <= 5 * ROUNDS
        if kill_after(one, moments.uniform(0.1, longest), how):
            killed += 1
        else:  # it came to its end: the next one starts with nothing again
            remove_tree(one.folder / "outputs/store")
    print(f"{killed} of {runs} runs were killed")
    one.do("build", *STEPS)
    expected = here.outputs()
    assert one.outputs() == {name: expected[name] for name in one.outputs()}
    assert set(STEPS) <= one.outputs().keys()
    assert list(processes_in(one.folder)) == []
    assert str(one.folder) not in Path("/proc/self/mounts").read_text()
    assert list((one.folder / "outputs/store/staging").iterdir()) == []
    store = one.folder / "outputs/store"
    assert all(len(path.name) == 64 for path in (store / "trees").iterdir())
    assert all(re.fullmatch(r"[0-9a-f]{64}\.json", path.name) for path in (store / "records").iterdir())

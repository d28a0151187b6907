"""doit's entry: the task functions, nothing else. `./do` runs them; what it remembers of a run is nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from sandkube.cli import tasks

DOIT_CONFIG = {"backend": "nothing"}


def task_step() -> Iterator[dict[str, Any]]:
    """make the outputs of all recipes"""
    yield from tasks.step_tasks()


def _python(*words: str) -> list[str]:
    return [sys.executable, "-m", *words]


def _pytest(*words: str) -> list[str]:
    return _python("pytest", *words)


def _task(*commands: Sequence[str], **more: Any) -> dict[str, Any]:
    """A task that runs commands on this terminal: no shell and no pattern reads their words."""
    return {"actions": [tasks.Command(list(each)) for each in commands], "io": {"capture": False}, **more}


def task_test() -> dict[str, Any]:
    """run every test, the ones CI runs"""
    return _task(_pytest(*tasks.FAST), _python("sandkube", "build"), _pytest(*tasks.SLOW))


def task_test_fast() -> dict[str, Any]:
    """run the tests that neither build nor boot"""
    return _task(_pytest(*tasks.FAST), basename="test-fast")


def task_golden() -> dict[str, Any]:
    """write anew what tests compare with: keys, and the README's tables of places and settings"""
    made = ("tests/unit/test_golden.py", "tests/unit/test_matrix.py", "tests/unit/test_settings.py")
    return _task(_pytest(*made, "--rewrite"))


def task_bench() -> dict[str, Any]:
    """print measured times and sizes; needs a finished build"""
    action = tasks.Command(lambda words: _python("bench", *words))
    return {"actions": [action], "io": {"capture": False}, "pos_arg": "words"}

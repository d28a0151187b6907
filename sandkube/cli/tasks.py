"""doit's side: one task a step; and commands that are tasks by themselves.

Up to date means that the store says so (`Realiser.up_to_date`), never doit's own database.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import Any

from doit.action import CmdAction
from doit.exceptions import BaseFail, TaskFailed

from sandkube.app.guard import UNREAD, first_time
from sandkube.cli.checkout import realiser
from sandkube.errors import RunRefused, UserError, refused
from sandkube.run import CommandFailed, Finished, Interrupted, stopping

FAST = ("--numprocesses=3", "--dist=worksteal", "tests/unit")
"""What pytest is told for tests that neither build nor boot."""
SLOW = (
    *("--numprocesses=2", "--dist=loadscope", "--verbose", "--durations=20"),
    *("tests/integration", "tests/anywhere", "tests/cluster"),
)
"""What it is told for the others: two at a time, of lanes that tests/conftest.py makes."""


def _realise(name: str) -> TaskFailed | None:
    try:
        realiser().realise(name)
    except BrokenPipeError:  # nobody reads what happens: the end of this thread alone would end nothing
        os._exit(UNREAD)
    except Interrupted:  # doit's threads end with an exception that is none of Exception, and its queue waits on
        return TaskFailed("interrupted", report=False)
    except RunRefused as error:
        return TaskFailed(str(error), report=not stopping() and first_time(str(error)))
    except UserError as error:
        text = str(error) if str(error).startswith(f"{name}:") else f"{name}: {error}"
        return TaskFailed(text, report=not stopping() and first_time(text))
    except OSError as error:
        if (sentence := realiser().places.refused(error)) is None:
            raise
        return TaskFailed(f"{name}: {sentence}", report=not stopping())
    return None


def step_tasks() -> Iterator[dict[str, Any]]:
    """One task a step, `step:<name>`."""
    one = realiser()
    for name in sorted(one.plan.recipes):
        yield {
            "name": name,
            "doc": one.plan.recipes[name].description,
            "actions": [(_realise, (name,))],
            "uptodate": [functools.partial(_up_to_date, name)],
            "task_dep": [f"step:{each}" for each in one.plan.needs(name)],
            "io": {"capture": False},
            "meta": {"step": name},
        }


def _up_to_date(name: str) -> bool:
    try:
        return not stopping() and realiser().up_to_date(name)
    except (UserError, Interrupted):
        return False  # the step meets it again, and has a place to say so
    except OSError as error:
        if refused(error) is None:
            raise
        return False


class Command(CmdAction):  # type: ignore[misc]
    """A command without a shell, given as a list of words or as a function that makes one.

    Where it fails, it is shown quoted for a shell. doit shows a Python list, and takes a status above 125 for a bug.
    """

    def __init__(self, words: Any) -> None:
        super().__init__(words, shell=False)

    def execute(self, out: Any = None, err: Any = None) -> BaseFail | None:
        """Run it; what to say of its failure, None if it ended well."""
        failure = super().execute(out, err)
        if failure is None or failure.traceback:
            return failure
        finished = Finished(tuple(self.expand_action()), int(failure.get_msg().split()[-1]), b"")
        return TaskFailed(f"{self.task.name}: {CommandFailed(finished)}\n  command: {finished.command}")

"""doit's runner as our commands use it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from doit.cmd_base import DoitCmdBase, TaskLoader2
from doit.cmd_run import Run
from doit.cmdparse import CmdParseError, DefaultUpdate
from doit.exceptions import InvalidCommand

from sandkube.app.home import Home
from sandkube.app.verb import Verb
from sandkube.cli.report import StepReporter
from sandkube.errors import UserError

_DEFAULTS = {each["name"]: each["default"] for each in (*DoitCmdBase.base_options, *Run.cmd_options)}


class RunTasks(Protocol):
    """Runs tasks by name; the exit status. `settings` are doit's options by their names in doit."""

    def __call__(self, words: Sequence[str], **settings: Any) -> int:
        """Run them."""
        ...


class _Run(Run):  # type: ignore[misc]
    """doit's command without its options."""

    base_options = ()
    cmd_options = ()


def run_tasks(
    loader: TaskLoader2, config: Mapping[str, Any], commands: Mapping[str, Any], words: Sequence[str], **settings: Any
) -> int:
    """As `RunTasks`, with the tasks that a loader gives."""
    reporter = StepReporter(sys.stderr, {})
    command = _Run(task_loader=loader, config=config, bin_name="./do", cmds=commands)
    command.execute(DefaultUpdate(_DEFAULTS | {"reporter": reporter, "backend": "nothing"} | settings), [*words])
    return reporter.status()


class RunTask(Verb):
    """A task of dodo.py, run by its name."""

    def __init__(self, home: Home, name: str, text: str, run: RunTasks) -> None:
        super().__init__(home)
        self.name, self._text, self._run = name, text, run
        self.doc_purpose = text.partition("\n")[0]

    def parse_execute(self, words: list[str]) -> int:
        """The task parses what follows its name."""
        try:
            return self._run([self.name, *words], verbosity=2)
        except (CmdParseError, InvalidCommand) as error:
            wrong = getattr(error, "not_found", None)
            raise UserError(f"{self.name} does not know {wrong!r}" if wrong else f"{self.name}: {error}") from None

    def help(self) -> str:
        """What the task says of itself."""
        return f"./do {self.name}\n\n{self._text}"

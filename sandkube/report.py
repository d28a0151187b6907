"""What doit tells while it schedules our steps: nothing for what is up to date, one summary at the end."""

from __future__ import annotations

import time
from typing import Any

from doit.exceptions import BaseFail
from doit.reporter import ConsoleReporter

from sandkube import log


class StepReporter(ConsoleReporter):  # type: ignore[misc]
    """Counts steps; steps print their own lines as they run."""

    desc = "one line a step that runs, and a summary"

    def __init__(self, outstream: Any, options: Any) -> None:
        super().__init__(outstream, options)
        self._started = time.monotonic()
        self._ran = self._kept = 0

    def execute_task(self, task: Any) -> None:
        """A step starts; it says so itself."""

    def skip_uptodate(self, task: Any) -> None:
        """A step is up to date."""
        if not task.has_subtask and task.actions:
            self._kept += 1

    def add_success(self, task: Any) -> None:
        """A step ended well."""
        if task.actions and task.meta and task.meta.get("step"):
            self._ran += 1

    def add_failure(self, task: Any, fail: BaseFail) -> None:
        """A step failed: its message, once."""
        self.failures.append({"task": task, "exception": fail})
        log.say(f"error: {fail.get_msg().strip()}")

    def complete_run(self) -> None:
        """The summary."""
        seconds = time.monotonic() - self._started
        if self.failures:
            return
        if self._ran:
            log.say(f"{self._ran} steps ran, {self._kept} were up to date ({seconds:.2f} s)")
        elif self._kept:
            log.say(f"nothing to do: {self._kept} steps are up to date ({seconds:.2f} s)")

"""What doit tells while it schedules our steps: nothing for what is up to date, one summary at the end."""

from __future__ import annotations

import time
from typing import Any

from doit.exceptions import BaseFail, TaskFailed, UnmetDependency
from doit.reporter import ConsoleReporter

from sandkube import log
from sandkube.app.guard import BUG, BUG_NOTE, MENDABLE
from sandkube.cli.checkout import realiser
from sandkube.events import Built, Failed
from sandkube.run import stopping


class StepReporter(ConsoleReporter):  # type: ignore[misc]
    """Counts steps; steps print their own lines as they run."""

    desc = "one line a step that runs, and a summary"

    def __init__(self, outstream: Any, options: Any) -> None:
        super().__init__(outstream, options)
        self._started = time.monotonic()
        self._ran = self._kept = 0
        self._bug = False

    def status(self) -> int:
        """The exit status that what was reported comes to."""
        if self._bug or self.runtime_errors:
            return BUG
        return MENDABLE if self.failures else 0

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
        """A step failed: its message, unless it was said before. What fails with it is only counted, at the end."""
        self.failures.append({"task": task, "exception": fail})
        if isinstance(fail, UnmetDependency) or not fail.report:
            return
        text, ours = fail.get_msg().strip(), not isinstance(fail, TaskFailed)
        self._bug |= ours
        said = f"{task.name}: {text}\n{BUG_NOTE}" if ours else f"error: {text}"
        log.tell(Failed(task.name.removeprefix("step:"), said, bug=ours))

    def complete_run(self) -> None:
        """The summary."""
        seconds = time.monotonic() - self._started
        for text in self.runtime_errors:
            log.say(f"{text}\n{BUG_NOTE}")
        if self.failures:
            self._say_unmet()
        elif self._ran or self._kept:
            one = realiser()  # a step that was up to date by its record may have been made for one after it
            ran, pulled = len(one.ran), len(one.pulled.keys() - one.ran)
            log.tell(Built(ran, pulled, max(0, self._ran + self._kept - ran - pulled), round(seconds, 2)))

    def _say_unmet(self) -> None:
        unmet = [each["task"].meta["step"] for each in self.failures if isinstance(each["exception"], UnmetDependency)]
        if unmet and not stopping():
            log.say(f"not tried, since what they need failed: {', '.join(sorted(unmet))}")

"""What doit remembers of a run: nothing. The store knows what is up to date, and two truths are one too many."""

from __future__ import annotations

from typing import Any


class Nothing:
    """A backend of doit (its plug-in group BACKEND): takes everything, keeps it for no longer than the run."""

    desc = "remembers nothing"

    def __init__(self, name: str, **_settings: object) -> None:
        self.name = name
        self._values: dict[str, dict[str, Any]] = {}

    def dump(self) -> None:
        """The end of a run: nothing is written."""

    def set(self, task_id: str, dependency: str, value: Any) -> None:
        """What a task tells the ones after it in the same run."""
        self._values.setdefault(task_id, {})[dependency] = value

    def get(self, task_id: str, dependency: str) -> Any:
        """What a task told in this run, or None."""
        return self._values.get(task_id, {}).get(dependency)

    def in_(self, task_id: str) -> bool:
        """Whether a task told anything in this run."""
        return task_id in self._values

    def remove(self, task_id: str) -> None:
        """Forget one task."""
        self._values.pop(task_id, None)

    def remove_all(self) -> None:
        """Forget all tasks."""
        self._values.clear()

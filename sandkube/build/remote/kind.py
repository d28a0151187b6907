"""What the rest of the engine knows of remote execution, none of which is installed unless it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from sandkube.build.box import Box

USER_NAMESPACES = "user-namespaces"
COMPILERS = 8
"""How many compilers a worker runs side by side: commands say it, so one number for them to be the same everywhere."""
NEEDS = (USER_NAMESPACES,)
"""What a recipe may say that its commands need of a machine."""
Here = Callable[[], AbstractContextManager[Box]]
"""The build sandbox of this machine, for commands that workers cannot run."""


class Remote(Protocol):
    """The workers of one engine."""

    def open(self) -> object:
        """Find the engine and a worker. Raises RunRefused."""
        ...

    def box(self, name: str, here: Here, log_path: Path, needs: Sequence[str] = ()) -> Box:
        """What a step runs its commands in; `needs`: what its recipe says that they need of a machine."""
        ...

    def report(self) -> Iterable[str]:
        """What became of a run, in lines."""
        ...

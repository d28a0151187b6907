"""What the rest of the engine knows of remote execution, none of which is installed unless it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from sandkube.build.box import Box


class Remote(Protocol):
    """The workers of one engine."""

    def box(self, name: str, here: Callable[[], Box], log_path: Path) -> Box:
        """What a step runs its commands in; `here`: the build sandbox, for those that workers cannot run."""
        ...

    def report(self) -> Iterable[str]:
        """What became of a run, in lines."""
        ...

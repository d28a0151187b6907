"""What a command knows of the place that it is run from: a checkout, or an installed package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from sandkube.app.options import Option


class Home(Protocol):
    """Where clusters are, and where the products are that they are made from."""

    @property
    def program(self) -> str:
        """What people type to run a command."""
        ...

    @property
    def outputs(self) -> Path:
        """The folder that clusters and links to programs are in."""
        ...

    @property
    def options(self) -> Sequence[Option]:
        """Options that commands have here which need products."""
        ...

    def begin(self, params: Any) -> None:
        """Heed the options of a command, before anything of the place is looked at."""
        ...

    def make(self, params: Any, names: Sequence[str]) -> int:
        """Have these products; the exit status."""
        ...

    def has(self, name: str) -> bool:
        """Whether a product can be had here."""
        ...

    def output(self, name: str) -> Path:
        """Where a product is that there is now."""
        ...

    def told(self, path: Path) -> str:
        """A path as people are to type it."""
        ...

    def kubectl(self) -> Path:
        """The program; whatever it is built anew to, it is found there."""
        ...

    def build_sandbox(self, params: Any) -> tuple[str, str] | None:
        """The kind of build sandbox that there is, and a sentence on it; None where nothing is ever built."""
        ...


def shown(path: Path) -> str:
    """A path as it is shortest from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):  # not below it; or it was removed
        return str(path)

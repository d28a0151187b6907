"""`outputs/result`: a link to the output of each step that is here, by the name of its recipe."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from sandkube import log
from sandkube.errors import one_line
from sandkube.files import relink


@dataclass(frozen=True, slots=True)
class Results:
    """The folder of an `outputs/`."""

    outputs: Path

    def _link(self, name: str) -> Path:
        return self.outputs / "result" / name

    def point(self, name: str, tree: Path) -> None:
        """Have the link of a recipe lead to a tree."""
        relink(self._link(name), tree)

    def drop(self, name: str) -> None:
        """Remove the link of a recipe, whose output is not here: what was made of an older key is not its output."""
        self._link(name).unlink(missing_ok=True)

    def sweep(self, recipes: Collection[str]) -> None:
        """Remove links that lead nowhere, and those of recipes that there are no more, which is told."""
        for link in sorted((self.outputs / "result").glob("*")):
            if link.is_symlink() and link.name not in recipes:
                gone = one_line(link.name)
                log.say(f"outputs/result/{gone} is removed: there is no recipe {gone} any more")
                link.unlink(missing_ok=True)
            elif link.is_symlink() and not link.exists():
                link.unlink(missing_ok=True)

"""Options of commands, and those that several of them share."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sandkube import events
from sandkube.errors import UserError

Values = str | Sequence[str]
"""What a shell may complete: words, or one of the following."""
CLUSTERS, RECIPES, FILES = "clusters", "recipes", "files"
_NUMBERS = {int: "a whole number", float: "a number"}


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a command; its type is that of the default. A list takes a value each time that it is given."""

    name: str
    default: Any
    text: str
    short: str = ""
    metavar: str = ""
    values: Values = ()

    @property
    def flag(self) -> bool:
        """Whether it takes no value."""
        return isinstance(self.default, bool)

    def value(self, word: str) -> Any:
        """The value that a word stands for. Raises UserError."""
        kind = type(self.default)
        if kind not in _NUMBERS:
            return word
        try:
            return kind(word)
        except ValueError:
            raise UserError(f"--{self.name} takes {_NUMBERS[kind]}, not {word!r}") from None

    def shown(self) -> str:
        """As a page of help has it."""
        named = self.metavar or ("N" if type(self.default) is int else self.name.upper())
        if self.flag:
            return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"
        return f"-{self.short} {named}, --{self.name}={named}" if self.short else f"--{self.name}={named}"


option = Option


def tell_as_asked(params: Any) -> None:
    """With --json, events are for a machine."""
    if params["json"]:
        events.use(events.JsonLines(sys.stdout))


NAME = option("name", "default", "the cluster's name", values=CLUSTERS)
ALL = option("all", False, "every cluster that runs")
NO_FIXES: list[str] = []
FIX = option(
    *("fix", NO_FIXES, "override what the node does about its sandbox: on, off, auto or a means; repeatable"),
    metavar="NAME=VALUE",
)
NO_BUILD_SANDBOX = option(
    "no-build-sandbox", False, "build in no sandbox, where none can be had; what is made so is marked"
)
OFFLINE = option(
    "offline",
    False,
    "open no network: sources and trees come from this user's cache and from folders in SANDKUBE_CACHE",
)
JSON = option("json", False, "print one JSON document")
EVENTS = option("json", False, "print what happens as JSON, an object a line")

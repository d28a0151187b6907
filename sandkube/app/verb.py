"""A command: its words and options as people write them, and its page of help."""

from __future__ import annotations

import getopt
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from sandkube.app.home import Home
from sandkube.app.options import Option, Values
from sandkube.errors import UserError, one_line

_WIDTH = 100


class Verb:
    """Base of our commands. `execute` returns the exit status; what it raises is told by `guarded`."""

    name = ""
    doc_purpose = ""
    doc_usage = ""
    doc_description = ""
    takes_words = False
    stray = ""
    """The hint for a word that is given to a command that takes none."""
    options_first = False
    """Whether options end at the first word, since what follows belongs to another program."""
    excluding: Sequence[tuple[str, str]] = ()
    """Names of options of which one at most may be given: the other would be ignored."""
    cmd_options: Sequence[Option] = ()
    values: Values = ()
    """What a shell may complete as a word."""
    needs_products = False
    """Whether the home's own options are this command's as well."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.options = (*self.cmd_options, *(home.options if self.needs_products else ()))

    @property
    def _help(self) -> str:
        return f"{self.home.program} help {self.name}"

    def execute(self, _params: Any, _words: list[str]) -> int:
        """Do it; the exit status."""
        raise NotImplementedError

    def parse_execute(self, words: list[str]) -> int:
        """Parse and execute. Raises UserError for wrong words and options."""
        params, rest = self.parse(words)
        if rest and not self.takes_words:
            raise UserError(f"{self.name} takes no argument, got {rest[0]!r}", hint=self.stray or self._help)
        self.home.begin(params)
        return self.execute(params, rest)

    def words_of_options(self) -> tuple[str, list[str]]:
        """Short and long options as getopt(3) takes them."""
        short = "".join(each.short + ("" if each.flag else ":") for each in self.options if each.short)
        return short, [each.name + ("" if each.flag else "=") for each in self.options]

    def parse(self, words: list[str]) -> tuple[Mapping[str, Any], list[str]]:
        """Options by name, and the other words. Raises UserError."""
        split = getopt.getopt if self.options_first else getopt.gnu_getopt
        try:
            given, rest = split(words, *self.words_of_options())
        except getopt.GetoptError as error:
            raise UserError(f"{self.name}: {one_line(str(error))}", hint=self._help) from None
        self._check_excluding({word for word, _ in given})
        params = {each.name: each.default for each in self.options}
        for word, value in given:
            one = next(each for each in self.options if word in (f"-{each.short}", f"--{each.name}"))
            try:
                found = True if one.flag else one.value(value)
            except UserError as error:
                raise UserError(f"{self.name}: {one_line(error.message)}", hint=self._help) from None
            params[one.name] = [*params[one.name], found] if isinstance(one.default, list) else found
        return params, rest

    def _check_excluding(self, given: set[str]) -> None:
        for one, other in ((f"--{one}", f"--{other}") for one, other in self.excluding):
            if {one, other} <= given:
                raise UserError(f"{self.name}: {one} and {other} exclude each other", hint=self._help)

    def help(self) -> str:
        """The command's page."""
        more = " ".join(f"[--{each.name}]" for each in self.options if each not in self.cmd_options)
        lines = [" ".join(filter(None, (self.home.program, self.name, self.doc_usage, more))), ""]
        text = ". ".join(each[:1].upper() + each[1:] for each in (self.doc_purpose, self.doc_description) if each)
        lines += textwrap.wrap(text.rstrip(".") + ".", _WIDTH)
        options = [(each.shown(), each.text) for each in self.options]
        lines += [""] if options else []
        column = max((len(shown) for shown, _ in options), default=0) + 4
        for shown, what in options:
            first, *rest = textwrap.wrap(what, _WIDTH - column)
            lines += [f"  {shown}".ljust(column) + first, *(" " * column + each for each in rest)]
        return "\n".join(lines)

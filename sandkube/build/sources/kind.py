"""What a source kind is: a record of the functions that know its world."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandkube.build.lock import Pin
from sandkube.errors import UserError, one_line
from sandkube.tree import DEPTH


@dataclass(frozen=True, slots=True)
class Source:
    """Where bytes come from: a kind, a name in that kind's world, and the version asked for.

    go: module path and version; pypi: project and version; deb: package (`src:NAME` for a source package) and
    version; git: repository address and commit; oci: name of an image and digest; url: address, no version; local:
    folder of this repository.
    """

    kind: str
    name: str
    version: str = ""
    mirrors: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}@{self.version}" if self.version else f"{self.kind}:{self.name}"


@contextlib.contextmanager
def source_told(recipe: str, source: Source) -> Iterator[None]:
    """A recipe's source, in sentences: folders in each other to no end are one, and names in them break no line.

    That the kinds themselves do not see to it has a reason: their code is in keys, where each word would count.
    """
    try:
        yield
    except UserError as error:
        if source.kind != "local":  # what others say may have lines
            raise
        raise UserError(one_line(error.message), hint=error.hint) from None
    except RecursionError:
        place = f"recipes/{recipe}.toml: source: {source}"
        raise UserError(f"{place}: has folders more than {DEPTH} deep in each other") from None


def no_client() -> Path:
    """The go client of those who need none."""
    raise AssertionError("this source kind names no tool")


@dataclass(frozen=True, slots=True)
class Ask:
    """What a source kind's functions are asked for."""

    recipe: str
    """The recipe's name, for messages."""
    source: Source
    pin: Pin
    """The pin; for `resolve` and `versions` the one that the recipe had before, empty if it had none."""
    root: Path
    """The checkout."""
    cache: Path
    """This user's cache."""
    go_client: Callable[[], Path] = no_client
    """Gives the go command, for kinds whose `tools` name it."""


@dataclass(frozen=True, slots=True)
class SourceKind:
    """One kind of source. All functions raise UserError for what the user or a server can mend."""

    identity: Callable[[Ask], str]
    """What the bytes are, by content and never by place; enters the key. Nothing is fetched or written for it."""
    resolve: Callable[[Ask], Pin]
    """The pin (its `spec` is empty) of what the recipe asks for."""
    fetch: Callable[[Ask], None]
    """Bring the pinned bytes into the cache, checked. HashMismatch for other bytes. Runs none of them."""
    snapshot: Callable[[Ask, Path], str]
    """Copy the bytes into an empty folder, writable, modes 0644 and 0755; the identity of what was copied."""
    code: tuple[str, ...]
    """Modules, below `sandkube/` and without `.py`, that write the bytes of a snapshot: their meaning enters keys."""
    versions: Callable[[Ask], Sequence[str]] | None = None
    """Known versions, oldest first; None where a source has none."""
    pinned: tuple[str, ...] = ("files",)
    """What its pins hold, as the fields of `Pin` are called."""
    misfit: Callable[[Source, Pin], str] = lambda _source, _pin: ""
    """What is wrong with a pin that holds these, for a source of this kind; empty if nothing."""
    check: Callable[[Source], str] = lambda _: ""
    """What is wrong with a name, version and mirrors as they are written in a recipe; empty if nothing."""
    completed: Callable[[Ask], Pin] = lambda ask: ask.pin
    """A sound pin, with what one of an older form lacks."""
    lacks: Callable[[Pin], str] = lambda _: ""
    """What a pin of an older form does not say; empty if nothing."""
    tools: tuple[str, ...] = ()
    """Recipes whose outputs fetch or resolve this kind."""
    versioned: bool = True
    """Whether a recipe says `KIND:NAME@VERSION`; else `KIND:NAME`."""
    mirrors: bool = False
    """Whether a recipe may name mirrors."""

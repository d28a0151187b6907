"""What the clients that fetch take from this user: proxies and certificates by variable, and where passwords are.

A client gets a home of our choice, so that nothing of the user's own configuration changes what it does; the file
with the user's passwords and pip's own settings are named to it explicitly.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from sandkube.run import network_environment


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to go on: attempts at each address, seconds without a byte, the first pause (doubled each time),
    seconds for one address in all, seconds between lines of progress."""

    attempts: int = 4
    stall: float = 30.0
    pause: float = 0.5
    total: float = 3600.0
    silence: float = 5.0


PATIENCE = Patience()


def user_home() -> Path | None:
    """This user's home folder, if there is one."""
    try:
        return Path.home()
    except RuntimeError:  # neither HOME nor an entry in the user database
        return None


_INSTEAD: ContextVar[Mapping[str, str]] = ContextVar("instead", default=MappingProxyType({}))


@contextlib.contextmanager
def instead(settings: Mapping[str, str]) -> Iterator[None]:
    """While inside, in this thread, clients are told these variables in place of the user's."""
    before = _INSTEAD.set(settings)
    try:
        yield
    finally:
        _INSTEAD.reset(before)


def client_environment(home: Path) -> dict[str, str]:
    """`run.network_environment`, with the user's ~/.netrc named as curl, go and pip look for it by default."""
    environment = network_environment(home) | dict(_INSTEAD.get())
    own = user_home()
    if "NETRC" not in environment and own is not None and os.access(own / ".netrc", os.R_OK):
        environment["NETRC"] = str(own / ".netrc")
    return environment


def configuration_home() -> Path | None:
    """The folder of this user's configuration files (XDG base directory specification), if there is one."""
    named = os.environ.get("XDG_CONFIG_HOME")
    own = user_home()
    folder = Path(named) if named else own / ".config" if own is not None else None
    return folder if folder is not None and os.access(folder, os.R_OK) and folder.is_dir() else None

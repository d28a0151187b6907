"""What the clients that fetch take from this user: proxies and certificates by variable, and where passwords are.

A client gets a home of our choice, so that nothing of the user's own configuration changes what it does; the file
with the user's passwords and pip's own settings are named to it explicitly.
"""

from __future__ import annotations

import os
from pathlib import Path

from sandkube.run import network_environment


def user_home() -> Path | None:
    """This user's home folder, if there is one."""
    try:
        return Path.home()
    except RuntimeError:  # neither HOME nor an entry in the user database
        return None


def client_environment(home: Path) -> dict[str, str]:
    """`run.network_environment`, with the user's ~/.netrc named as curl, go and pip look for it by default."""
    environment = network_environment(home)
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

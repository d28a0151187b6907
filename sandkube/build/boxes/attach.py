"""A command of a step again, on somebody's terminal: what to start so that it finds what the step found."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandkube.build.box import Box, Call, Mount
from sandkube.build.boxes.bubblewrap import Bubblewrap
from sandkube.errors import UserError
from sandkube.run import base_environment

TOOLS = "/sandkube/tools"
"""Where busybox and links named as its applets are shown."""


def tools(busybox: Path, folder: Path, box: Box) -> Mount:
    """Make a folder with busybox and a link for each applet that it says it has."""
    with tempfile.TemporaryFile() as log:
        call = Call(["/busybox", "--list"], [Mount(busybox, "/busybox")])
        said = box.run(call, log=log, capture=True).stdout.decode()
    folder.mkdir(parents=True, exist_ok=True)
    for name in said.split():
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to("/busybox")
    return Mount(folder, TOOLS)


def argv(
    box: Box, call: Call, words: Sequence[str], busybox: Path, folder: Path
) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """The command line and the environment of the process that opens the box. `words`: the command; empty: a shell.

    The step's own environment is kept, but for PATH, which gets busybox's tools, and TERM.
    """
    if not isinstance(box, Bubblewrap):
        raise UserError("without a build sandbox there is nothing to open", hint=f"look at {folder.parent}")
    mounts = [*call.mounts, Mount(busybox, "/busybox"), tools(busybox, folder, box)]
    env = {**call.env, "PATH": TOOLS, "TERM": "xterm", "PS1": "\\w \\$ "}
    whole = box.argv(Call(words or [f"{TOOLS}/sh"], mounts, env, call.cwd))
    return tuple(each for each in whole if each != "--new-session"), base_environment(Path("/"))

"""What a failed step leaves: its folder, in `outputs/failed/<recipe>`, with the last command that it ran there.

One folder a recipe, replaced by the next failure and removed by the next success. `call.json` in it holds the
command, what it was shown, and its environment, so that the build sandbox can be opened there again.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sandkube.build.box import Box, Call, Mount
from sandkube.decode import decoded
from sandkube.documents import parse_json, read_file
from sandkube.errors import Problems, StepFailed, UserError, one_line
from sandkube.files import make_folder
from sandkube.run import Finished, check_finished
from sandkube.tree import remove_tree

_CALL = "call.json"
TAIL = 20
"""Lines of a log that are shown."""


class Recorder:
    """A box that notes what it is asked for last, and whether that failed."""

    def __init__(self, box: Box, call: Call) -> None:
        self._box = box
        self.call = call
        self.failed = False

    def run(self, call: Call, *, log: BinaryIO, capture: bool = False, check: bool = True) -> Finished:
        """As the box itself."""
        self.call, self.failed = call, False
        finished = self._box.run(call, log=log, capture=capture, check=False)
        self.failed = finished.status != 0
        return check_finished(finished) if check else finished


def shovel(name: str, failure: UserError, call: Call, folder: Path, log_path: Path, *, shell: bool) -> StepFailed:
    """What is needed to go on by hand: command, the log's last lines, folder, and where it is mended."""
    lines = log_path.read_text(errors="replace").splitlines()[-TAIL:]
    said = [failure.about(name)]
    if call.command:
        said.append(f"  command: {call.text()}")
    if lines:
        said += [f"  log: {one_line(log_path)}, its last lines:", *(f"  | {line}" for line in lines)]
    said.append(f"  folder: {one_line(folder)}")
    way = f"mend it and run ./do build {name}"
    if shell:
        way = f"./do shell {name} opens the build sandbox there; {way}"
    elif failure.message.startswith(place := f"recipes/{name}.toml"):
        way = f"mend {place}, or what it names, and run ./do build {name}"
    return StepFailed("\n".join(said), hint=f"{failure.hint}; {way}" if failure.hint else way)


def keep(folder: Path, staging: Path, call: Call) -> Call:
    """Move a failed step's staging folder to `folder`; the call as it is there."""
    make_folder(folder.parent)
    remove_tree(folder)
    try:
        os.rename(staging, folder)  # noqa: PTH104 - the descriptor that locks it stays with whoever made it
    except OSError as error:
        if error.errno != errno.EXDEV:  # a store may be a link to another file system, or a mount
            raise
        with contextlib.suppress(shutil.Error):  # sockets and FIFOs
            shutil.copytree(staging, folder, symlinks=True)
    moved = call.moved(staging, folder)
    value = {
        "command": list(moved.command),
        "mounts": [{"host": str(each.host), "inside": each.inside, "writable": each.writable} for each in moved.mounts],
        "env": dict(moved.env),
        "cwd": moved.cwd,
    }
    (folder / _CALL).write_text(json.dumps(value, indent=2) + "\n")
    return moved


@dataclass(frozen=True, slots=True)
class _Shown:
    host: str
    inside: str
    writable: bool


@dataclass(frozen=True, slots=True)
class _Written:
    command: tuple[str, ...]
    mounts: tuple[_Shown, ...]
    env: Mapping[str, str]
    cwd: str


def load(folder: Path, name: str) -> Call:
    """The last command of a recipe's failed step. Raises UserError where there is none."""
    hint = f"./do build {name} makes it; a step that fails leaves its folder"
    path = folder / _CALL
    if not path.exists():
        raise UserError(f"there is no failed step of {name}", hint=hint)
    try:
        found = decoded(_Written, parse_json(read_file(path, str(path))), _CALL)
    except Problems as problems:
        raise Problems(problems.problems, hint=hint) from None
    except ValueError:
        raise UserError(f"{path} is damaged", hint=hint) from None
    mounts = tuple(Mount(Path(each.host), each.inside, each.writable) for each in found.mounts)
    return Call(found.command, mounts, found.env, found.cwd)

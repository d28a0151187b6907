"""Steps without a build sandbox (`--no-build-sandbox`): in no namespace, with the fixed paths put into host paths.

What a step is shown at a path inside is named to it by its place on the host, in arguments and environment. A mount
inside of another becomes a link. What compilers keep is kept apart from what they keep in the sandbox.
"""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sandkube.build.box import CACHE, ENVIRONMENT, TMP, ZIG, Call, Mount
from sandkube.errors import UserError
from sandkube.run import Finished, run

WARNING = (
    "build sandbox: none, as asked with --no-build-sandbox: steps can read and write what this user can, and reach the "
    "network; that outputs depend on nothing but their inputs is not guaranteed; their records are marked, never shared"
)
_INSIDE = "/sandkube/"
_NO_INDEX = {"GODEBUG": "goindex=0"}  # Go 1.26 indexes a module by walking its folder, and walks through no link


def _host(mount: Mount) -> Path:
    if mount.inside not in (CACHE, ZIG):
        return mount.host
    apart = mount.host.with_name(f"{mount.host.name}-unboxed")
    apart.mkdir(parents=True, exist_ok=True)
    return apart


def _places(mounts: Sequence[Mount]) -> dict[str, str]:
    """Host path by path inside, for mounts below /sandkube; others (a test's /sys/fs/cgroup) are the host's."""
    places: dict[str, str] = {}
    for mount in mounts:
        if not mount.inside.startswith(_INSIDE):
            continue
        outer = next((each for each in places if mount.inside.startswith(f"{each}/")), None)
        if outer is None:
            places[mount.inside] = str(_host(mount))
            continue
        point = Path(places[outer]) / mount.inside[len(outer) + 1 :]
        if not point.is_symlink():
            point.rmdir()
            point.symlink_to(mount.host)
    return places


def _check(places: Mapping[str, str]) -> None:
    for path in places.values():
        if re.search(r"""[\s'"]""", path):  # Go's CC and CGO_CFLAGS are lists of words
            raise UserError(
                f"--no-build-sandbox needs paths without blanks and quotation marks, not {path}",
                hint="move the clone, or set XDG_CACHE_HOME",
            )


@dataclass(frozen=True, slots=True)
class Unboxed:
    """Starts commands as they are."""

    def run(self, call: Call, *, log: BinaryIO, capture: bool = False, check: bool = True) -> Finished:
        """Run one command. Raises CommandFailed unless `check` is off."""
        places = _places(call.mounts)
        _check(places)
        longest = sorted(places, key=len, reverse=True)
        inside = re.compile("|".join(rf"{re.escape(each)}(?![\w.-])" for each in longest) or r"(?!)")

        def outside(text: str) -> str:
            return inside.sub(lambda match: places[match.group()], text)

        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            values = {**ENVIRONMENT, **_NO_INDEX, **call.env}
            environment = {name: scratch if text == TMP else outside(text) for name, text in values.items()}
            words = [outside(each) for each in call.command]
            log.write(f"$ {shlex.join(words)}\n".encode(errors="surrogateescape"))
            log.flush()
            return run(words, env=environment, cwd=Path(outside(call.cwd)), log=log, capture=capture, check=check)

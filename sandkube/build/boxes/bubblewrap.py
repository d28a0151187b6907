"""The build sandbox by bubblewrap: new namespaces of every kind, nothing of the host's file system.

Inside: uid and gid 1000, host name `sandkube`, no network, no capability, an empty /tmp, private /dev and /proc.
Works for root and for an ordinary user alike. Where a machine refuses a part of it, there are other forms.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sandkube.build.box import ENVIRONMENT, TMP, Call
from sandkube.errors import RunRefused, UserError
from sandkube.run import Finished, base_environment, check_finished, run

_OFFLINE = Path(__file__).with_name("offline.py")


@dataclass(frozen=True, slots=True)
class Form:
    """What the build sandbox has of its own; with all of it, it is whole."""

    proc: bool = True
    """A new /proc; else the one around it, read-only."""
    host_name: bool = True
    """The host name `sandkube`; else the one around it."""
    network: bool = True
    """A network namespace that bubblewrap makes, with loopback; else one made before it, with nothing up."""
    user: bool = True
    """A user namespace, so uid 1000; else, for root only, uid 0 without capabilities."""

    def lacks(self) -> tuple[bool, ...]:
        """What is not its own, in the order of the fields."""
        return (not self.proc, not self.host_name, not self.network, not self.user)


WHOLE = Form()


def forms(*, user: bool, root: bool) -> Iterator[Form]:
    """Every form, the least lacking first: with user namespaces if there are any, without for root only."""
    flags = itertools.product((True, False), repeat=4)
    every = (Form(*each) for each in flags)
    possible = [each for each in every if (user if each.user else root)]
    return iter(sorted(possible, key=lambda form: (not form.user, sum(form.lacks()), form.lacks())))


class BoxFailed(UserError):
    """The sandbox could not be started for a command; the command never ran."""

    def __init__(self, said: str) -> None:
        super().__init__(
            f"the build sandbox, which was there when this run began, could not be started: {said}",
            hint="./do doctor tells what this machine gives; run the same command again, finished steps are kept",
        )


@dataclass(frozen=True, slots=True)
class Bubblewrap:
    """How to start build sandboxes: the bubblewrap program, and the form that this machine gives."""

    bwrap: Path
    form: Form = WHOLE

    def argv(self, call: Call) -> tuple[str, ...]:
        """The whole command line."""
        form = self.form
        before = [] if form.network else [sys.executable, "-I", "-S", str(_OFFLINE)]
        words = [*before, str(self.bwrap), "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"]
        words += ["--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
        words += ["--unshare-net"] if form.network else []
        words += ["--unshare-user", "--uid", "1000", "--gid", "1000"] if form.user else []
        words += ["--hostname", "sandkube"] if form.host_name else []
        words += ["--proc", "/proc"] if form.proc else ["--ro-bind", "/proc", "/proc"]
        words += ["--dev", "/dev", "--perms", "1777", "--tmpfs", TMP]
        for mount in call.mounts:
            words += ["--bind" if mount.writable else "--ro-bind", str(mount.host), mount.inside]
        for name, value in sorted((dict(ENVIRONMENT) | dict(call.env)).items()):
            words += ["--setenv", name, value]
        return (*words, "--chdir", call.cwd, "--", *call.command)

    def run(self, call: Call, *, log: BinaryIO, capture: bool = False, check: bool = True) -> Finished:
        """Run one command inside. Raises CommandFailed unless `check` is off, BoxFailed where it was never started."""
        words = self.argv(call)
        log.write(f"$ {call.text()}\n".encode(errors="surrogateescape"))
        log.flush()
        start = log.tell()
        with tempfile.TemporaryFile() as status:
            at = words.index(str(self.bwrap)) + 1
            told = (*words[:at], "--json-status-fd", str(status.fileno()), *words[at:])
            done = run(
                told,
                env=base_environment(Path("/")),
                cwd=Path("/"),
                log=log,
                capture=capture,
                check=False,
                pass_fds=(status.fileno(),),
            )
            status.seek(0)
            ended = _exit_codes(status.read())
        if done.status > 0 and not ended:
            raise BoxFailed(last_line(Path(log.name).read_bytes()[start:]))
        finished = Finished(words, done.status, done.stdout)
        return check_finished(finished) if check else finished


class Absent:
    """The build sandbox of a checkout that has no recipe of it: refuses the first command."""

    def run(self, call: Call, *, log: BinaryIO, capture: bool = False, check: bool = True) -> Finished:  # noqa: ARG002
        """Raises RunRefused."""
        raise RunRefused(
            "no recipe 'bubblewrap', whose build sandbox steps run their commands in",
            hint="add that recipe; --no-build-sandbox does without",
        )


def _exit_codes(status: bytes) -> list[int]:
    """bubblewrap (0.11) writes a JSON object a line, and one with `exit-code` only when the command was started."""
    return [each["exit-code"] for each in map(json.loads, status.splitlines()) if "exit-code" in each]


def last_line(said: bytes) -> str:
    """What a program said last, or that it said nothing."""
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"

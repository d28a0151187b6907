"""Clones of this checkout for tests: as a newcomer has them, run as a newcomer would."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
PATH = "/usr/bin:/bin"
_PASSED_ON = ("PIP_CERT", "PIP_INDEX_URL", "SSL_CERT_FILE", "GOPROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")


def passed_on() -> dict[str, str]:
    """The settings of this machine without which no registry may be reached."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ}


@dataclass(frozen=True)
class Said:
    """What a program said, the streams apart; `err` is empty where both were one."""

    out: str
    err: str


def _tee(stream: IO[str], said: list[str]) -> None:
    with stream:
        for line in stream:
            print(line, end="", flush=True)
            said.append(line)


def shown(process: subprocess.Popen[str], what: str, status: int) -> Said:
    """The output of a started program, which is shown as it comes. Asserts its exit status."""
    out: list[str] = []
    err: list[str] = []
    assert process.stdout is not None
    if process.stderr is not None:
        other = threading.Thread(target=_tee, args=(process.stderr, err))
        other.start()
    _tee(process.stdout, out)
    if process.stderr is not None:
        other.join()
    assert process.wait() == status, f"{what}: exit status {process.returncode}:\n{''.join(out + err)}"
    return Said("".join(out), "".join(err))


@dataclass(frozen=True)
class Clone:
    """A checkout with its own outputs, a home (so a cache) and a user."""

    folder: Path
    home: Path
    user: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    umask: int = 0o022
    before: tuple[str, ...] = ()
    """Words that a command of this clone is started with."""

    def environment(self) -> dict[str, str]:
        """What `env -i` would leave, with the settings of this clone."""
        return {"PATH": PATH, "HOME": str(self.home), **passed_on(), **self.env}

    def popen(self, *words: str) -> subprocess.Popen[str]:
        """Start `./do WORDS` in a session of its own."""
        record = pwd.getpwnam(self.user) if self.user else None
        return subprocess.Popen(
            [*self.before, "./do", *words],
            cwd=self.folder,
            env=self.environment(),
            umask=self.umask,
            user=record.pw_uid if record else None,
            group=record.pw_gid if record else None,
            extra_groups=[] if record else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def do(self, *words: str, status: int = 0) -> str:
        """Run `./do WORDS`; what it told people, which is shown as it comes. Asserts its exit status."""
        return shown(self.popen(*words), f"./do {' '.join(words)}", status).err

    def result(self, *words: str) -> str:
        """Run `./do WORDS`; what it was asked for."""
        return shown(self.popen(*words), f"./do {' '.join(words)}", 0).out

    def steps(self, *words: str) -> dict[str, str]:
        """Run `./do build WORDS`; the steps that ran, each with its reason."""
        ran = {}
        for line in self.do("build", *words).splitlines():
            head, found, reason = line.partition(": building, because: ")
            if found:
                ran[head.split()[-1]] = reason
        return ran

    def outputs(self) -> dict[str, str]:
        """The output hash of each recipe, by the links in outputs/result."""
        return {link.name: link.readlink().name for link in sorted((self.folder / "outputs/result").iterdir())}


def files() -> Sequence[str]:
    """The files of this checkout that git knows, changed ones as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout.decode()
    return [name for name in listed.split("\0") if name and (ROOT / name).exists()]


def clone(
    base: Path,
    name: str,
    *,
    home: Path | None = None,
    user: str = "",
    env: Mapping[str, str] | None = None,
    umask: int = 0o022,
) -> Clone:
    """Make a clone below `base`, belonging to `user`; its home is empty unless one is given."""
    folder = base / name
    for each in files():
        target = folder / each
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / each, target, follow_symlinks=False)
        if not target.is_symlink():
            target.chmod(0o755 if (ROOT / each).stat().st_mode & 0o100 else 0o644)
    made_home = home or base / f"home-{name}"
    made_home.mkdir(exist_ok=True)
    if user:
        record = pwd.getpwnam(user)
        for path in (folder, *folder.rglob("*"), made_home):
            os.chown(path, record.pw_uid, record.pw_gid, follow_symlinks=False)
    return Clone(folder, made_home, user, env or {}, umask)

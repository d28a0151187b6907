"""Root file systems of other releases, made by mmdebstrap, and programs run in them as an ordinary user would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sandkube.build.sources import deb_apt, deb_places
from sandkube.tree import remove_tree
from tests.clones import PATH, clone, passed_on, shown

USER = 1000
NAME = "newcomer"
HOME = f"/home/{NAME}"
ELSEWHERE = {"TZ": "Pacific/Chatham", "LANG": "tr_TR.UTF-8", "LC_ALL": "tr_TR.UTF-8"}
"""A zone and a language with ways of their own."""
_AUTHOR = ("-c", "user.name=A", "-c", "user.email=a@b")
_ENTER = Path(__file__).with_name("enter_root.py")
_INCLUDE = ("python3", "python3-venv", "git", "ca-certificates")
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
_CERTIFICATES = ("/etc/ssl", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates")


@dataclass(frozen=True)
class Root:
    """A root file system with one ordinary user, whose home is empty at first."""

    folder: Path

    @property
    def home(self) -> Path:
        """The user's home, as the machine sees it."""
        return self.folder / HOME.lstrip("/")

    def own(self, path: Path) -> None:
        """Give a folder or file of the machine to the root's user, with all below it."""
        for each in (path, *path.rglob("*")):
            os.chown(each, USER, USER, follow_symlinks=False)

    def empty_home(self) -> None:
        """Make the home as it is on the first day."""
        if self.home.exists():
            remove_tree(self.home)
        self.home.mkdir()
        self.own(self.home)

    def popen(
        self,
        *words: str,
        user: int = USER,
        cwd: str = HOME,
        env: Mapping[str, str] | None = None,
        umask: int = 0o022,
        binds: Sequence[str] = (),
    ) -> subprocess.Popen[str]:
        """Start a program in the root; `binds`: more of the machine, as `enter_root.py` takes it."""
        certificates = [f"{each}={each}:ro" for each in _CERTIFICATES if Path(each).is_dir()]
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(_ENTER), str(self.folder), str(user), cwd, *certificates, *binds]
            + ["--", *words],
            env={
                "PATH": PATH if user else f"{PATH}:/usr/sbin:/sbin",
                "HOME": HOME if user else "/root",
                "LANG": "C.UTF-8",
            }
            | passed_on()
            | dict(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            umask=umask,
            start_new_session=True,
        )

    def run(
        self,
        *words: str,
        status: int = 0,
        user: int = USER,
        cwd: str = HOME,
        env: Mapping[str, str] | None = None,
        umask: int = 0o022,
        binds: Sequence[str] = (),
    ) -> str:
        """Run a program in the root; its output, both streams in one, shown as it comes. Asserts its exit status."""
        process = self.popen(*words, user=user, cwd=cwd, env=env, umask=umask, binds=binds)
        return shown(process, " ".join(words), status).out


def _apt_get(*words: str) -> None:
    subprocess.run(
        ["apt-get", "--quiet=2", *words],
        check=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )


def _need(program: str) -> None:
    """Install a program of Debian's that is named as its package, if it is missing."""
    if shutil.which(program) is None:
        _apt_get("update")
        _apt_get("install", "--yes", "--no-install-recommends", program)


def make(folder: Path, suite: str) -> Root:
    """A minimal root of a Debian release, from the mirror and with the keys that this machine's apt has."""
    _need("mmdebstrap")
    keyring = deb_places.keyring()
    assert keyring is not None, "mmdebstrap brings Debian's keyring"
    words = ["--quiet", "--mode=root", "--variant=apt", f"--include={','.join(_INCLUDE)}", f"--keyring={keyring}"]
    words += ["--dpkgopt=force-unsafe-io", *(f"--dpkgopt=path-exclude={each}" for each in _LEFT_OUT)]
    subprocess.run(
        ["mmdebstrap", *words, suite, str(folder), deb_apt.archives(suite)[0]], check=True, stdin=subprocess.DEVNULL
    )
    shutil.copyfile("/etc/resolv.conf", folder / "etc/resolv.conf")
    shutil.copyfile("/etc/hosts", folder / "etc/hosts")
    with (folder / "etc/passwd").open("a") as users, (folder / "etc/group").open("a") as groups:
        users.write(f"{NAME}:x:{USER}:{USER}::{HOME}:/bin/sh\n")
        groups.write(f"{NAME}:x:{USER}:\n")
    made = Root(folder)
    made.empty_home()
    return made


def copy_without_apt(root: Root, folder: Path) -> Root:
    """The same root as that of a distribution that knows neither apt nor dpkg, with a copy of the home as it is.

    Its other files are links to those of the first root: they may be removed and replaced, not written to.
    """
    subprocess.run(["cp", "--archive", "--link", str(root.folder), str(folder)], check=True)
    for name in ("usr/bin", "usr/sbin", "usr/lib", "usr/share/keyrings", "etc", "var/lib", "var/cache"):
        for path in (folder / name).glob("*"):
            if path.name.startswith(("apt", "dpkg", "debian-archive")) and not path.is_symlink():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in ((folder / "etc/os-release"), (folder / "etc/debian_version")):
        path.unlink()
    (folder / "etc/os-release").write_text('ID=elsewhere\nNAME="Elsewhere Linux"\nVERSION_ID=1\n')
    made = Root(folder)
    remove_tree(made.home)
    subprocess.run(["cp", "--archive", str(root.home), str(made.home)], check=True)
    return made


def repository_in(root: Root) -> str:
    """Make this checkout a repository in a root, with all that git knows as it is now; its path there."""
    source = clone(root.folder, "source").folder
    for words in (["init", "--quiet"], ["add", "--all"], [*_AUTHOR, "commit", "--quiet", "--message", "as it is"]):
        subprocess.run(["git", *words], cwd=source, check=True, env={"PATH": PATH, "HOME": str(source.parent)})
    root.own(source)  # git refuses a repository of another user
    return "/source"


def compare(ours: Mapping[str, str], theirs: Mapping[str, str], wanted: Sequence[str]) -> None:
    """Show the output hashes of both side by side, and want them all equal, the wanted ones among them."""
    table = Table("OUTPUT", "HERE", "THERE", "", box=None)
    for name in sorted(theirs):
        one, other = ours.get(name, "missing"), theirs[name]
        table.add_row(name, one[:32], other[:32], "same" if one == other else "DIFFERENT")
    Console(width=100).print(table)
    assert theirs == {name: ours[name] for name in theirs}
    assert theirs.keys() >= set(wanted)

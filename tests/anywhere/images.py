"""The root file system of containers of these tests: the parts of this Debian that Sandkube needs, and no more.

Copied from the packages that are installed here: no network, two seconds.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.anywhere.containers import HOME, USER

NEEDED = ("python3", "python3-venv", "git")
"""What the README asks for, as packages."""
_LEFT_OUT = ("/usr/share/doc/", "/usr/share/man/", "/usr/share/locale/", "/usr/share/info/", "/usr/share/lintian/")
_RELATIONS = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")


def _said(*words: str) -> str:
    done = subprocess.run(
        words, check=True, capture_output=True, text=True, env={"PATH": os.environ["PATH"], "LC_ALL": "C"}
    )
    return done.stdout


def _closure() -> list[str]:
    """The installed packages that the needed and the essential ones depend on."""
    shown = _said("dpkg-query", "--show", "--showformat=${Package} ${Essential} ${db:Status-Status}\n").splitlines()
    installed = {words[0]: words[1] for words in map(str.split, shown) if words[-1] == "installed"}
    essential = [name for name, flag in installed.items() if flag == "yes"]
    options = ["--recurse", "--installed", *(f"--no-{each}" for each in _RELATIONS)]
    listed = _said("apt-cache", "depends", *options, *NEEDED, *essential).splitlines()
    return sorted(set(listed) & set(installed))


def _files(packages: list[str]) -> Iterator[str]:
    for path in dict.fromkeys(_said("dpkg-query", "--listfiles", *packages).splitlines()):
        if path.startswith("/") and path != "/." and not path.startswith(_LEFT_OUT) and os.path.lexists(path):  # noqa: PTH100
            yield path


def make(root: Path) -> None:
    """Fill a new folder with a root file system that any user may read."""
    root.mkdir(mode=0o755)
    for name in ("bin", "sbin", "lib", "lib64"):
        if Path("/", name).is_symlink():
            (root / "usr" / name).mkdir(parents=True)
            (root / name).symlink_to(f"usr/{name}")
    listed = "\0".join(each.removeprefix("/") for each in _files(_closure()))
    with subprocess.Popen(
        ["tar", "--create", "--directory=/", "--no-recursion", "--null", "--files-from=-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as packed:
        unpack = ["tar", "--extract", "--keep-directory-symlink", f"--directory={root}"]
        with subprocess.Popen(unpack, stdin=packed.stdout) as unpacked:
            assert packed.stdin is not None
            packed.stdin.write(listed.encode())
            packed.stdin.close()
    assert (packed.returncode, unpacked.returncode) == (0, 0)
    for name in ("dev", "proc", "sys", "tmp", "run", "root", "home", "opt"):
        (root / name).mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "root").chmod(0o700)
    (root / "etc/passwd").write_text(f"root:x:0:0::{HOME}:/bin/sh\nuser:x:{USER}:{USER}::{HOME}:/bin/sh\n")
    (root / "etc/group").write_text(f"root:x:0:\nuser:x:{USER}:\n")
    subprocess.run(["ldconfig", "-r", str(root)], check=True)

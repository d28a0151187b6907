"""Virtual environments of packages that tests use and this project does not, below outputs/, each made once."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import venv
from pathlib import Path

from tests.clones import ROOT


def environment(name: str) -> Path:
    """The folder outputs/NAME with what tests/requirements-NAME.txt pins; who asks first makes it."""
    requirements = ROOT / f"tests/requirements-{name}.txt"
    folder = ROOT / "outputs" / name
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = folder / "requirements.txt"
        if not stamp.is_file() or stamp.read_bytes() != requirements.read_bytes():
            shutil.rmtree(folder, ignore_errors=True)
            venv.create(folder, with_pip=True)
            words = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
            words += ["--only-binary", ":all:", "--no-compile", "--requirement", str(requirements)]
            subprocess.run([folder / "bin/python", *words], check=True)
            shutil.copy(requirements, stamp)
    return folder

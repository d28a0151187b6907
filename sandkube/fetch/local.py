"""`local:` sources: a folder of this repository, without what editors and interpreters leave behind."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from sandkube.nar import nar_hash

_LEFTOVERS = ("__pycache__", "*.pyc", ".*.sw?", "*~", ".pytest_cache", ".mypy_cache", ".ruff_cache")


def copy(folder: Path, into: Path) -> None:
    """Copy a folder into an existing one; modes 0644 and 0755 by the executable bit of the owner."""
    shutil.copytree(
        folder, into, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*_LEFTOVERS), copy_function=_copy
    )
    for name, _, _ in os.walk(into, topdown=False):
        made = Path(name)
        made.chmod(0o755)
        if made != into and not any(made.iterdir()):
            made.rmdir()  # git keeps no empty folder, so another clone has none


def _copy(source: str, target: str) -> None:
    shutil.copyfile(source, target, follow_symlinks=False)
    if not Path(target).is_symlink():
        Path(target).chmod(0o755 if Path(source).stat().st_mode & 0o100 else 0o644)


def tree_hash(folder: Path) -> str:
    """The NAR hash of the folder as it would be copied."""
    with tempfile.TemporaryDirectory() as temporary:
        copy(folder, Path(temporary))
        return nar_hash(Path(temporary))

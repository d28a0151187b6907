"""The node without a sandbox of its own: a folder with its root file system and the script that starts it.

    FOLDER/sandkube    native/starter/sandkube: start, stop, kubectl, shell
    FOLDER/rootfs/     the node's file system
    FOLDER/state/      process, kubeconfig, logs; made by the script

The folder is used where it is made (`run-cluster --in-place`) or carried elsewhere in an archive (`export-node`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

KIND = "in-place"
SCRIPT = "sandkube"
NAME = "sandkube-node"
SOURCE = Path(__file__).resolve().parents[2] / "native/starter" / SCRIPT
API_PORT = 6443


def make(bundle: Path, folder: Path, *, linked: bool) -> None:
    """Fill a new folder. `linked`: with hard links to the store's files, which must not be written to then."""
    folder.mkdir(mode=0o755)
    shutil.copytree(
        bundle / "rootfs", folder / "rootfs", symlinks=True, copy_function=_link if linked else shutil.copy2
    )
    shutil.copy(SOURCE, folder / SCRIPT)
    if not linked:
        for each in ((folder / "rootfs"), *(folder / "rootfs").rglob("*")):
            if not each.is_symlink():
                each.chmod(each.stat().st_mode | 0o200)


def _link(source: str, target: str) -> None:
    """A hard link; a copy on another file system."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


@dataclass(frozen=True, slots=True)
class InPlace:
    """Command lines of the script; the counterpart of `sandbox.Sandbox`."""

    folder: Path
    arguments: tuple[str, ...] = ()

    def run(self, _bundle: Path, _parent: int) -> list[str]:
        """Boot and stay, and end with whoever runs it; stages on standard output, logs on standard error."""
        return [str(self.folder / SCRIPT), "run", "--with-parent", *self.arguments]

    def execute(self, command: Sequence[str]) -> list[str]:
        """Run a command in the node's file system, on this terminal."""
        return [str(self.folder / SCRIPT), "shell", *command]

"""The node without a sandbox of its own: a folder with its root file system and the script that starts it.

    FOLDER/sandkube    the script (native/starter), which the file system carries: start, stop, kubectl, shell
    FOLDER/rootfs/     the node's file system
    FOLDER/settings.json  the node's settings, if there are any
    FOLDER/state/      process, kubeconfig, logs; made by the script

The folder is used where it is made (`run-cluster --in-place`) or carried elsewhere in an archive (`export-node`).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sandkube import tree
from sandkube.cluster.deadline import TRIAL
from sandkube.errors import UserError
from sandkube.run import base_environment, run

KIND = "in-place"
SCRIPT = "sandkube"
SETTINGS = "settings.json"
NAME = "sandkube-node"


def script(bundle: Path) -> Path:
    """The script, as it comes with the node."""
    return (bundle / "rootfs").resolve() / "usr/share/sandkube/starter"


def check(bundle: Path, arguments: Sequence[str]) -> None:
    """Have the script try what a node does, before anything is made. Raises UserError, in its words."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
        (Path(folder) / "rootfs").symlink_to(bundle / "rootfs")
        words = [shutil.copy(script(bundle), Path(folder) / SCRIPT), "try", *arguments]
        done = run(words, env=base_environment(Path("/root")), cwd=Path("/"), log=said, check=False, seconds=TRIAL)
        said.seek(0)
        if done.status != 0:
            raise UserError(said.read().decode(errors="replace").strip().removeprefix(f"{SCRIPT}: "))


def places(bundle: Path) -> dict[str, Path]:
    """What the folder holds, by its names in an archive."""
    return {f"{NAME}/rootfs": (bundle / "rootfs").resolve(), f"{NAME}/{SCRIPT}": script(bundle)}


def make(bundle: Path, folder: Path, settings: bytes) -> None:
    """Fill a new folder; settings are a document (`sandkube.cluster.configured`), if there are any."""
    folder.mkdir(mode=0o755)
    tree.copy((bundle / "rootfs").resolve(), ".", folder, "rootfs")
    shutil.copy(script(bundle), folder / SCRIPT)
    if settings:
        (folder / SETTINGS).touch(0o600)
        (folder / SETTINGS).write_bytes(settings)


@dataclass(frozen=True, slots=True)
class InPlace:
    """Command lines of the script; the counterpart of `sandbox.Sandbox`."""

    folder: Path
    arguments: tuple[str, ...] = ()
    data: str = ""
    """The folder of data that stay; "" for none."""

    def run(self, _bundle: Path, _parent: int) -> list[str]:
        """Boot and stay, and end with whoever runs it; stages on standard output, logs on standard error."""
        data = [f"--data={self.data}"] if self.data else []
        return [str(self.folder / SCRIPT), "run", *data, "--with-parent", *self.arguments]

    def execute(self, command: Sequence[str]) -> list[str]:
        """Run a command in the node's file system, on this terminal."""
        return [str(self.folder / SCRIPT), "shell", *command]

"""The node's file system in the shapes that other tools take, read by such tools."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from sandkube.nar import nar_hash
from sandkube.tree import normalise, remove_tree
from tests.anywhere import packages
from tests.clones import Clone


@pytest.fixture
def made(here: Clone) -> Path:
    """The outputs."""
    packages.install()
    here.do("build", "node-image", "node-tar", "rootfs")
    return here.folder / "outputs/result"


def _unpacked(words: list[str], folder: Path) -> str:
    """The output hash of what a tar holds, unpacked by tar."""
    folder.mkdir()
    subprocess.run(["tar", "--extract", "--directory", str(folder), *words], check=True)
    normalise(folder)
    try:
        return nar_hash(folder)
    finally:
        remove_tree(folder)


def test_the_tar_is_the_tree(made: Path, here: Clone, tmp_path: Path) -> None:
    assert _unpacked(["--file", str(made / "node-tar/node.tar")], tmp_path / "tree") == here.outputs()["rootfs"]


def test_podman_takes_the_image(made: Path, here: Clone, tmp_path: Path) -> None:
    """Its layer is the tree."""
    own = [f"--root={tmp_path}/root", f"--runroot={tmp_path}/run", f"--tmpdir={tmp_path}/tmp", "--storage-driver=vfs"]

    def podman(*words: str) -> str:
        done = subprocess.run(
            ["podman", *own, "--cgroup-manager=cgroupfs", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = podman("pull", "--quiet", f"oci:{(made / 'node-image').resolve()}")
    (about,) = json.loads(podman("image", "inspect", said.split()[-1]))
    assert about["Architecture"] == "amd64"
    assert about["Config"]["Cmd"] == ["/usr/bin/sandkube-node"]
    (layer,) = about["RootFS"]["Layers"]
    blob = made / "node-image/blobs/sha256" / layer.removeprefix("sha256:")
    assert _unpacked(["--file", str(blob)], tmp_path / "tree") == here.outputs()["rootfs"]
    podman("rmi", "--all", "--force")

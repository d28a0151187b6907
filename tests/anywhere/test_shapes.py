"""The node's file system in the shapes that other tools take, read by such tools."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandkube.build.derivation import EPOCH
from sandkube.digest import sha256_file
from sandkube.nar import nar_hash
from sandkube.tree import normalise, remove_tree
from tests.anywhere import packages
from tests.clones import Clone


@pytest.fixture
def made(here: Clone) -> Path:
    """The outputs, also those that nothing else needs."""
    packages.install()
    here.do("build", "gvisor", "node-erofs", "node-image", "node-tar", "rootfs")
    return here.folder / "outputs/result"


def _unpacked(words: list[str], folder: Path) -> str:
    """The output hash of what a tar holds, unpacked by tar."""
    folder.mkdir()
    subprocess.run(["tar", "--extract", "--directory", str(folder), *words], check=True)
    return _hash_of(folder)


def test_the_tar_is_the_tree(made: Path, here: Clone, tmp_path: Path) -> None:
    assert _unpacked(["--file", str(made / "node-tar/node.tar")], tmp_path / "tree") == here.outputs()["rootfs"]


def _hash_of(copy: Path) -> str:
    normalise(copy)
    try:
        return nar_hash(copy)
    finally:
        remove_tree(copy)


def _said(*words: str | Path) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_erofs_image_is_the_tree(made: Path, here: Clone, tmp_path: Path) -> None:
    """As the file system's own tools read it, and check it."""
    image = made / "node-erofs/node.erofs"
    _said("fsck.erofs", f"--extract={tmp_path}/tree", "--no-preserve", image)
    assert _hash_of(tmp_path / "tree") == here.outputs()["rootfs"]
    said = _said("dump.erofs", "-s", image)
    assert re.search(r"created: +Tue Jan +1 \S+ 1980\n", said), said
    assert re.search(r"UUID: +[0-]+\n", said), said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts images")
def test_the_kernel_mounts_the_erofs_image(made: Path, here: Clone, tmp_path: Path) -> None:
    if "\terofs\n" not in Path("/proc/filesystems").read_text() or not Path("/dev/loop-control").exists():
        pytest.skip("this kernel has no EROFS, or no loop devices")
    (mounted := tmp_path / "mounted").mkdir()
    _said("mount", "-t", "erofs", "-o", "loop,ro", (made / "node-erofs/node.erofs").resolve(), mounted)
    try:
        modes = {(path.lstat().st_uid, path.lstat().st_gid, path.lstat().st_mtime) for path in mounted.rglob("*")}
        assert modes == {(0, 0, EPOCH)}
        _said("cp", "--recursive", "--no-dereference", f"{mounted}/.", tmp_path / "tree")
    finally:
        _said("umount", mounted)
    assert _hash_of(tmp_path / "tree") == here.outputs()["rootfs"]


@pytest.mark.skipif(os.geteuid() != 0, reason="runsc is started without a wall around it here, which takes root")
def test_gvisor_has_the_erofs_image_as_its_root(made: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle/rootfs").mkdir(parents=True)
    image, own = (made / "node-erofs/node.erofs").resolve(), "dev.gvisor.spec.rootfs"
    spec = {
        "ociVersion": "1.0.0",
        "root": {"path": "rootfs"},
        "process": {"args": ["/bin/sha256sum", "/usr/bin/sandkube-node"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "linux": {"namespaces": [{"type": each} for each in ("pid", "mount", "network")]},
        "annotations": {f"{own}.source": str(image), f"{own}.type": "erofs", f"{own}.overlay": "memory"},
    }
    (tmp_path / "bundle/config.json").write_text(json.dumps(spec))
    words = [f"--root={tmp_path}/root", "--network=none", "--ignore-cgroups", "--platform=systrap"]
    said = _said(made / "gvisor/bin/runsc", *words, "run", f"--bundle={tmp_path}/bundle", tmp_path.name)
    assert said == f"{sha256_file(made / 'rootfs/usr/bin/sandkube-node')}  /usr/bin/sandkube-node\n"


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """podman with folders of its own, and what a command of it says."""
    with tempfile.TemporaryDirectory(prefix="sk-", dir="/tmp") as run:  # its path may have 50 characters
        own = (f"--root={tmp_path}/root", f"--runroot={run}", f"--tmpdir={tmp_path}/tmp", "--storage-driver=vfs")
        yield functools.partial(_said, "podman", *own, "--cgroup-manager=cgroupfs")


def test_podman_takes_the_image(made: Path, here: Clone, podman: Callable[..., str], tmp_path: Path) -> None:
    """Its layer is the tree."""
    said = podman("pull", "--quiet", f"oci:{(made / 'node-image').resolve()}")
    (about,) = json.loads(podman("image", "inspect", said.split()[-1]))
    assert about["Architecture"] == "amd64"
    assert about["Config"]["Cmd"] == ["/usr/bin/sandkube-node"]
    (layer,) = about["RootFS"]["Layers"]
    blob = made / "node-image/blobs/sha256" / layer.removeprefix("sha256:")
    assert _unpacked(["--file", str(blob)], tmp_path / "tree") == here.outputs()["rootfs"]
    podman("rmi", "--all", "--force")

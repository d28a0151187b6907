"""Composing a tree from other outputs: what `rootfs` and `image` share."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from sandkube.buildbox import IN, Mount
from sandkube.builders import Job
from sandkube.errors import UserError
from sandkube.recipe import Image, Rootfs


def _place(root: Path, path: str, job: Job, key: str) -> Path:
    """A path below `root`; refuses absolute paths and `..`."""
    if path.startswith("/") or ".." in Path(path).parts:
        raise UserError(f"recipes/{job.name}.toml: {key}: expected a path inside the output, got {path!r}")
    return root / path


def _install(job: Job, root: Path, at: int, path: str, to: str, source: Path) -> Path:
    origin = _place(source, path, job, f"build.install[{at}].path")
    target = _place(root, to, job, f"build.install[{at}].to")
    if not origin.exists():
        raise UserError(f"recipes/{job.name}.toml: build.install[{at}].path: no such file {path!r} in that input")
    target.parent.mkdir(parents=True, exist_ok=True)
    if origin.is_dir():
        shutil.copytree(origin, target, symlinks=True, dirs_exist_ok=True)
        for folder in (target, *target.rglob("*")):
            if folder.is_dir() and not folder.is_symlink():
                folder.chmod(0o755)
    else:
        if target.exists():
            raise UserError(f"recipes/{job.name}.toml: build.install[{at}].to: {to!r} is there already")
        shutil.copy2(origin, target)
    return target


def _applets(job: Job, root: Path, folder: str) -> None:
    """A link for each applet that the busybox of the input says it has."""
    bin_path = f"{IN}/busybox/bin/busybox"
    done = job.box.run(
        [bin_path, "--list"], mounts=[Mount(job.inputs["busybox"], f"{IN}/busybox")], log=job.log, capture=True
    )
    target = root / folder
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy2(job.inputs["busybox"] / "bin/busybox", target / "busybox")
    for name in sorted(done.stdout.decode().split()):
        if not (target / name).exists():
            (target / name).symlink_to("busybox")


def compose(job: Job, options: Rootfs | Image, root: Path) -> Mapping[str, int]:
    """Fill `root`; returns the modes that the recipe sets, by path relative to `root`."""
    modes: dict[str, int] = {}
    for at, each in enumerate(options.install):
        target = _install(job, root, at, each.path, each.to, job.inputs[each.from_])
        if each.mode:
            modes[str(target.relative_to(root))] = int(each.mode, 8)
    for each_directory in options.directories:
        path = _place(root, each_directory.path, job, "build.directories")
        path.mkdir(parents=True, exist_ok=True)
        modes[str(path.relative_to(root))] = int(each_directory.mode, 8)
    if options.applets:
        _applets(job, root, options.applets)
    for link, aim in options.links.items():
        path = _place(root, link, job, f"build.links.{link}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(aim)
    return modes

"""Composing a tree from other outputs: what `rootfs` and `image` share."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sandkube import tree
from sandkube.build.box import IN, Call, Mount
from sandkube.build.builders.kind import Job
from sandkube.decode import Fault
from sandkube.shapes import Inside, Mode, RecipeName


@dataclass(frozen=True, slots=True)
class Install:
    """Copy `path` (a file, a folder, or `.`) of input `from` to `to`; a mode such as "0755" only in images."""

    from_: RecipeName
    path: Inside
    to: Inside
    mode: Mode = ""


@dataclass(frozen=True, slots=True)
class Directory:
    """A folder to make, with a mode such as "1777"."""

    path: Inside
    mode: Mode = "0755"


class Composition(Protocol):
    """The options that say what a tree is composed of."""

    @property
    def install(self) -> tuple[Install, ...]:
        """Files and folders of inputs, in order."""
        ...

    @property
    def directories(self) -> tuple[Directory, ...]:
        """Folders to make."""
        ...

    @property
    def links(self) -> Mapping[str, str]:
        """Symbolic links: path -> aim."""
        ...

    @property
    def applets(self) -> str:
        """The folder that gets busybox and a link for each of its applets; empty for none."""
        ...


def inputs(options: Composition) -> Mapping[str, str]:
    """The inputs that a composition names, with the key of each."""
    named = {each.from_: f"build.install[{at}].from" for at, each in enumerate(options.install)}
    return ({"busybox": ""} if options.applets else {}) | named


def clashes(options: Composition) -> Iterator[Fault]:
    """(key, sentence) of folders that are named twice, and of links at or above another path of the composition."""
    folders = [each.path for each in options.directories]
    for at, path in enumerate(folders):
        if path in folders[:at]:
            yield ("directories", at), f"{path} is named twice"
    others = [*folders, *(each.to for each in options.install), *([options.applets] if options.applets else [])]
    for link in options.links:
        for path in (*others, *(each for each in options.links if each != link)):
            if f"{path}/".startswith(f"{link}/"):
                yield ("links", link), f"is in the way of {path}"


def _check(job: Job, options: Composition) -> None:
    """What can be seen before any work: paths that leave the output, and modes that are none."""
    for at, each in enumerate(options.install):
        job.check_inside(f"build.install[{at}].path", each.path)
        job.check_inside(f"build.install[{at}].to", each.to)
        _check_mode(job, f"build.install[{at}].mode", each.mode or "0644")
    for at, folder in enumerate(options.directories):
        job.check_inside(f"build.directories[{at}].path", folder.path)
        _check_mode(job, f"build.directories[{at}].mode", folder.mode)
    for link in options.links:
        job.check_inside(f"build.links.{link}", link)
    job.check_inside("build.applets", options.applets)


def _check_mode(job: Job, key: str, mode: str) -> None:
    if not re.fullmatch(r"0?[0-7]{3,4}", mode):
        raise job.fault(key, f"expected a mode such as 0755, got {mode!r}")


def _install(job: Job, root: Path, key: str, install: Install, *, linked: bool) -> None:
    origin = job.inputs[install.from_]
    with job.at(f"{key}.path"):
        found = tree.status(origin, install.path)
        if found is None:
            raise tree.Refused(f"no such file {install.path!r} in that input")
        if stat.S_ISLNK(found.st_mode):
            raise tree.Refused(f"{install.path!r} is a link to {tree.aim_of(origin, install.path)!r}; install that")
    with job.at(f"{key}.to"):
        tree.copy(origin, install.path, root, install.to, linked=linked)


def _applets(job: Job, root: Path, folder: str) -> None:
    """A link for each applet that the busybox of the input says it has."""
    bin_path = f"{IN}/busybox/bin/busybox"
    call = Call([bin_path, "--list"], [Mount(job.inputs["busybox"], f"{IN}/busybox")])
    done = job.box.run(call, log=job.log, capture=True)
    tree.copy(job.inputs["busybox"], "bin/busybox", root, f"{folder}/busybox")
    for name in sorted(done.stdout.decode().split()):
        if tree.status(root, f"{folder}/{name}") is None:
            tree.link(root, f"{folder}/{name}", "busybox")


def _key_of(path: str) -> str:
    """How a path is called in a tar: without `.` and doubled slashes."""
    return "/".join(tree.parts_of(path))


def compose(job: Job, options: Composition, root: Path, *, linked: bool = False) -> Mapping[str, int]:
    """Fill `root`; returns the modes that the recipe sets, by path relative to `root`.

    `linked`: with hard links to the inputs' files.
    """
    _check(job, options)
    modes: dict[str, int] = {}
    for at, each in enumerate(options.install):
        _install(job, root, f"build.install[{at}]", each, linked=linked)
        if each.mode:
            modes[_key_of(each.to)] = int(each.mode, 8)
    for at, folder in enumerate(options.directories):
        with job.at(f"build.directories[{at}]"):
            tree.make_folder(root, folder.path)
        modes[_key_of(folder.path)] = int(folder.mode, 8)
    if options.applets:
        with job.at("build.applets"):
            _applets(job, root, options.applets)
    for link, aim in options.links.items():
        with job.at(f"build.links.{link}"):
            tree.link(root, link, aim)
    return modes

"""Places where the interceptor and what it is tested with can run: this machine, and a sandbox."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from sandkube.cluster.place import Place
from sandkube.cluster.programs import Programs, bundle, sandbox
from sandkube.run import base_environment
from tests.sanitized import program

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "outputs/result"


class Runs(Protocol):
    """Runs a command where the files are; `folder` is theirs there."""

    folder: Path

    def __call__(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]: ...


class Here:
    """This machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)


class Inside:
    """A sandbox whose first process waits."""

    folder = Path("/t")

    def __init__(self, place: Place) -> None:
        self.place = place

    def __call__(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        one = sandbox(self.place, "interceptor")
        return subprocess.run(
            one.execute(words),
            env=base_environment(Path("/root")),
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )


def fill(folder: Path, seen: Path) -> None:
    """The files that target.c tells of; `seen` is the folder's name where it runs."""
    for name in ("named", "prepared", "nameX"):
        (folder / name).mkdir(parents=True)
    files = {
        "prepared/file": "prepared\n",
        "prepared/raced": "prepared\n",
        "nameX/raced": "plain\n",
        "named/raced": "named\n",
        "named/new-name": "plain\n",
        "plain": "plain\n",
        "rules": f"# for the tests\n{seen}/named/ {seen}/prepared/\n\n*/old-name\tnew-name\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    (folder / "prepared/link").symlink_to("target")
    (folder / "prepared/folder-link").symlink_to(".")
    another = folder / f"root{seen}"
    for name, text in {"named/file": "plain\n", "prepared/inside": "prepared\n"}.items():
        (another / name).parent.mkdir(parents=True)
        (another / name).write_text(text)
    shutil.copy(program("interceptor"), folder)
    for product in ("test-target/bin/target", "test-goroutines/bin/goroutines"):
        if not (RESULT / product).exists():
            pytest.fail(f"{RESULT / product} is missing: run ./do build first", pytrace=False)
        shutil.copy(RESULT / product, folder)


@contextmanager
def inside(base: Path) -> Iterator[Runs]:
    root = base / "root"
    for name in ("bin", "dev", "proc", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(RESULT / "busybox/bin/busybox", root / "bin")
    for applet in ("sh", "sleep"):
        (root / "bin" / applet).symlink_to("busybox")
    fill(root / "t", Path("/t"))
    place = Place(base / "guest")
    place.folder.mkdir()
    place.runsc.mkdir()
    made = Programs((RESULT / "gvisor/bin/runsc").resolve(), (RESULT / "bundle").resolve(), Path())
    made.prepare(place)
    config = bundle(place) / "config.json"
    spec = json.loads(config.read_text())
    spec["root"]["path"] = str(root)
    spec["process"]["args"] = ["/bin/sh", "-c", "echo up; exec sleep 2147483647"]
    config.write_text(json.dumps(spec))
    process = subprocess.Popen(
        sandbox(place, "interceptor").run(bundle(place), os.getpid()),
        env=base_environment(Path("/root")),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield Inside(place)
        process.kill()


def intercepted(runs: Runs, *words: str, options: tuple[str, ...] = ()) -> list[str]:
    where = str(runs.folder)
    return [f"{where}/interceptor", "--rules", f"{where}/rules", *options, "--", *words]

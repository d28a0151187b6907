"""`pypi:` sources: one wheel of a project, fetched by this environment's pip and pinned by its SHA-256."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sandkube.digest import sha256_file
from sandkube.errors import HashMismatch, UserError
from sandkube.fetch import blobs
from sandkube.lock import File
from sandkube.recipe import Source
from sandkube.run import CommandFailed, network_environment, run

_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux2010_x86_64")


def _pip(into: Path, requirement: str, *words: str) -> None:
    argv = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", str(into)]
    argv += ["--disable-pip-version-check", "--no-cache-dir", "--progress-bar", "off", "--python-version", "3.11"]
    for platform in (*_PLATFORMS, "any"):
        argv += ["--platform", platform]
    (into / "requirement.txt").write_text(requirement + "\n")
    with tempfile.TemporaryFile() as log:
        env = network_environment(into)
        try:
            run([*argv, *words, "--requirement", str(into / "requirement.txt")], env=env, cwd=into, log=log)
        except CommandFailed:
            log.seek(0)
            said = log.read().decode(errors="replace").strip()
            if "THESE PACKAGES DO NOT MATCH THE HASHES" in said:
                got = said.rpartition("Got")[2].split()
                expected = requirement.rpartition("sha256:")[2]
                raise HashMismatch(
                    requirement.split()[0],
                    expected=expected,
                    got=got[0] if got else "other bytes",
                    origin="pip's index",
                ) from None
            last = "\n  ".join(said.splitlines()[-4:])
            raise UserError(
                f"pip could not fetch {requirement.split()[0]}:\n  {last}",
                hint="is a package index reachable? PIP_INDEX_URL, PIP_CERT and proxy variables are honoured",
            ) from None


def resolve(source: Source, cache: Path) -> tuple[File, ...]:
    """The one wheel that pip chooses for this platform; it is kept in the cache."""
    with tempfile.TemporaryDirectory() as temporary:
        _pip(Path(temporary), f"{source.name}=={source.version}")
        wheels = sorted(Path(temporary).glob("*.whl"))
        if len(wheels) != 1:
            raise UserError(f"{source}: expected one wheel, pip fetched {len(wheels)}")
        file = File(wheels[0].name, sha256_file(wheels[0]), wheels[0].stat().st_size)
        blobs.take(cache, file, wheels[0], "pip's index")
        return (file,)


def fetch(name: str, source: Source, files: Sequence[File], cache: Path) -> None:
    """Bring the pinned wheel into the cache."""
    for file in files:
        if blobs.sound(cache, file, name):
            continue
        with tempfile.TemporaryDirectory() as temporary:
            requirement = f"{source.name}=={source.version} --hash=sha256:{file.sha256}"
            _pip(Path(temporary), requirement, "--require-hashes")
            (wheel,) = Path(temporary).glob("*.whl")
            blobs.take(cache, file, wheel, "pip's index")


def versions(source: Source, cache: Path) -> list[str]:
    """Released versions of a project, oldest first, as pip lists them."""
    with tempfile.TemporaryDirectory() as temporary:
        argv = [sys.executable, "-m", "pip", "index", "versions", "--disable-pip-version-check", "--json", source.name]
        try:
            done = run(argv, env=network_environment(Path(temporary)), cwd=Path(temporary), capture=True)
        except CommandFailed:
            raise UserError(f"pip knows no versions of {source.name}", hint="is a package index reachable?") from None
    known: list[str] = json.loads(done.stdout)["versions"]
    return known[::-1]

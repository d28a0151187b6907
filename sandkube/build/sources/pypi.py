"""`pypi:` sources: one wheel of a project, fetched by this environment's pip and pinned by its SHA-256."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sandkube import archive, log
from sandkube.build.lock import File, Pin
from sandkube.build.sources import blobs
from sandkube.build.sources.kind import Ask, Source, SourceKind
from sandkube.build.sources.settings import client_environment, configuration_home
from sandkube.digest import sha256_file
from sandkube.errors import HashMismatch, UserError
from sandkube.run import run, wait

_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux2010_x86_64")
_ATTEMPTS = 3  # pip asks again for a 5xx by itself, but gives up when the connection is cut inside a file


def _environment(home: Path) -> dict[str, str]:
    folder = configuration_home()
    return client_environment(home) | ({"XDG_CONFIG_HOME": str(folder)} if folder else {})


def _platform_words() -> list[str]:
    words = ["--only-binary", ":all:", "--python-version", "3.11", "--disable-pip-version-check"]
    for platform in (*_PLATFORMS, "any"):
        words += ["--platform", platform]
    return words


def _download(into: Path, requirement: str, *words: str) -> str:
    """Run `pip download` for one requirement; "" when it worked, else what pip said."""
    argv = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(into), "--no-input"]
    argv += ["--no-cache-dir", "--progress-bar", "off", *_platform_words()]
    (into / "requirement.txt").write_text(requirement + "\n")
    with tempfile.TemporaryFile() as sink:
        argv += [*words, "--requirement", str(into / "requirement.txt")]
        if run(argv, env=_environment(into), cwd=into, log=sink, check=False).status == 0:
            return ""
        sink.seek(0)
        return sink.read().decode(errors="replace").strip() or "no word from pip"


def _pip(name: str, into: Path, requirement: str, *words: str) -> None:
    wanted = requirement.split()[0]
    for attempt in range(1, _ATTEMPTS + 1):
        said = _download(into, requirement, *words)
        if not said:
            return
        if "DO NOT MATCH THE HASHES" in said:
            got = re.search(r"Got\s+([0-9a-f]{64})", said)
            raise HashMismatch(
                f"{name}: {wanted}",
                expected=requirement.rpartition("sha256:")[2],
                got=got[1] if got else "other bytes",
                origin="pip's index",
            )
        if attempt == _ATTEMPTS or "No matching distribution" in said:
            break
        log.step(name, f"pip could not fetch {wanted}, asking again: {said.splitlines()[-1].strip()[:200]}")
        wait(attempt)
    last = "\n  ".join(said.splitlines()[-4:])
    raise UserError(
        f"{name}: pip could not fetch {wanted}:\n  {last}",
        hint="is a package index reachable? PIP_INDEX_URL, PIP_CERT and proxy variables are honoured",
    )


def resolve(source: Source, cache: Path) -> tuple[File, ...]:
    """The one wheel that pip chooses for this platform; it is kept in the cache."""
    with tempfile.TemporaryDirectory() as temporary:
        _pip(str(source), Path(temporary), f"{source.name}=={source.version}")
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
            log.step(name, f"fetching {source} by pip")
            requirement = f"{source.name}=={source.version} --hash=sha256:{file.sha256}"
            _pip(name, Path(temporary), requirement, "--require-hashes")
            (wheel,) = Path(temporary).glob("*.whl")
            blobs.take(cache, file, wheel, "pip's index")


def versions(source: Source) -> list[str]:
    """Versions of a project that have a wheel for this platform, oldest first, as pip lists them."""
    with tempfile.TemporaryDirectory() as temporary, tempfile.TemporaryFile() as sink:
        here = Path(temporary)
        argv = [sys.executable, "-m", "pip", "index", "versions", "--no-input", *_platform_words(), source.name]
        done = run(argv, env=_environment(here), cwd=here, log=sink, capture=True, check=False)
        # The plain text is all that pip 23, which comes with CPython 3.11, has; --json came with 25.
        listed = re.search(r"^Available versions: (.+)$", done.stdout.decode(errors="replace"), re.MULTILINE)
        if done.status != 0 or listed is None:
            sink.seek(0)
            said = sink.read().decode(errors="replace").strip().splitlines()
            last = f":\n  {said[-1]}" if said else ""
            raise UserError(f"pip knows no versions of {source.name}{last}", hint="is a package index reachable?")
    return [each.strip() for each in listed[1].split(",")][::-1]


def _snapshot(ask: Ask, into: Path) -> str:
    file = ask.pin.files[0]
    archive.unpack_zip(blobs.checked(ask.cache, file, ask.recipe), into, name=file.name)
    return blobs.identity("pypi", ask.pin.files)


def _check(source: Source) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", source.name):
        return f"{source.name!r} is no project's name"
    known = re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z.!+_-]*", source.version)
    return "" if known else f"{source.version!r} is no version of a project"


KIND = SourceKind(
    identity=lambda ask: blobs.identity("pypi", ask.pin.files),
    resolve=lambda ask: Pin("", files=resolve(ask.source, ask.cache)),
    fetch=lambda ask: fetch(ask.recipe, ask.source, ask.pin.files, ask.cache),
    snapshot=_snapshot,
    code=("build/sources/pypi", "archive"),
    versions=lambda ask: versions(ask.source),
    misfit=blobs.misfit,
    check=_check,
)

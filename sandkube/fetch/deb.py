"""`deb:` sources: Debian packages by apt's own programs, with a configuration and lists of our own.

The machine's sources are read, its state is not touched, and no root is needed. Where there is no apt, or where
SANDKUBE_DEB_MIRROR is set, pinned files come from that mirror's pool.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandkube.digest import sha256_file
from sandkube.errors import UserError
from sandkube.fetch import blobs, url
from sandkube.lock import File
from sandkube.recipe import Source
from sandkube.run import CommandFailed, network_environment, run

MIRROR = "SANDKUBE_DEB_MIRROR"
_SOURCES = Path("/etc/apt")
_update_lock = threading.Lock()
_updated: set[Path] = set()


@dataclass(frozen=True, slots=True)
class _Apt:
    """Apt's programs with private folders below `folder`."""

    folder: Path

    def call(self, *words: str, cwd: Path | None = None) -> str:
        """Run one of apt's programs; its standard output. Raises UserError with its last lines."""
        env = network_environment(self.folder) | {"APT_CONFIG": str(self.folder / "apt.conf")}
        with tempfile.TemporaryFile() as log:
            try:
                done = run(words, env=env, cwd=cwd or self.folder, log=log, capture=True)
            except CommandFailed as failure:
                log.seek(0)
                said = (failure.finished.stdout + log.read()).decode(errors="replace").strip().splitlines()
                errors = [line for line in said if line.startswith("E:")] or said[-3:]
                raise UserError(f"{words[0]} {words[1]}: {' '.join(errors)}") from None
        return done.stdout.decode()

    def update(self) -> None:
        """Bring the private lists up to date, once a run. An entry that fails leaves the others usable."""
        with _update_lock, (self.folder / "lock").open("w") as lock:
            if self.folder in _updated:
                return
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.call("apt-get", "update", "--quiet=2")
            _updated.add(self.folder)


def _with_sources(text: str, *, one_line: bool) -> str:
    """Entries of Debian archives only, each with its source packages too."""
    if one_line:
        lines = [line for line in text.splitlines() if re.match(r"deb\s.*\S+/debian\S*\s", line)]
        return "".join(f"{line}\n{'deb-src' + line[3:]}\n" for line in lines)
    stanzas = [each for each in re.split(r"\n\s*\n", text) if re.search(r"^URIs:.*/debian", each, re.MULTILINE)]
    return "\n\n".join(re.sub(r"^Types:.*$", "Types: deb deb-src", each, flags=re.MULTILINE) for each in stanzas) + "\n"


def _write_sources(folder: Path) -> None:
    parts = folder / "sources.list.d"
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir()
    found = sorted((_SOURCES / "sources.list.d").glob("*")) if (_SOURCES / "sources.list.d").is_dir() else []
    for path in (_SOURCES / "sources.list", *found):
        if path.suffix in (".list", ".sources") and path.is_file():
            text = _with_sources(path.read_text(), one_line=path.suffix == ".list")
            (parts / path.name).write_text(text)


def _apt(cache: Path) -> _Apt | None:
    """Apt with private folders in the user's cache; None where it is missing or a mirror is set."""
    if os.environ.get(MIRROR) or shutil.which("apt-get", path="/usr/bin:/bin") is None:
        return None
    folder = cache / "apt"
    for each in ("state/lists/partial", "cache/archives/partial"):
        (folder / each).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    plain = run(["apt-config", "dump"], env=network_environment(folder), cwd=folder, capture=True).stdout.decode()
    # Hooks in the machine's configuration may write to it; its proxies and certificates are the user's settings.
    kept = [line for line in plain.splitlines() if re.match(r"Acquire::https?(::\S*)? \"", line)]
    (folder / "apt.conf").write_text(
        f'Dir::State "{folder}/state";\nDir::State::status "{folder}/status";\nDir::Cache "{folder}/cache";\n'
        f'Dir::Etc::SourceList "/dev/null";\nDir::Etc::SourceParts "{folder}/sources.list.d";\n'
        'Dir::Etc::Parts "/nonexistent";\nDir::Etc::Main "/dev/null";\n'
        'APT::Architecture "amd64";\nAPT::Sandbox::User "root";\nAcquire::Languages "none";\n'
        'Acquire::Retries "3";\nAcquire::http::Timeout "30";\nAcquire::https::Timeout "30";\nDebug::NoLocking "1";\n'
        + "".join(f"{line}\n" for line in kept)
    )
    with _update_lock:
        if folder not in _updated:
            _write_sources(folder)
    return _Apt(folder)


def _stanzas(text: str) -> list[dict[str, str]]:
    """Stanzas of a control file, deb822(5); continued lines are joined by newlines."""
    found = []
    for block in re.split(r"\n\s*\n", text.strip()):
        fields: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if line[:1] in " \t":
                fields[name] += "\n" + line.strip()
            else:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
        if fields:
            found.append(fields)
    return found


def _split(source: Source) -> tuple[bool, str]:
    is_source = source.name.startswith("src:")
    return is_source, source.name.removeprefix("src:")


def _show(apt: _Apt, source: Source) -> list[dict[str, str]]:
    """What the lists say of a package, updated first if they say nothing of the wanted version."""
    is_source, package = _split(source)
    words = ("apt-cache", "showsrc", "--only-source", package) if is_source else ("apt-cache", "show", package)
    for again in (False, True):
        try:
            found = _stanzas(apt.call(*words))
        except UserError:
            found = []
        wanted = [each for each in found if not source.version or each.get("Version") == source.version]
        if wanted:
            return wanted
        if not again:
            apt.update()
    known = ", ".join(sorted({each["Version"] for each in found if "Version" in each})) or "none"
    raise UserError(
        f"{source}: this machine's Debian archives do not have it (versions there: {known})",
        hint="./do lock --upgrade NAME moves to the newest; a mirror that keeps old versions can be set in " + MIRROR,
    )


def _files(stanza: Mapping[str, str], *, is_source: bool) -> tuple[File, ...]:
    if not is_source:
        pool = stanza["Filename"]
        return (File(pool.rpartition("/")[2], stanza["SHA256"], int(stanza["Size"]), pool),)
    rows = [line.split() for line in stanza["Checksums-Sha256"].splitlines() if line]
    files = [File(name, digest, int(size), f"{stanza['Directory']}/{name}") for digest, size, name in rows]
    return tuple(each for each in files if ".orig.tar." in each.name and not each.name.endswith(".asc"))


def _needs_apt(source: Source, cache: Path) -> _Apt:
    apt = _apt(cache)
    if apt is None:
        raise UserError(f"{source}: a Debian package is looked up by apt, which is not here", hint="lock on Debian")
    return apt


def resolve(name: str, source: Source, cache: Path) -> tuple[File, ...]:
    """The package's file, or the upstream archives of a source package, as the archive's signed index has them."""
    is_source, _ = _split(source)
    files = _files(_show(_needs_apt(source, cache), source)[0], is_source=is_source)
    if not files:
        raise UserError(f"{source}: the source package has no upstream archive")
    fetch(name, source, files, cache)
    return files


def versions(source: Source, cache: Path) -> list[str]:
    """Versions in the machine's archives, oldest first as apt orders them."""
    apt = _needs_apt(source, cache)
    apt.update()
    newest_first = [each["Version"] for each in _show(apt, Source(source.kind, source.name)) if "Version" in each]
    return newest_first[::-1]


def _download(apt: _Apt, source: Source, into: Path) -> None:
    is_source, package = _split(source)
    _show(apt, source)
    wanted = f"{package}={source.version}"
    if is_source:
        apt.call("apt-get", "source", "--quiet=2", "--download-only", "--only-source", wanted, cwd=into)
    else:
        apt.call("apt-get", "download", "--quiet=2", wanted, cwd=into)


def _fetch_by_apt(apt: _Apt, source: Source, files: Sequence[File], cache: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        _download(apt, source, Path(temporary))
        got = {sha256_file(path): path for path in Path(temporary).iterdir() if path.is_file()}
        for file in files:
            path = got.get(file.sha256) or Path(temporary) / file.name
            if not path.is_file():
                raise UserError(f"{source}: apt did not fetch {file.name}")
            blobs.take(cache, file, path, "the Debian archive")


def fetch(name: str, source: Source, files: Sequence[File], cache: Path) -> None:
    """Bring the pinned files into the cache."""
    missing = [file for file in files if not blobs.sound(cache, file, name)]
    if not missing:
        return
    apt = _apt(cache)
    if apt is not None:
        _fetch_by_apt(apt, source, missing, cache)
        return
    mirror = os.environ.get(MIRROR, "").rstrip("/")
    if not mirror:
        raise UserError(f"{source}: this machine has no apt", hint=f"set {MIRROR} to the address of a Debian mirror")
    for file in missing:
        url.fetch_file(name, file, [f"{mirror}/{file.pool}"], cache)

"""`deb:` sources: Debian packages by apt's own programs, with a configuration and lists of our own.

The machine's sources are read, its state is not touched, and no root is needed. Where there is no apt, or where
SANDKUBE_DEB_MIRROR is set, pinned files come from that mirror's pool. Pins are made with apt only, which checks the
signatures of the archive's index.

Below `apt/` of the user's cache: `sources-<hash>/` holds entries derived from the machine's, never changed once
there; `state/` and `cache/` are apt's. Whoever reads the lists holds `lock` shared, whoever updates them exclusively.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sandkube import log
from sandkube.digest import sha256_bytes, sha256_file
from sandkube.errors import HashMismatch, UserError
from sandkube.fetch import blobs, url
from sandkube.lock import File
from sandkube.recipe import Source
from sandkube.run import CommandFailed, Interrupted, network_environment, run

MIRROR = "SANDKUBE_DEB_MIRROR"
_SOURCES = Path("/etc/apt")
_update_lock = threading.Lock()
_updated: set[Path] = set()


@dataclass(frozen=True, slots=True)
class _Apt:
    """Apt's programs with private folders below `folder` and one configuration file."""

    folder: Path
    configuration: Path

    @contextlib.contextmanager
    def locked(self, how: int) -> Iterator[None]:
        """Hold the lists, `fcntl.LOCK_SH` or `fcntl.LOCK_EX`, against other threads and processes."""
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, how)
            yield

    def call(self, *words: str, cwd: Path | None = None) -> str:
        """Run one of apt's programs; its standard output. Raises UserError with its errors."""
        env = network_environment(self.folder) | {"APT_CONFIG": str(self.configuration)}
        with tempfile.TemporaryFile() as sink:
            try:
                done = run(words, env=env, cwd=cwd or self.folder, log=sink, capture=True)
            except CommandFailed as failure:
                sink.seek(0)
                said = (failure.finished.stdout + sink.read()).decode(errors="replace").strip().splitlines()
                errors = [line for line in said if line.startswith("E:")] or said[-3:]
                raise UserError(f"{words[0]} {words[1]}: {' '.join(errors)}") from None
        return done.stdout.decode(errors="replace")

    def update(self) -> None:
        """Bring the private lists up to date, once a run. An entry that fails is named and leaves the others usable."""
        with _update_lock:
            if self.folder in _updated:
                return
            log.step("apt", "updating this user's private package lists")
            try:
                with self.locked(fcntl.LOCK_EX):
                    self.call("apt-get", "update", "--quiet=2")
            except Interrupted:
                raise
            except UserError as error:
                log.step("apt", error.message)
            _updated.add(self.folder)


def _with_sources(text: str, *, one_line: bool) -> str:
    """Entries of Debian archives only, each with its source packages too."""
    if one_line:
        lines = [line for line in text.splitlines() if re.match(r"deb\s.*\S+/debian\S*\s", line)]
        return "".join(f"{line}\n{'deb-src' + line[3:]}\n" for line in lines)
    stanzas = [each for each in re.split(r"\n\s*\n", text) if re.search(r"^URIs:.*/debian", each, re.MULTILINE)]
    return "\n\n".join(re.sub(r"^Types:.*$", "Types: deb deb-src", each, flags=re.MULTILINE) for each in stanzas) + "\n"


def _write_whole(path: Path, text: str) -> None:
    """Write a file that others may be reading: whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    temporary.write_text(text)
    temporary.replace(path)


def _write_sources(folder: Path) -> Path:
    """The machine's Debian entries with their source packages, in a folder named by what it holds."""
    found = sorted((_SOURCES / "sources.list.d").glob("*")) if (_SOURCES / "sources.list.d").is_dir() else []
    texts = {
        path.name: _with_sources(path.read_text(errors="replace"), one_line=path.suffix == ".list")
        for path in (_SOURCES / "sources.list", *found)
        if path.suffix in (".list", ".sources") and path.is_file()
    }
    parts = folder / f"sources-{sha256_bytes(repr(sorted(texts.items())).encode())[:16]}"
    parts.mkdir(exist_ok=True)
    for name, text in texts.items():
        if not (parts / name).is_file():
            _write_whole(parts / name, text)
    return parts


def _apt(cache: Path) -> _Apt | None:
    """Apt with private folders in the user's cache; None where it is missing."""
    if shutil.which("apt-get", path="/usr/bin:/bin") is None:
        return None
    folder = (cache / "apt").resolve()  # apt takes a relative path from the root folder
    for each in ("state/lists/partial", "cache/archives/partial", "nothing"):
        (folder / each).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    plain = run(["apt-config", "dump"], env=network_environment(folder), cwd=folder, capture=True).stdout.decode()
    # Hooks in the machine's configuration may write to it; its proxies and certificates are the user's settings.
    kept = [line for line in plain.splitlines() if re.match(r"Acquire::https?(::\S*)? \"", line)]
    text = (
        f'Dir::State "{folder}/state";\nDir::State::status "{folder}/status";\nDir::Cache "{folder}/cache";\n'
        f'Dir::Etc::SourceList "/dev/null";\nDir::Etc::SourceParts "{_write_sources(folder)}";\n'
        f'Dir::Etc::Parts "{folder}/nothing";\nDir::Etc::Main "/dev/null";\n'
        'APT::Architecture "amd64";\nAPT::Architectures { "amd64"; };\nAPT::Sandbox::User "root";\n'
        'Acquire::Languages "none";\nAcquire::Retries "3";\nAcquire::http::Timeout "30";\n'
        'Acquire::https::Timeout "30";\nDebug::NoLocking "1";\n' + "".join(f"{line}\n" for line in kept)
    )
    configuration = folder / f"apt-{sha256_bytes(text.encode())[:16]}.conf"
    if not configuration.is_file():
        _write_whole(configuration, text)
    return _Apt(folder, configuration)


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
            with apt.locked(fcntl.LOCK_SH):
                found = _stanzas(apt.call(*words))
        except Interrupted:
            raise
        except UserError:  # apt-cache ends with status 100 for a package that it does not know
            found = []
        wanted = [each for each in found if not source.version or each.get("Version") == source.version]
        if wanted:
            return wanted
        if not again:
            apt.update()
    raise _vanished(source, sorted({each["Version"] for each in found if "Version" in each}))


def _vanished(source: Source, known: Sequence[str]) -> UserError:
    return UserError(
        f"{source}: this machine's Debian archives do not have it (versions there: {', '.join(known) or 'none'})",
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
        raise UserError(
            f"{source}: apt is needed to pin a Debian package, and this machine has none",
            hint="run ./do lock on a Debian machine; building from lock.json needs no apt, only " + MIRROR,
        )
    return apt


def resolve(name: str, source: Source, cache: Path) -> tuple[File, ...]:
    """The package's file, or the upstream archives of a source package, as the archive's signed index has them."""
    is_source, _ = _split(source)
    files = _files(_show(_needs_apt(source, cache), source)[0], is_source=is_source)
    if not files:
        raise UserError(f"{source}: the source package has no upstream archive")
    fetch(name, source, files, cache)
    return files


def _compare(first: str, second: str) -> int:
    """Debian's order of versions, deb-version(7), by dpkg: negative, 0 or positive."""
    if first == second:
        return 0
    words = ["dpkg", "--compare-versions", first, "lt", second]
    here = Path("/")
    return -1 if run(words, env=network_environment(here), cwd=here, check=False).status == 0 else 1


def versions(source: Source, cache: Path) -> list[str]:
    """Versions in the machine's archives, oldest first."""
    apt = _needs_apt(source, cache)
    apt.update()
    found = {each["Version"] for each in _show(apt, Source(source.kind, source.name)) if "Version" in each}
    return sorted(found, key=functools.cmp_to_key(_compare))


def _download(apt: _Apt, source: Source, into: Path) -> None:
    is_source, package = _split(source)
    wanted = f"{package}={source.version}"
    words = ("source", "--quiet=2", "--download-only", "--only-source") if is_source else ("download", "--quiet=2")
    _show(apt, source)
    try:
        with apt.locked(fcntl.LOCK_SH):
            apt.call("apt-get", *words, wanted, cwd=into)
    except Interrupted:
        raise
    except UserError:
        if apt.folder in _updated:
            raise
        apt.update()  # the lists of an earlier run may name what the archive has replaced since
        _show(apt, source)
        with apt.locked(fcntl.LOCK_SH):
            apt.call("apt-get", *words, wanted, cwd=into)


def _fetch_by_apt(apt: _Apt, name: str, source: Source, files: Sequence[File], cache: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        log.step(name, f"fetching {source} by apt")
        _download(apt, source, Path(temporary))
        got = {sha256_file(path): path for path in sorted(Path(temporary).iterdir()) if path.is_file()}
        for file in files:
            if file.sha256 in got:
                blobs.take(cache, file, got[file.sha256], "the Debian archive")
                continue
            # apt writes an epoch's colon as %3a: the one binary package is known by its ending.
            twins = [each for each, path in got.items() if path.name == file.name or path.suffix == ".deb"]
            if not twins:
                raise UserError(f"{source}: apt did not fetch {file.name}")
            raise HashMismatch(file.name, expected=file.sha256, got=twins[0], origin="the Debian archive")


def fetch(name: str, source: Source, files: Sequence[File], cache: Path) -> None:
    """Bring the pinned files into the cache."""
    missing = [file for file in files if not blobs.sound(cache, file, name)]
    if not missing:
        return
    mirror = os.environ.get(MIRROR, "").rstrip("/")
    if mirror:
        for file in missing:
            url.fetch_file(name, file, [f"{mirror}/{quote(file.pool)}"], cache)
        return
    apt = _apt(cache)
    if apt is None:
        raise UserError(
            f"{source}: this machine has no apt",
            hint=f"set {MIRROR} to the address of a Debian mirror, the folder that holds pool/",
        )
    _fetch_by_apt(apt, name, source, missing, cache)

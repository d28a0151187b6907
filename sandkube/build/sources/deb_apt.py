"""Debian's archive by apt's own programs, with a configuration and lists of our own.

The machine's sources are read, its state is not touched, and no root is needed. Pinned files are asked for by their
address in the pool: that takes no list, and no key, since the pin's digest decides. Lists are for making pins; apt
checks their signatures.

Below `apt/` of the user's cache: `sources-<hash>/` holds entries derived from the machine's, never changed once
there; `state/` and `cache/` are apt's. Whoever reads the lists holds `lock` shared, whoever updates them exclusively.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandkube import log
from sandkube.build.sources import deb_places
from sandkube.build.sources.deb_control import Index, dump, paragraphs
from sandkube.digest import sha256_bytes
from sandkube.errors import UserError
from sandkube.run import CommandFailed, network_environment, run

_SOURCES = Path("/etc/apt")
_HELPER = "/usr/lib/apt/apt-helper"
_OPTIONS = {"arch": "Architectures", "lang": "Languages", "target": "Targets"}
"""Options of one-line entries whose fields have another name, sources.list(5)."""
_update_lock = threading.Lock()
_updated: set[Path] = set()


@dataclass(frozen=True, slots=True)
class Apt:
    """Apt's programs with private folders below `folder` and one configuration file."""

    folder: Path
    configuration: Path

    @contextlib.contextmanager
    def locked(self, how: int) -> Iterator[None]:
        """Hold the lists, `fcntl.LOCK_SH` or `fcntl.LOCK_EX`, against other threads and processes."""
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, how)
            yield

    def call(self, *words: str) -> bytes:
        """Run one of apt's programs; its standard output. Raises UserError with its errors."""
        env = network_environment(self.folder) | {"APT_CONFIG": str(self.configuration)}
        with tempfile.TemporaryFile() as sink:
            try:
                return run(words, env=env, cwd=self.folder, log=sink, capture=True).stdout
            except CommandFailed as failure:
                sink.seek(0)
                said = (failure.finished.stdout + sink.read()).decode(errors="replace").strip().splitlines()
                errors = [line for line in said if line.startswith("E:") and line != "E: Download Failed"]
                raise UserError(f"{Path(words[0]).name} {words[1]}: {' '.join(errors or said[-3:])}") from None

    def update(self) -> None:
        """Bring the private lists up to date, once a run. An entry that fails is named and leaves the others usable."""
        with _update_lock:
            if self.configuration in _updated:
                return
            log.step("apt", "updating this user's private package lists")
            try:
                with self.locked(fcntl.LOCK_EX):
                    self.call("apt-get", "update", "--quiet=2")
            except UserError as error:
                log.step("apt", error.message)
            _updated.add(self.configuration)

    def indexes(self, kind: str) -> list[Index]:
        """The lists that are there, `kind` being "Packages" or "Sources"."""
        form = "\t".join(f"$({name})" for name in ("CREATED_BY", "CODENAME", "RELEASE", "COMPONENT", "FILENAME"))
        found = []
        with self.locked(fcntl.LOCK_SH):
            for line in self.call("apt-get", "indextargets", "--format", form).decode().splitlines():
                made_by, code_name, suite, component, path = line.split("\t")
                if made_by == kind:
                    text = self.call(_HELPER, "cat-file", path)
                    found.append(Index(suite if code_name.startswith("$") else code_name, component, text))
        return found

    def download(self, address: str, into: Path) -> None:
        """Fetch one file, unchecked. Raises UserError with what apt says."""
        self.call(_HELPER, "download-file", re.sub("^file:", "copy:", address), str(into))


def _one_line(text: str) -> Iterator[dict[str, str]]:
    """Entries of the one-line style of sources.list(5), as deb822 stanzas."""
    for line in text.splitlines():
        match = re.match(r"deb\s+(?:\[([^]]*)]\s*)?(\S+)\s+(\S+)((?:\s+[^\s#]+)*)", line.strip())
        if match is None:
            continue
        options = {name: value for name, _, value in (each.partition("=") for each in (match[1] or "").split())}
        fields = {_OPTIONS.get(name.lower(), name): value.replace(",", " ") for name, value in options.items()}
        yield fields | {"Types": "deb", "URIs": match[2], "Suites": match[3], "Components": match[4].strip()}


def _is_debian(entry: Mapping[str, str]) -> bool:
    """Whether an entry is of a Debian archive, not of another one for Debian: by address and component."""
    named = any(re.search(r"/debian", each) for each in entry.get("URIs", "").split())
    wanted = "deb" in entry.get("Types", "").split() and entry.get("Enabled", "yes").lower() not in ("no", "false", "0")
    return named and wanted and "main" in entry.get("Components", "").split()


def _entries() -> list[dict[str, str]]:
    """The machine's entries of Debian archives."""
    folder = _SOURCES / "sources.list.d"
    found: list[dict[str, str]] = []
    for path in (_SOURCES / "sources.list", *(sorted(folder.glob("*")) if folder.is_dir() else ())):
        if path.suffix in (".list", ".sources") and os.access(path, os.R_OK) and path.is_file():
            text = path.read_text(errors="replace")
            found += _one_line(text) if path.suffix == ".list" else paragraphs(text)
    return [entry for entry in found if _is_debian(entry)]


def _of_suite(entry: Mapping[str, str], suite: str, component: str) -> dict[str, str] | None:
    """An entry with another release in place of its own: updates and security updates stay what they are."""
    base = deb_places.base_suite(suite)
    own = [each for each in entry.get("Suites", "").split() if "-backports" not in each]
    ends = {each.removeprefix(deb_places.base_suite(each)) for each in own}
    suites = sorted(base + end for end in ends if not end or "-backports" not in base)
    return dict(entry) | {"Suites": " ".join(suites), "Components": component} if suites else None


def _default_entry(address: str, suite: str, component: str) -> dict[str, str]:
    keyring = deb_places.keyring()
    trust = {"Signed-By": str(keyring)} if keyring else {"Trusted": "yes"}
    return {"URIs": address, "Suites": suite, "Components": component} | trust


def has_suite(suite: str) -> bool:
    """Whether the machine's own entries name a suite."""
    return any(suite in entry.get("Suites", "").split() for entry in _entries())


def is_checked() -> bool:
    """Whether the signature of lists can be checked: by the entries' keys, else by Debian's keyring."""
    return bool(_entries()) or deb_places.keyring() is not None


def _wanted(suite: str, component: str) -> list[dict[str, str]]:
    """Entries for a suite: the machine's own if they name it or none is asked for, else theirs with it put in."""
    own = _entries()
    if not own:
        base = deb_places.base_suite(suite or "stable")
        main = deb_places.default_mirror()
        return [
            _default_entry(main, base, component),
            _default_entry(f"{main}-security", f"{base}-security", component),
        ]
    if not suite or has_suite(suite):
        return own
    return [moved for entry in own if (moved := _of_suite(entry, suite, component)) is not None]


def _write_whole(path: Path, text: str) -> None:
    """Write a file that others may be reading: whole or not at all."""
    if path.is_file():
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    temporary.write_text(text)
    temporary.replace(path)


def _write_sources(folder: Path, entries: Sequence[Mapping[str, str]]) -> Path:
    """Entries with their source packages, in a folder named by what it holds."""
    text = "\n".join(dump(dict(entry) | {"Types": "deb deb-src"}) for entry in entries)
    parts = folder / f"sources-{sha256_bytes(text.encode())[:16]}"
    parts.mkdir(exist_ok=True)
    _write_whole(parts / "debian.sources", text)
    return parts


def apt_of(cache: Path, suite: str = "", component: str = "main") -> Apt | None:
    """Apt with private folders in the user's cache and the lists of a suite; None where it is missing."""
    if shutil.which("apt-get", path="/usr/bin:/bin") is None or not os.access(_HELPER, os.X_OK):
        return None
    folder = (cache / "apt").resolve()  # apt takes a relative path from the root folder
    for each in ("state/lists/partial", "cache/archives/partial", "nothing"):
        (folder / each).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    plain = run(["apt-config", "dump"], env=network_environment(folder), cwd=folder, capture=True).stdout.decode()
    # Hooks in the machine's configuration may write to it; its proxies and certificates are the user's settings.
    kept = [line for line in plain.splitlines() if re.match(r"Acquire::https?(::\S*)? \"", line)]
    sources = _write_sources(folder, _wanted(suite, component))
    text = (
        f'Dir::State "{folder}/state";\nDir::State::status "{folder}/status";\nDir::Cache "{folder}/cache";\n'
        f'Dir::Etc::SourceList "/dev/null";\nDir::Etc::SourceParts "{sources}";\n'
        f'Dir::Etc::Parts "{folder}/nothing";\nDir::Etc::Main "/dev/null";\n'
        'APT::Architecture "amd64";\nAPT::Architectures { "amd64"; };\nAPT::Sandbox::User "root";\n'
        'APT::Get::List-Cleanup "false";\n'  # lists of several suites are in one folder
        'Acquire::Languages "none";\nAcquire::Retries "3";\nAcquire::http::Timeout "30";\n'
        'Acquire::https::Timeout "30";\nDebug::NoLocking "1";\n' + "".join(f"{line}\n" for line in kept)
    )
    configuration = folder / f"apt-{sha256_bytes(text.encode())[:16]}.conf"
    _write_whole(configuration, text)
    return Apt(folder, configuration)


def _listed(address: str) -> Iterator[str]:
    """An address as it is; those that a `mirror+file:` list names, one a line, apt-transport-mirror(1)."""
    if not address.startswith("mirror+file:"):
        yield address
        return
    path = Path("/" + address.removeprefix("mirror+file:").lstrip("/"))
    if path.is_file():
        yield from (line.split()[0] for line in path.read_text().splitlines() if line.strip() and line[0] != "#")


def archives(suite: str) -> tuple[str, ...]:
    """Addresses of archives to ask for a file of a suite: the machine's mirrors, else the default one."""
    found = [
        each.rstrip("/")
        for entry in _entries()
        for address in entry["URIs"].split()
        for each in _listed(address)
        if re.match(r"(https?|file|copy):", each)
    ]
    found.sort(key=lambda each: deb_places.is_security(each) != deb_places.is_security(suite))
    return tuple(dict.fromkeys(found)) or deb_places.archives(deb_places.default_mirror(), suite)

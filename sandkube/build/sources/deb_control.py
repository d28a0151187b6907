"""What indexes of Debian's archive say of a package: deb822(5) and deb-version(7), by python-debian."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sandkube.build.lock import File
from sandkube.build.sources.kind import Source
from sandkube.later import later

if TYPE_CHECKING:
    from debian import deb822, debian_support
else:
    deb822 = later("debian.deb822")
    debian_support = later("debian.debian_support")


@dataclass(frozen=True, slots=True)
class Index:
    """One `Packages` or `Sources` of a suite (by code name) and component."""

    suite: str
    component: str
    text: bytes


class Found(NamedTuple):
    """A version that an index has, with the files that a pin of it holds."""

    version: str
    files: tuple[File, ...]


def split(source: Source) -> tuple[bool, str]:
    """Whether a source is a source package, and the package's name."""
    return source.name.startswith("src:"), source.name.removeprefix("src:")


def paragraphs(text: str | bytes) -> Iterator[dict[str, str]]:
    """Stanzas of a control file, without comments; continued lines keep their newlines."""
    for each in deb822.Deb822.iter_paragraphs(text, use_apt_pkg=False):
        yield {str(name): str(value) for name, value in each.items()}


def dump(stanza: Mapping[str, str]) -> str:
    """The text of a stanza."""
    return str(deb822.Deb822(stanza).dump())


def _stanzas_of(text: bytes, package: str) -> Iterator[dict[str, str]]:
    """The stanzas of one package: an index has 60,000, and reading all takes many seconds."""
    for match in re.finditer(rb"^Package: *" + re.escape(package.encode()) + rb"[ \t]*$", text, re.MULTILINE):
        start = text.rfind(b"\n\n", 0, match.start()) + 1
        end = text.find(b"\n\n", match.end())
        yield from paragraphs(text[start : end if end >= 0 else len(text)].strip(b"\n"))


def _files(stanza: Mapping[str, str], index: Index, *, is_source: bool) -> tuple[File, ...]:
    where = {"suite": index.suite, "component": index.component}
    if not is_source:
        pool = stanza["Filename"]
        return (File(pool.rpartition("/")[2], stanza["SHA256"], int(stanza["Size"]), pool, **where),)
    rows = [line.split() for line in stanza["Checksums-Sha256"].splitlines() if line.strip()]
    files = [File(name, digest, int(size), f"{stanza['Directory']}/{name}", **where) for digest, size, name in rows]
    return tuple(each for each in files if ".orig.tar." in each.name and not each.name.endswith(".asc"))


def find(indexes: Iterable[Index], source: Source) -> list[Found]:
    """All versions of a package, in the order of the indexes."""
    is_source, package = split(source)
    return [
        Found(stanza["Version"], _files(stanza, index, is_source=is_source))
        for index in indexes
        for stanza in _stanzas_of(index.text, package)
    ]


def in_order(versions: Iterable[str]) -> Sequence[str]:
    """Versions without doubles, oldest first."""
    return sorted(set(versions), key=debian_support.Version)

"""Which caches there are: those of `SANDKUBE_CACHE`, else those of `$XDG_CONFIG_HOME/sandkube/config.toml`.

SANDKUBE_CACHE="file:///srv/cache?write https://cache.example.org/sandkube"

[[cache]]
address = "oci://registry.example.org/team/sandkube"
write = true          # push what is built here; false if left out
trust = ["ci"]        # names of keys that count for this cache; all that are trusted if left out
signatures = 1        # how many of them must have signed a record
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

from sandkube.build.cache import oci
from sandkube.build.cache.folder import Folder
from sandkube.build.cache.http import Http
from sandkube.build.cache.kind import Cache
from sandkube.build.cache.oci import Oci
from sandkube.build.cache.web import Web
from sandkube.decode import Shape, decoded, looks_like
from sandkube.documents import parse_toml, read_file
from sandkube.errors import Problems, UserError

VARIABLE = "SANDKUBE_CACHE"
_HINT = (
    "addresses look like file:///DIR, https://HOST/PATH and oci://HOST/REPOSITORY; "
    f"in {VARIABLE} one that may be written ends with ?write"
)
_KINDS: Mapping[str, Callable[[str], Cache]] = {
    "file": lambda address: Folder(Path(unquote(urlsplit(address).path))),
    "http": lambda address: Http(address, Web()),
    "https": lambda address: Http(address, Web()),
    "oci": Oci,
}


_HOST = re.compile(r"[\w-]{1,63}(\.[\w-]{1,63})*\.?|[0-9a-f:.]*:[0-9a-f:.]*", re.ASCII)


def _fault(address: str) -> str:
    try:
        parts, port = urlsplit(address), urlsplit(address).port
    except ValueError:
        return "is no address"
    if not address.isprintable() or "\0" in unquote(parts.path) or port == 0:
        return "is no address"
    if parts.scheme not in _KINDS:
        return f"is of no kind that is known ({', '.join(_KINDS)})"
    if "@" in parts.netloc:
        return "holds a credential, which belongs in ~/.netrc"
    if parts.query or parts.fragment:
        return "ends with something that is no part of it"
    if parts.scheme == "file":
        return "" if not parts.netloc and parts.path.startswith("/") else "names no folder by a whole path"
    if parts.scheme == "oci":
        return oci.fault(parts)
    return "" if _HOST.fullmatch(parts.hostname or "") else "names no host"


def _faulty(address: str) -> str:
    """A sentence on what is no address of a cache, without a password that it may hold; "" for one that is."""
    fault = _fault(address)
    return f"{re.sub('//.*@', '//…@', address)!r} {fault}" if fault else ""


Address = Annotated[str, Shape(_faulty)]
Count = Annotated[int, looks_like("a number from 1 on", lambda value: value >= 1)]


@dataclass(frozen=True, slots=True)
class Setting:
    """One cache, and what is believed of it."""

    address: Address
    write: bool = False
    trust: tuple[str, ...] = ()
    """Names of keys; empty for all that are trusted."""
    signatures: Count = 1

    @property
    def local(self) -> bool:
        """Whether it is a folder, which no network of ours is opened for."""
        return self.address.startswith("file:")

    def open(self) -> Cache:
        """The cache. Nothing is asked of it yet."""
        return _KINDS[urlsplit(self.address).scheme](self.address)


@dataclass(frozen=True, slots=True)
class _File:
    cache: tuple[Setting, ...] = ()


def folder(environment: Mapping[str, str] = os.environ) -> Path:
    """This user's folder of settings, whether or not it is there; a relative XDG_CONFIG_HOME is ignored."""
    base = environment.get("XDG_CONFIG_HOME", "")
    home = environment.get("HOME") or "/nonexistent"
    return Path(base if base.startswith("/") else f"{home}/.config", "sandkube")


def _named(words: str) -> Iterator[Setting]:
    for word in words.split():
        address, _, flag = word.partition("?")
        wrong = _faulty(address) or ("" if flag in ("", "write") else f"{word!r} ends with ?{flag}")
        if wrong:
            raise UserError(f"{VARIABLE}: {wrong}", hint=_HINT)
        yield Setting(address, write=flag == "write")


def settings(environment: Mapping[str, str] = os.environ) -> tuple[Setting, ...]:
    """The caches of this user, in the order in which they are asked; none where nothing names one. Raises UserError."""
    if VARIABLE in environment:
        return tuple(_named(environment[VARIABLE]))
    path = folder(environment) / "config.toml"
    try:
        path.stat()
    except OSError:  # none, or a home that this user may not read
        return ()
    try:
        return decoded(_File, parse_toml(read_file(path, str(path))), str(path)).cache
    except Problems as problems:
        raise Problems(problems.problems, hint=_HINT) from None
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None

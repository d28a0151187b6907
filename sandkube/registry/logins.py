"""Names and passwords for registries, where docker, podman and curl keep them. None is ever shown."""

from __future__ import annotations

import base64
import binascii
import json
import netrc
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sandkube.errors import Unusable
from sandkube.run import run

_HELPER = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, repr=False)
class Login:
    """A name, a password, and what had them."""

    name: str
    password: str
    origin: str

    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        return f"Basic {base64.b64encode(f'{self.name}:{self.password}'.encode()).decode()}"


def netrc_file(environment: Mapping[str, str]) -> Path | None:
    """What $NETRC names, else ~/.netrc; None where it is no file."""
    path = Path(environment.get("NETRC") or Path(environment.get("HOME", "/"), ".netrc"))
    try:
        return path if path.is_file() else None
    except OSError:  # a home that this user may not read
        return None


def files(environment: Mapping[str, str]) -> Iterator[Path]:
    """Where podman and docker keep logins, in the order in which podman looks (containers-auth.json(5))."""
    if named := environment.get("REGISTRY_AUTH_FILE"):
        yield Path(named)
        return
    home = Path(environment.get("HOME") or "/nonexistent")
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        yield Path(runtime, "containers/auth.json")
    yield Path(environment.get("XDG_CONFIG_HOME") or home / ".config", "containers/auth.json")
    yield Path(environment.get("DOCKER_CONFIG") or home / ".docker", "config.json")


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _normal(key: str) -> str:
    """`https://HOST/v1/`, as docker once wrote it, is HOST; what podman writes has neither."""
    return re.sub(r"/v[12]$", "", key.partition("://")[2].rstrip("/")) if "://" in key else key


def _names(host: str, repository: str) -> list[str]:
    """What a login may be kept by, the longest first: HOST/a/b, HOST/a, HOST."""
    parts = repository.split("/")
    return ["/".join((host, *parts[:count])) for count in range(len(parts), -1, -1)]


def _decoded(entry: Mapping[str, Any], origin: str) -> Login | None:
    try:
        text = base64.b64decode(entry.get("auth") or "").decode()
    except (binascii.Error, ValueError, TypeError):
        raise Unusable(f"{origin}: a login that is no base64 of text") from None
    name, _, password = text.partition(":")
    return Login(name, password.strip("\0"), origin) if name else None


def _from_program(program: object, host: str, environment: Mapping[str, str]) -> Login | None:
    """What a credential helper says: https://github.com/docker/docker-credential-helpers. None where it has nothing."""
    if not (isinstance(program, str) and _HELPER.fullmatch(program)):
        return None
    command = f"docker-credential-{program}"
    done = run([command, "get"], env=environment, cwd=Path("/"), stdin=host.encode(), capture=True, check=False)
    try:
        said = _table(json.loads(done.stdout)) if done.status == 0 else {}
    except (ValueError, RecursionError):
        said = {}
    name, password = said.get("Username"), said.get("Secret")
    return Login(name, password, command) if isinstance(name, str) and isinstance(password, str) else None


def _from_file(path: Path, host: str, repository: str, environment: Mapping[str, str]) -> Login | None:
    try:
        document = _table(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unusable(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise Unusable(f"{path}: no JSON") from None
    helpers, kept = (
        {_normal(key): value for key, value in _table(document.get(part)).items()} for part in ("credHelpers", "auths")
    )
    for name in _names(host, repository):
        if name in helpers:
            return _from_program(helpers[name], host, environment)
        if found := _decoded(_table(kept.get(name)), str(path)):
            return found
    return _from_program(document.get("credsStore"), host, environment)


def from_netrc(host: str, environment: Mapping[str, str]) -> Login | None:
    """What ~/.netrc, or the file that $NETRC names, has for a host. Raises Unusable for one that cannot be read."""
    path = netrc_file(environment)
    if path is None:
        return None
    try:
        found = netrc.netrc(path).authenticators(urlsplit(f"//{host}").hostname or "")
    except (netrc.NetrcParseError, UnicodeDecodeError):
        raise Unusable(f"{path}: is not understood") from None
    except OSError as error:
        raise Unusable(f"{path}: {error.strerror}") from None
    return Login(found[0], found[2] or "", str(path)) if found else None


def find(host: str, repository: str, environment: Mapping[str, str]) -> Login | None:
    """The login for a repository of a registry (HOST or HOST:PORT). Raises Unusable for files that cannot be read."""
    for path in files(environment):
        if found := _from_file(path, host, repository, environment):
            return found
    return from_netrc(host, environment)

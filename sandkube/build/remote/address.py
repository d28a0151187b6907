"""Where an engine is: `grpc://HOST:PORT` or `grpcs://HOST:PORT`, with `/INSTANCE` where it serves several."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from sandkube.errors import UserError

VARIABLE = "SANDKUBE_REMOTE"
HINT = "an engine's address is grpc://HOST:PORT or grpcs://HOST:PORT (TLS), with /INSTANCE if it serves several"
_HOST = re.compile(r"[\w-]{1,63}(\.[\w-]{1,63})*\.?|[0-9a-f:.]*:[0-9a-f:.]*", re.ASCII)
_PORTS = {"grpc": 80, "grpcs": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """An engine's address, taken apart."""

    text: str
    host: str
    port: int
    instance: str
    secure: bool

    @property
    def target(self) -> str:
        """As gRPC names it."""
        return f"dns:///[{self.host}]:{self.port}" if ":" in self.host else f"dns:///{self.host}:{self.port}"


def parse(text: str) -> Address:
    """Raises UserError for what is no address; a credential that it holds is not shown."""
    shown = re.sub("//.*@", "//…@", text)
    try:
        parts, port = urlsplit(text), urlsplit(text).port
    except ValueError:
        raise UserError(f"{shown!r} is no address of a remote engine", hint=HINT) from None
    if "@" in parts.netloc:
        raise UserError(f"{shown!r} holds a credential, which belongs in ~/.netrc", hint=HINT)
    named = parts.scheme in _PORTS and _HOST.fullmatch(parts.hostname or "") and text.isprintable()
    if not named or port == 0 or parts.query or parts.fragment:
        raise UserError(f"{shown!r} is no address of a remote engine", hint=HINT)
    instance = unquote(parts.path).strip("/")
    return Address(text, parts.hostname or "", port or _PORTS[parts.scheme], instance, parts.scheme == "grpcs")

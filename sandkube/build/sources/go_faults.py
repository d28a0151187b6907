"""What the go command's words mean: whose fault it is, and what helps."""

from __future__ import annotations

import re

MISMATCH = re.compile(r"verifying (\S+): checksum mismatch\s+downloaded: +(h1:\S+)\s+go\.sum: +(h1:\S+)")
"""The module, what came of it, what go.sum says."""
_OF_NETWORK = re.compile(r"https?://|dial tcp|lookup |connection |i/o timeout|tls: |\bEOF\b|checksum mismatch")
_OF_SOURCE = re.compile(
    r"go\.(mod|sum)\b|no required module provides|is not in std|no Go files|build constraints exclude|expected '"
    r"|matched no packages|[Cc]annot find (package|module)|directory not found|malformed|GOTOOLCHAIN=local"
)


def hint(said: str) -> str:
    """What helps against a fault that the go command told: the network is to blame, or the source itself."""
    if _OF_SOURCE.search(said) and not _OF_NETWORK.search(said):
        return "the fault is in the source, not in the network: its go.mod, go.sum or packages; go mod tidy mends most"
    return "is a module proxy reachable? GOPROXY, NETRC and proxy variables are honoured"

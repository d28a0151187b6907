"""Sources: one module a kind, each with its `KIND`. Only they use the network; they run nothing of what they fetch."""

from __future__ import annotations

from collections.abc import Mapping

from sandkube.build.sources import deb, git, go, local, oci, pypi, url
from sandkube.build.sources.kind import Ask, Source, SourceKind
from sandkube.decode import shown, suggestion

__all__ = ("KINDS", "Ask", "Source", "SourceKind", "parse")

KINDS: Mapping[str, SourceKind] = {
    "go": go.KIND,
    "pypi": pypi.KIND,
    "deb": deb.KIND,
    "git": git.KIND,
    "oci": oci.KIND,
    "url": url.KIND,
    "local": local.KIND,
}


def parse(text: str, mirrors: tuple[str, ...] = ()) -> Source:
    """Parse `KIND:NAME[@VERSION]`. Raises ValueError with a sentence."""
    kind, colon, rest = text.partition(":")
    if not colon or kind not in KINDS:
        raise ValueError(f"unknown source kind {shown(kind)}{suggestion(kind, KINDS)}; known: {', '.join(KINDS)}")
    name, version = rest, ""
    if KINDS[kind].versioned:
        name, _, version = rest.rpartition("@")
        if not name or not version:
            raise ValueError(f"expected {kind}:NAME@VERSION, got {shown(text)}")
    if mirrors and not KINDS[kind].mirrors:
        known = " and ".join(f"{each}:" for each, record in KINDS.items() if record.mirrors)
        raise ValueError(f"mirrors go with {known} sources only")
    source = Source(kind, name, version, mirrors)
    if said := KINDS[kind].check(source):
        raise ValueError(said)
    return source

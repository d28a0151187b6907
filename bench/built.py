"""What is built, found for measurements, and clusters of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sandkube.cluster import start, stop
from sandkube.cluster.place import place
from sandkube.cluster.pod import Kubectl
from sandkube.cluster.programs import BUNDLE, Programs, chosen
from sandkube.cluster.sandbox import DEFAULT
from sandkube.errors import UserError
from tests.clones import ROOT


def product(path: str, root: Path = ROOT) -> Path:
    """What a recipe made, or a file of it: `etcd/bin/etcd`. Raises UserError if it is not built."""
    found = (root / "outputs/result" / path).resolve()
    if not found.exists():
        recipe = path.partition("/")[0]
        raise UserError(f"bench: {recipe} is not built", hint=f"./do build {recipe}")
    return found


def programs(kind: str = DEFAULT, *arguments: str, bundle: str = BUNDLE) -> Programs:
    """What a cluster in a kind of sandbox is made of, and arguments of its node. Raises UserError."""
    return replace(chosen(kind, product, (), bundle), arguments=arguments)


@contextmanager
def cluster(name: str, made: Programs | None = None, outputs: Path = ROOT / "outputs") -> Iterator[Kubectl]:
    """A booted cluster for as long as the block runs."""
    made = made or programs()
    one = place(outputs, name)
    try:
        with one.lock():
            list(start.start(one, made))
        yield Kubectl(made.kubectl, one)
    finally:
        if one.folder.exists():
            stop.stop(one)

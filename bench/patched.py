"""`./do bench patch`: from one changed string in containerd to a booted node, in a clone that shares this store."""

from __future__ import annotations

import re
import tempfile
import time
import uuid
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.clones import ROOT, Clone, clone
from tests.patches import patch_source

FILE, TEXT = "cmd/containerd/main.go", '"containerd: %s'


def _shared(base: Path) -> Clone:
    one = clone(base, "patched", home=Path.home())
    (one.folder / "outputs").mkdir()
    (one.folder / "outputs/store").symlink_to(ROOT / "outputs/store")
    return one


def _timed(one: Clone, *words: str) -> tuple[float, str]:
    began = time.monotonic()
    said = one.do(*words)
    return time.monotonic() - began, said


def main() -> None:
    """Patch, build the binary, build the bundle, boot; print. What it adds to the store is as big as one bundle."""
    table = Table("FROM A CHANGED STRING TO", "SECONDS", "IN ALL", "", box=None)
    with tempfile.TemporaryDirectory() as base:
        one = _shared(Path(base))
        one.do("build", "bundle", "kubectl", "gvisor")
        patch_source(one, "containerd", FILE, TEXT, f'"containerd {uuid.uuid4().hex}: %s')
        whole = 0.0
        for what, words, aim in (
            ("the binary", ("build", "containerd"), "aim: 6 s"),
            ("the bundle", ("build", "bundle"), "aim: 8 s in all"),
            ("a Running pod", ("run-cluster",), "aim: 6 s more"),
        ):
            took, said = _timed(one, *words)
            whole += took
            ran = re.findall(r"(\S+): done in (\S+s)", said)
            steps = ", ".join(f"{name} {seconds}" for name, seconds in ran)
            table.add_row(what, f"{took:.1f}", f"{whole:.1f}", f"{aim}{f' ({steps})' if steps else ''}")
        one.do("stop-cluster")
    Console(width=130).print(table)

"""`./do bench cache`: what a shared cache saves, and how it compares with nix copy and with a compressed tar."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sandkube.build.cache.keys import Keys
from sandkube.build.cache.push import Pusher
from sandkube.build.cache.settings import Setting
from sandkube.build.cache.shared import Shared
from sandkube.build.store import Store
from sandkube.tree import remove_tree
from tests.clones import ROOT, Clone, clone
from tests.patches import patch_source

FILE, TEXT = "cmd/containerd/main.go", '"containerd: %s'
TREE = "go"  # 12,800 files, 240 MB
ROUNDS = 5


def _megabytes(said: str, what: str) -> float:
    found = re.search(r"([\d.]+) MB pushed" if what == "pushed" else r"fetched \(([\d.]+) MB\)", said)
    return float(found[1]) if found else 0.0


def _timed(one: Clone, *words: str) -> tuple[float, str]:
    began = time.monotonic()
    said = one.do(*words)
    return time.monotonic() - began, said


def machines(table: Table, base: Path) -> None:
    """A pushes, B has a cluster; then a string of containerd changes."""
    first = clone(base, "first", home=Path.home())
    (first.folder / "outputs").mkdir()
    (first.folder / "outputs/store").symlink_to(ROOT / "outputs/store")
    settings = {"SANDKUBE_CACHE": f"file://{base}/cache?write", "XDG_CONFIG_HOME": str(base / "config")}
    first = dataclasses.replace(first, env=settings)
    key = first.result("key", "new", "bench").strip()
    products = ("bundle", "gvisor", "kubectl")
    took, said = _timed(first, "cache", "push", *products)
    whole = _megabytes(said, "pushed")
    table.add_row("A pushes all that a cluster needs", f"{took:.1f} s", f"{whole:.1f} MB")
    second = dataclasses.replace(clone(base, "second"), env={"SANDKUBE_CACHE": f"file://{base}/cache"})
    second.do("key", "trust", key)
    took, said = _timed(second, "run-cluster")
    closure = _megabytes(said, "fetched")
    table.add_row("B, empty, to a Running pod", f"{took:.1f} s", f"{closure:.1f} MB fetched; aim: 45 s")
    second.do("stop-cluster")
    patch_source(first, "containerd", FILE, TEXT, f'"containerd {uuid.uuid4().hex}: %s')
    took, said = _timed(first, "build", *products)
    sent = _megabytes(said, "pushed")
    table.add_row("A changes a string of containerd", f"{took:.1f} s", f"{sent:.1f} MB pushed")
    shutil.copytree(first.folder / "patches", second.folder / "patches", dirs_exist_ok=True)
    shutil.copytree(first.folder / "recipes", second.folder / "recipes", dirs_exist_ok=True)
    took, said = _timed(second, "build", *products)
    received = _megabytes(said, "fetched")
    share = f"{received:.1f} MB fetched, {received / closure * 100:.1f} % of the closure; aim: 5 %"
    table.add_row("B fetches that", f"{took:.1f} s", share)


def _repeat(work: Callable[[Path], object], base: Path) -> float:
    """Median seconds; what was made is removed, which is not counted."""
    found = []
    for _ in range(ROUNDS):
        folder = Path(tempfile.mkdtemp(dir=base))
        began = time.monotonic()
        work(folder)
        found.append(time.monotonic() - began)
        remove_tree(folder)
    return statistics.median(found)


def trees(table: Table, base: Path) -> None:
    """One tree of many files, side by side."""
    store = Store(ROOT / "outputs/store")
    record = store.previous(TREE)
    assert record is not None
    tree = store.tree(record.output)
    keys = Keys(base / "keys")
    keys.new("bench")
    Pusher(Shared([Setting(f"file://{base}/trees", write=True)], keys)).push(record, tree)

    def ours(folder: Path) -> None:
        assert Shared([Setting(f"file://{base}/trees")], keys).pull(TREE, record, folder) is not None

    packed = base / "tree.tar.zst"
    subprocess.run(f"tar -C {tree} -cf - . | zstd -3 -q -o {packed}", shell=True, check=True)

    def tar(folder: Path) -> None:
        subprocess.run(f"zstd -dc {packed} | tar -C {folder} -x", shell=True, check=True)

    count = sum(1 for _ in tree.rglob("*"))
    mine = _repeat(ours, base)
    table.add_row(f"fetch {TREE}, {count} files, checked", f"{mine:.2f} s", "")
    plain = _repeat(tar, base)
    table.add_row("  zstd -dc | tar -x, unchecked", f"{plain:.2f} s", f"{plain / mine:.1f} times ours; aim: 2")
    if shutil.which("nix") is None:
        table.add_row("  nix copy", "", "not measured: no nix here (Debian: apt install nix-bin)")
        return
    words = ["nix", "--extra-experimental-features", "nix-command", "--store", f"{base}/nix"]
    env = {**os.environ, "HOME": str(base)}
    added = subprocess.run([*words, "store", "add-path", tree], env=env, check=True, capture_output=True, text=True)
    path = added.stdout.strip()
    cache = f"file://{base}/nix-cache?compression=zstd"
    subprocess.run([*words, "copy", "--to", cache, path], env=env, check=True)

    def nix(folder: Path) -> None:
        to = ["nix", "--extra-experimental-features", "nix-command", "copy", "--no-check-sigs"]
        subprocess.run([*to, "--from", cache, "--to", str(folder), path], env=env, check=True)

    theirs = _repeat(nix, base)
    table.add_row("  nix copy, zstd", f"{theirs:.2f} s", f"{theirs / mine:.1f} times ours; aim: 8")


def main() -> None:
    """Measure, print."""
    table = Table("SHARED CACHE", "SECONDS", "", box=None)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True, dir=ROOT / "outputs") as name:
        base = Path(name)
        trees(table, base)
        machines(table, base)
        for each in base.iterdir():
            remove_tree(each)
    Console(width=130).print(table)

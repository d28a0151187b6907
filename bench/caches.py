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
from collections.abc import Callable, Mapping
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


def _side_by_side(ways: Mapping[str, Callable[[Path], object]], base: Path) -> Mapping[str, float]:
    """Median seconds of each way; they take turns. What was made is removed, which is not counted."""
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, work in ways.items():
            folder = Path(tempfile.mkdtemp(dir=base))
            began = time.monotonic()
            work(folder)
            found[way].append(time.monotonic() - began)
            remove_tree(folder)
    return {way: statistics.median(seconds) for way, seconds in found.items()}


def _nix(base: Path, tree: Path) -> Callable[[Path], object]:
    """What copies a tree from a cache of nix to a store in a folder, without a daemon and its users."""
    env = {**os.environ, "HOME": str(base), "NIX_REMOTE": "", "NIX_CONFIG": "build-users-group ="}
    words = ["nix", "--extra-experimental-features", "nix-command"]

    def nix(*more: str | Path) -> str:
        done = subprocess.run([*words, *more], env=env, check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout.strip()

    path = nix("--store", base / "nix", "store", "add-path", tree)
    cache = f"file://{base}/nix-cache?compression=zstd"
    nix("--store", base / "nix", "copy", "--quiet", "--to", cache, path)
    return lambda folder: nix("copy", "--quiet", "--no-check-sigs", "--from", cache, "--to", folder, path)


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

    ways: dict[str, Callable[[Path], object]] = {"ours": ours, "tar": tar}
    if shutil.which("nix"):
        ways["nix"] = _nix(base, tree)
    took = _side_by_side(ways, base)
    mine = took["ours"]
    count = sum(1 for _ in tree.rglob("*"))
    table.add_row(f"fetch {TREE}, {count} files, checked", f"{mine:.2f} s", "")
    ratio = f"{took['tar'] / mine:.1f} times ours; aim: 2"
    table.add_row("  zstd -dc | tar -x, unchecked", f"{took['tar']:.2f} s", ratio)
    if "nix" in took:
        table.add_row("  nix copy, zstd", f"{took['nix']:.2f} s", f"{took['nix'] / mine:.1f} times ours; aim: 8")
    else:
        table.add_row("  nix copy", "", "not measured: no nix here (Debian: apt install nix-bin)")


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

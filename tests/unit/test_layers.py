"""The house: a module imports only from its own floor or from floors above it; only named rooms touch doit, processes,
archives, the network. `cluster/` and `build/` know nothing of each other.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FLOORS = (
    {"errors", "digest", "events"},
    {"run", "log", "files"},
    {"decode", "documents", "shapes"},
    {"attempts", "later", "machine"},
    {"tree", "archive", "pack", "plain_tar"},
    {"image_files"},
    {"images"},
    {"nar", "restore"},
    {"registry"},
    {"cluster"},
    {"build.code", "build.explain"},
    {"build.places", "build.weights", "build.results"},
    {"build.lock", "build.derivation", "build.patching"},
    {"build.store"},
    {"build.cache"},
    {"build.box"},
    {"build.failed"},
    {"build.boxes"},
    {"build.remote"},
    {"build.sources"},
    {"build.builders"},
    {"build.recipe"},
    {"build.spec", "build.plan"},
    {"build.resolve", "build.decide", "build.make", "build.supply"},
    {"build.realise"},
    {"app.options"},
    {"app.home", "app.signals", "app.guard", "app.settings"},
    {"app.verb"},
    {
        *("app.run_cluster", "app.status", "app.logs", "app.shell_cluster", "app.kubectl"),
        *("app.stop_cluster", "app.delete_cluster", "app.kubeconfig", "app.expose", "app.list_clusters"),
        *("app.load_image", "app.images", "app.remove_image"),
        *("app.doctor", "app.completion"),
    },
    {"app.installed"},
    {"app.main"},
    {"app.entry"},
    {"cli.checkout", "cli.memory", "cli.live"},
    {"cli.report", "cli.tasks", "cli.summary", "cli.conformed"},
    {"cli.running"},
    {"cli.building"},
    {
        *("cli.build", "cli.list", "cli.info", "cli.shell", "cli.export_node", "cli.lock"),
        *("cli.cache", "cli.key", "cli.ci", "cli.export", "cli.import_bundle", "cli.vendor"),
        "cli.conformance",
    },
    {"cli.main"},
    {"__main__"},
)
STRANGERS = ({"build", "cluster"}, {"build", "app"})
"""Rooms that do not know each other."""
OWNERS = {
    "doit": {"cli", "__main__"},
    "subprocess": {"run", "cluster"},
    "tarfile": {"archive", "pack", "plain_tar", "image_files", "images"},
    "zipfile": {"archive", "pack", "build.sources.go_zip"},
    "gzip": {"archive", "pack", "image_files"},
    "zstandard": {"archive", "build.cache"},
    "pyfastcdc": {"build.cache"},
    "cryptography": {"build.cache"},
    "shutil": {"archive", "tree", "build.failed", "build.make", "build.places", "build.sources", "errors", "cluster"},
    "grpc": {"build.remote"},
    "google": {"build.remote"},
    "httpx": {"build.sources", "build.cache"},
    "git": {"build.sources.git"},
    "asyncio": {"cluster"},
    "socket": {"cluster"},
    "tomlkit": {"build.resolve"},
    "rich": {"cli"},
}


def within(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def floor_of(module: str) -> int | None:
    """None for what only holds rooms."""
    return next((at for at, rooms in enumerate(FLOORS) if any(within(module, room) for room in rooms)), None)


def own_name(path: Path) -> str:
    parts = path.relative_to(ROOT / "sandkube").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(name: str) -> bool:
    path = ROOT / "sandkube" / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


@functools.cache
def parsed(path: Path) -> list[ast.AST]:
    """All that a module says."""
    return [*ast.walk(ast.parse(path.read_text()))]


def imports(path: Path) -> Iterator[str]:
    """Every module that one imports by a statement; ours without `sandkube.`, as far down as they are named."""
    for node in parsed(path):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            base = node.module
            if base.partition(".")[0] != "sandkube":
                yield base
                continue
            base = base.removeprefix("sandkube").lstrip(".")
            for each in node.names:
                longer = f"{base}.{each.name}".lstrip(".")
                yield f"sandkube.{longer if is_module(longer) else base}"


GENERATED = ROOT / "sandkube/build/remote/stubs"
MODULES = [
    path for path in sorted((ROOT / "sandkube").rglob("*.py")) if own_name(path) and not path.is_relative_to(GENERATED)
]


def faults_inside(me: str, other: str) -> Iterator[str]:
    """What is wrong with a module's import of another one of ours."""
    mine, floor = floor_of(me), floor_of(other)
    if mine is None or floor is None:
        yield f"{me if mine is None else other} is on no floor"
    elif floor > mine:
        yield f"{me} imports {other}, which is below it"
    for rooms in STRANGERS:
        if len({room for room in rooms for module in (me, other) if within(module, room)}) > 1:
            yield f"{me} imports {other}, and neither room knows the other"


def faults(me: str, name: str) -> Iterator[str]:
    """What is wrong with an import."""
    if name.startswith("sandkube."):
        yield from faults_inside(me, name.removeprefix("sandkube."))
    elif (owners := OWNERS.get(name.partition(".")[0])) and not any(within(me, each) for each in owners):
        yield f"{me} imports {name}, which belongs to {sorted(owners)}"


def test_modules_keep_to_their_floors() -> None:
    assert len(MODULES) > 40
    assert [fault for path in MODULES for name in imports(path) for fault in faults(own_name(path), name)] == []


def test_what_breaks_the_rules_would_be_found() -> None:
    assert [*faults("digest", "sandkube.build.store")] == ["digest imports build.store, which is below it"]
    assert [*faults("build.store", "sandkube.digest"), *faults("build.store", "json")] == []
    assert [*faults("cluster.pod", "sandkube.build.code")] == [
        "cluster.pod imports build.code, which is below it",
        "cluster.pod imports build.code, and neither room knows the other",
    ]
    assert [*faults("log", "sandkube.attic")] == ["attic is on no floor"]
    assert [*faults("log", "httpx")] == ["log imports httpx, which belongs to ['build.cache', 'build.sources']"]


def test_modules_are_short() -> None:
    lengths = {own_name(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: length for name, length in lengths.items() if length > 400} == {}
    assert len((ROOT / "dodo.py").read_text().splitlines()) <= 60


def lengths(path: Path) -> Iterator[tuple[str, int]]:
    """Each function of a module, and how many lines it has, from `def` to its end."""
    for node in parsed(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


def test_functions_are_short() -> None:
    """Of the engine, the measurements and the tests."""
    paths = [
        ROOT / "dodo.py",
        *(path for each in ("sandkube", "bench", "tests") for path in (ROOT / each).rglob("*.py")),
    ]
    found = dict(each for path in paths if not path.is_relative_to(GENERATED) for each in lengths(path))
    assert len(found) > 1000
    assert {name: length for name, length in found.items() if length > 45} == {}

"""A module imports only from layers above it; only named modules touch doit, processes, archives, the network."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = (
    {"errors", "digest"},
    {"run", "log", "decode"},
    {"archive", "nar"},
    {"recipe", "lock", "derivation", "patching", "oci", "oci_runtime"},
    {"store"},
    {"fetch", "buildbox"},
    {"builders"},
    {"spec", "plan"},
    {"resolve"},
    {"realise"},
    {"cluster"},
    {"report"},
    {"tasks", "relock"},
    {"commands"},
    {"doctor"},
    {"__main__"},
)
OWNERS = {
    "doit": {"tasks", "relock", "commands", "doctor", "report", "dodo", "__main__"},
    "subprocess": {"run", "cluster", "commands"},
    "tarfile": {"archive"},
    "zipfile": {"archive"},
    "gzip": {"archive"},
    "zstandard": {"archive"},
    "httpx": {"fetch"},
    "socket": {"cluster"},
}


def layer_of(module: str) -> int:
    return next(at for at, names in enumerate(LAYERS) if module in names)


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "sandkube":
                yield from (f"sandkube.{each.name}" for each in node.names)
            else:
                yield node.module


MODULES = [
    path
    for path in sorted((ROOT / "sandkube").rglob("*.py"))
    if path.name != "__init__.py" or path.parent.name != "sandkube"
]


def own_name(path: Path) -> str:
    return path.relative_to(ROOT / "sandkube").with_suffix("").parts[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_keeps_to_its_layer(path: Path) -> None:
    me = own_name(path)
    for name in imports(path):
        words = name.split(".")
        if words[0] == "sandkube" and len(words) > 1 and words[1] != me:
            assert layer_of(words[1]) <= layer_of(me), f"{me} imports {words[1]}, which is below it"
        if owners := OWNERS.get(words[0]):
            assert me in owners, f"{me} imports {words[0]}, which belongs to {sorted(owners)}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_dodo_is_short() -> None:
    assert len((ROOT / "dodo.py").read_text().splitlines()) <= 60

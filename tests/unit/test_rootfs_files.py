"""The node's files: names and addresses of the cluster are in none of them, but in native/node/cluster."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ETC = ROOT / "native/rootfs/etc"
TEMPLATES = sorted(path for path in (ETC / "sandkube").rglob("*") if path.is_file())


def fields(path: str, struct: str) -> set[str]:
    """The exported fields of a Go struct."""
    body = re.search(rf"^type {struct} struct {{\n(.*?)^}}", (ROOT / path).read_text(), re.MULTILINE | re.DOTALL)
    assert body
    return set(re.findall(r"^\t([A-Z]\w*)\s", body[1], re.MULTILINE))


def methods(path: str, struct: str) -> set[str]:
    """What can be asked of a Go struct without an argument."""
    return set(re.findall(rf"^func \(\w+ {struct}\) ([A-Z]\w*)\(\)", (ROOT / path).read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ETC)))
def test_no_address_is_written_down(path: Path) -> None:
    text = path.read_text()
    assert re.findall(r"\b10\.\d+\.\d+\.\d+\b|\bcluster\.local\b|\brunsc\b|\b6443\b|\b10250\b", text) == []
    asked = set(re.findall(r"\.Cluster\.(\w+)", text))
    cluster = ("native/node/cluster/cluster.go", "Cluster")
    assert asked <= fields(*cluster) | methods(*cluster)
    assert set(re.findall(r"[ {]\.([A-Z]\w*)", text)) <= fields("native/node/fixes/render.go", "Values")


def test_nothing_else_is_written_down_either() -> None:
    """What is not a template has no address of the cluster."""
    for path in sorted(ETC.rglob("*")):
        if path.is_file() and path not in TEMPLATES:
            assert not re.search(r"\b10\.(88|96)\.", path.read_text()), path

"""Makes `sandkube/build/remote/stubs` of the published protos beside it: `python -m tests.stubs` writes them anew."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REMOTE = ROOT / "sandkube/build/remote"
PACKAGE = "sandkube.build.remote.stubs"
_OURS = re.compile(r"^from ((?:build|google)\.(?!protobuf)[\w.]+) import", re.MULTILINE)
_SERVICES = ("remote_execution", "bytestream", "operations")


def _protos() -> list[str]:
    return sorted(str(path.relative_to(REMOTE / "protos")) for path in (REMOTE / "protos").rglob("*.proto"))


def _protoc(into: Path, protos: list[str], *kinds: str) -> None:
    words = [sys.executable, "-m", "grpc_tools.protoc", f"-I{REMOTE / 'protos'}"]
    words += [f"--{kind}_out={into}" for kind in kinds]
    subprocess.run([*words, *protos], check=True, capture_output=True)


def generate(into: Path) -> None:
    """Messages with their types of every proto, services of those that have any, as modules of `PACKAGE`."""
    protos = _protos()
    _protoc(into, protos, "python", "pyi")
    _protoc(into, [each for each in protos if Path(each).stem in _SERVICES], "grpc_python")
    for path in [each for each in into.rglob("*.py*") if each.is_file()]:
        path.write_text(_OURS.sub(rf"from {PACKAGE}.\1 import", path.read_text()))
    for folder in (into, *(each for each in into.rglob("*") if each.is_dir())):
        (folder / "__init__.py").write_text("")


if __name__ == "__main__":
    generate(REMOTE / "stubs")

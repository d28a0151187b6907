"""Builder `wheel`: a Python package as a wheel (the binary distribution format of packaging.python.org).

Nothing in it is compressed by the archive: what is large in it is compressed already, and no library's version counts.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from sandkube import pack, tree
from sandkube.build.builders.kind import BuilderKind, Job
from sandkube.shapes import Distinct, Line, Pattern, RecipeName, matching

_TAG = "py3-none-manylinux_2_17_x86_64"
Version = Annotated[str, matching("a version such as 1.2.3", r"(0|[1-9]\d*)(\.(0|[1-9]\d*))*((a|b|rc)\d+)?")]
Name = Annotated[str, matching("a normalised name such as my_package", r"[a-z0-9]+(_[a-z0-9]+)*")]
Program = Annotated[str, matching("a function such as package.module:main", r"[a-z_.]+:[a-z_]+")]


@dataclass(frozen=True, slots=True)
class Wheel:
    """Builder `wheel`: a Python package, with the files of another output in it."""

    name: Name
    version: Version
    summary: Line
    modules: Distinct[Pattern]
    """Files of the source that are the package."""
    payload: RecipeName
    """An output that becomes the package's folder `payload`."""
    program: Program
    """What the command of the package's name calls."""

    def metadata(self) -> Mapping[str, str]:
        """The files of `.dist-info` but for RECORD, by name."""
        about = f"Metadata-Version: 2.1\nName: {self.name}\nVersion: {self.version}\nSummary: {self.summary}\n"
        tag = f"Wheel-Version: 1.0\nGenerator: sandkube\nRoot-Is-Purelib: false\nTag: {_TAG}\n"
        scripts = f"[console_scripts]\n{self.name} = {self.program}\n"
        return {"METADATA": f"{about}Requires-Python: >=3.11\n", "WHEEL": tag, "entry_points.txt": scripts}


def _package(job: Job, options: Wheel) -> Iterator[tuple[str, bytes, bool]]:
    """Name, bytes and executable bit of each file of the package."""
    for at, pattern in enumerate(options.modules):
        found = tree.glob(job.src, pattern)
        if not found:
            raise job.fault(f"build.modules[{at}]", f"no file of the source is {pattern!r}")
        for name in found:
            yield name, tree.read(job.src, name), False
    payload = job.inputs[options.payload]
    for name in tree.glob(payload, "**"):
        found_mode = tree.status(payload, name)
        yield f"payload/{name}", tree.read(payload, name), bool(found_mode and found_mode.st_mode & 0o100)


def build(job: Job, options: Wheel) -> None:
    """Gather, list, write."""
    files = {f"{options.name}/{name}": (data, bit) for name, data, bit in _package(job, options)}
    info = f"{options.name}-{options.version}.dist-info"
    files |= {f"{info}/{name}": (text.encode(), False) for name, text in options.metadata().items()}
    rows = [(name, f"sha256={_digest(data)}", str(len(data))) for name, (data, _) in sorted(files.items())]
    record = io.StringIO()
    csv.writer(record, lineterminator="\n").writerows([*rows, (f"{info}/RECORD", "", "")])
    files[f"{info}/RECORD"] = (record.getvalue().encode(), False)
    pack.write_zip(files, job.out / f"{options.name}-{options.version}-{_TAG}.whl")


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


KIND = BuilderKind(
    Wheel,
    build,
    code=("build/builders/wheel", "pack"),
    inputs=lambda options: {options.payload: "build.payload"},
    boxed=False,
)

"""Checks of programs and libraries before they count, with pyelftools."""

from __future__ import annotations

import io
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from sandkube import tree
from sandkube.errors import StepFailed
from sandkube.later import later

elffile = later("elftools.elf.elffile")
exceptions = later("elftools.common.exceptions")
segments = later("elftools.elf.segments")


def _faults(data: bytes, forbidden: Sequence[bytes]) -> Iterator[str]:
    elf = elffile.ELFFile(io.BytesIO(data))
    if elf["e_machine"] != "EM_X86_64":
        yield f"machine is {elf['e_machine']}, not EM_X86_64"
    for segment in elf.iter_segments():
        if isinstance(segment, segments.InterpSegment):
            yield f"dynamically linked (interpreter {segment.get_interp_name()})"
    names = [section.name for section in elf.iter_sections()]
    if ".note.gnu.build-id" in names:
        yield "has a build id"
    for name in names:
        if name == ".symtab" or name.startswith((".debug_", ".zdebug_")):
            yield f"is not stripped (section {name})"
    for word in forbidden:
        if word in data:
            yield f"holds the path {word.decode()}"


def _all_faults(data: bytes, forbidden: Sequence[bytes]) -> list[str]:
    try:
        return list(_faults(data, forbidden))
    except exceptions.ELFError as error:
        return [f"is no sound ELF file: {error}"]


def check_programs(folder: Path, forbidden: Sequence[str]) -> None:
    """Every ELF file below `folder` is static, stripped, for x86_64, without build id and without forbidden paths.

    Raises StepFailed with all faults of all files.
    """
    words = [word.encode() for word in forbidden]
    faults = []
    for name, found in tree.walk(folder):
        if stat.S_ISREG(found.st_mode):
            data = tree.read(folder, name)
            if data.startswith(b"\x7fELF"):
                faults += [f"{name}: {fault}" for fault in _all_faults(data, words)]
    if faults:
        raise StepFailed("the output was refused:\n  " + "\n  ".join(faults))

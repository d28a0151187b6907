"""Checks of programs and libraries before they count, with pyelftools."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.segments import InterpSegment

from sandkube.errors import StepFailed


def _faults(path: Path, forbidden: Sequence[bytes]) -> Iterator[str]:
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        if elf["e_machine"] != "EM_X86_64":
            yield f"machine is {elf['e_machine']}, not EM_X86_64"
        for segment in elf.iter_segments():
            if isinstance(segment, InterpSegment):
                yield f"dynamically linked (interpreter {segment.get_interp_name()})"
        names = [section.name for section in elf.iter_sections()]
    if ".note.gnu.build-id" in names:
        yield "has a build id"
    for name in names:
        if name == ".symtab" or name.startswith((".debug_", ".zdebug_")):
            yield f"is not stripped (section {name})"
    data = path.read_bytes()
    for word in forbidden:
        if word in data:
            yield f"holds the path {word.decode()}"


def check_programs(folder: Path, forbidden: Sequence[str]) -> None:
    """Every ELF file below `folder` is static, stripped, for x86_64, without build id and without forbidden paths.

    Raises StepFailed with all faults of all files.
    """
    words = [word.encode() for word in forbidden]
    faults = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.read_bytes()[:4] == b"\x7fELF":
            faults += [f"{path.relative_to(folder)}: {fault}" for fault in _faults(path, words)]
    if faults:
        raise StepFailed("the output was refused:\n  " + "\n  ".join(faults))

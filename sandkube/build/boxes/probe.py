"""What build sandbox this machine gives: found by starting a program in each form of it, the whole one first."""

from __future__ import annotations

import os
import struct
import tempfile
from pathlib import Path

from sandkube.build.box import Call, Mount
from sandkube.build.boxes import refusal
from sandkube.build.boxes.bubblewrap import WHOLE, Bubblewrap, Form, forms, last_line
from sandkube.errors import RunRefused
from sandkube.run import base_environment, run

_CODE = bytes.fromhex("b83c000000 31ff 0f05")  # mov eax, 60; xor edi, edi; syscall: exit(0)
_BASE, _HEADER, _SEGMENT = 0x400000, 64, 56
_START = _HEADER + _SEGMENT


def program(code: bytes) -> bytes:
    """A static ELF program (elf(5)) of machine code: sandboxes are empty, and what steps start there is made later."""
    start, size = _BASE + _START, _START + len(code)
    return b"".join(
        (
            struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, start, 64, 0, 0, 64, 56, 1, 64, 0, 0),
            struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 4096),
            code,
        )
    )


PROGRAM = program(_CODE)
"""One that ends well."""


def _said(argv: tuple[str, ...]) -> str:
    """Empty when a command ends well, else what it said last."""
    with tempfile.TemporaryFile() as log:
        done = run(argv, env=base_environment(Path("/")), cwd=Path("/"), log=log, check=False)
        log.seek(0)
        return "" if done.status == 0 else last_line(log.read())


def _works(box: Bubblewrap, program: Path) -> str:
    """Empty when a program starts in a box, else what bubblewrap said last."""
    return _said(box.argv(Call(["/probe"], [Mount(program, "/probe")])))


def _check_program(bwrap: Path) -> None:
    if not os.access(bwrap, os.X_OK):  # so too on a file system that is mounted noexec
        raise RunRefused(
            f"{bwrap} may not be executed",
            hint="outputs/ must be on a file system that is not mounted noexec: clone elsewhere",
        )
    if said := _said((str(bwrap), "--version")):
        raise RunRefused(
            f"bubblewrap cannot be started: {said}",
            hint=f"its wheel is made for machines with glibc; {refusal.OTHER_WAYS.removeprefix('or ')}",
        )


def check_hopeful(folder: Path, *, root: bool) -> None:
    """Where there is no bubblewrap to try: raises RunRefused if none would work here."""
    facts = refusal.find(folder)
    if facts.hopeless(root=root):
        raise refusal.sentence(facts, "")


def find(bwrap: Path, folder: Path, *, root: bool) -> Bubblewrap:
    """The box in the first form that works. `folder` is where programs may run. Raises RunRefused where none does."""
    file = folder / "probe"
    file.write_bytes(PROGRAM)
    file.chmod(0o755)
    whole = Bubblewrap(bwrap)
    said = _works(whole, file)
    if not said:
        return whole
    _check_program(bwrap)
    facts = refusal.find(folder)
    if not facts.hopeless(root=root):
        for form in forms(user="user namespaces" not in facts.refused, root=root):
            box = Bubblewrap(bwrap, form)
            if form != WHOLE and not _works(box, file):
                return box
    raise refusal.sentence(facts, said)


_LACKS = (
    ("a /proc", "see the processes around them"),
    ("a host name", "know this machine's host name"),
    ("a loopback", "have no network at all, not even loopback"),
    ("a user namespace", "run as root without capabilities"),
)


def _list(words: list[str]) -> str:
    return ", ".join(words[:-1]) + f" and {words[-1]}" if len(words) > 1 else words[0]


def describe(form: Form) -> str:
    """One line: what the build sandbox is here, and what its form means."""
    if form == WHOLE:
        return "build sandbox: whole"
    lacks = [each for each, lack in zip(_LACKS, form.lacks(), strict=True) if lack]
    things, means = [thing for thing, _ in lacks], [mean for _, mean in lacks]
    return (
        f"build sandbox: without {_list(things)} of its own, refused here; steps {_list(means)}; outputs stay the same"
    )

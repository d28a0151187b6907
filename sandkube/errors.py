"""The two kinds of failure: what the user can mend, and everything else.

A `UserError` is printed as one line with its hint and no traceback; exit status 1. Any other
exception is a bug in Sandkube: its traceback is shown; exit status 2.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterable


def one_line(text: object) -> str:
    """Text of somebody's choice, such as a file's name, as a part of a line: what would break the line is escaped."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in str(text))


class UserError(Exception):
    """Something the user can mend; `hint` says how."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def about(self, name: str) -> str:
        """The message, with the name of the step that it is about in front."""
        return self.message if self.message.startswith(f"{name}:") else f"{name}: {self.message}"

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


def told(error: UserError | OSError) -> str:
    """What went wrong, as a part of a sentence about something else."""
    return error.message if isinstance(error, UserError) else str(error.strerror or error)


class Problems(UserError):
    """Several problems found in one go, sorted, each with its own place."""

    def __init__(self, problems: Iterable[str], *, hint: str | None = None) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(self.problems), hint=hint)


class HashMismatch(UserError):
    """Bytes that are not the pinned ones; never used, whoever served them."""

    def __init__(self, what: str, *, expected: str, got: str, origin: str) -> None:
        super().__init__(
            f"{what}: the bytes do not match their pin: expected {expected}, got {got}, from {origin}",
            hint="the source changed or was tampered with; "
            "if the change is wanted, move the pin with ./do lock --upgrade NAME",
        )
        self.expected = expected
        self.got = got


class RunRefused(UserError):
    """Nothing of this run can be made, whatever the step: said once, without a step's name."""


class Unusable(UserError):
    """A server of others did not do what it was asked: it is away, full, slow, or it refuses."""


class StepFailed(UserError):
    """A step's command failed; the message hands over what is needed to go on by hand."""


_REFUSALS = {
    errno.EACCES: "",
    errno.EPERM: "",
    errno.EROFS: "",
    errno.ENOSPC: "free some space on its file system",
    errno.EDQUOT: "free some space; this user's quota is used up",
    errno.ENOMEM: "",
    errno.EIO: "its file system or disk is faulty",
    errno.ESTALE: "",
    errno.ENFILE: "",
    errno.EFBIG: "raise the limit of a file's size: ulimit -f unlimited",
    errno.EMFILE: "raise the limit of open files: ulimit -n 4096",
}
"""What the machine may refuse through no fault of ours, with what helps: a sentence, no traceback."""


def _refused_copy(met: tuple[object, object, object]) -> UserError | None:
    number = re.search(r"\[Errno (\d+)\]", str(met[2]))
    return refused(OSError(int(number[1]), os.strerror(int(number[1])), str(met[1]))) if number else None


def refused(error: OSError) -> UserError | None:
    """The sentence for something that the machine refused; None for what is a bug."""
    if isinstance(error, shutil.Error):  # copytree gathers what it met: from, to and a text each
        return next(filter(None, map(_refused_copy, error.args[0])), None)
    if error.errno not in _REFUSALS:
        return None
    where = "this machine" if error.filename is None else one_line(os.fsdecode(error.filename))
    return UserError(f"{where}: {error.strerror}", hint=_REFUSALS[error.errno] or None)

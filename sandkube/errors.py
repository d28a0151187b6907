"""The two kinds of failure: what the user can mend, and everything else.

A `UserError` is printed as one line with its hint and no traceback; exit status 1. Any other
exception is a bug in Sandkube: its traceback is shown; exit status 2.
"""

from __future__ import annotations

from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend; `hint` says how."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


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


class StepFailed(UserError):
    """A step's command failed; the message hands over what is needed to go on by hand."""

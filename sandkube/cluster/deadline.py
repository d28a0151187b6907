"""How long something may take."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

LONGEST = 1_000_000.0
"""Seconds; more than that no wait of the kernel's takes."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock, `seconds` after `began`; 0 seconds are no limit."""

    seconds: float
    began: float = field(default_factory=time.monotonic)

    def left(self) -> float | None:
        """Seconds from now on, 0 when it is over; None for no limit."""
        return max(0.0, self.began + self.seconds - time.monotonic()) if self.seconds else None


TRIAL = 60.0
"""Seconds to find out what a place gives; it takes less than one."""
NEVER = Deadline(0)

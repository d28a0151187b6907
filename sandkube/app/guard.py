"""What every command runs in: what the user can mend is a sentence, and exit statuses mean what README says.

0: done. 1: something that the user can mend. 2: a bug of Sandkube. 130: interrupted. 141: nobody reads the output.
"""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Callable

from sandkube import log
from sandkube.errors import RunRefused, UserError, refused
from sandkube.events import Failed, drop
from sandkube.run import Interrupted

MENDABLE, BUG = 1, 2
INTERRUPTED, UNREAD = 128 + signal.SIGINT, 128 + signal.SIGPIPE
_NO_THREAD = "can't start new thread"
"""All that Python says where the machine refuses one."""
BUG_NOTE = "this is a bug of Sandkube, nothing that you did; please report it with the lines above"


_told: set[str] = set()
_telling = threading.Lock()


def first_time(text: str) -> bool:
    """Whether a message was not given before: what ends a whole run, several steps find out at once."""
    with _telling:
        new = text not in _told
        _told.add(text)
    return new


def guarded(work: Callable[[], int]) -> int:
    """Run a command's work; the exit status. Nothing but the end of the process gets past it."""
    try:
        status = work()
        sys.stdout.flush()
    except BrokenPipeError:
        return _unread()
    except (KeyboardInterrupt, Interrupted):
        return _say("interrupted; what is finished is kept, run the same command again to go on", INTERRUPTED)
    except Exception as error:
        if isinstance(error, RunRefused) and not first_time(str(error)):
            return MENDABLE
        if (sentence := mendable(error)) is not None:
            return _say(f"error: {sentence}", MENDABLE)
        return _say(bug(error), BUG)
    return status


def mendable(error: Exception) -> UserError | None:
    """The sentence for something that the user or the machine caused; None for a bug."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, MemoryError):
        return UserError("this machine has no more memory for it", hint="raise its limit: ulimit -v")
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        hint = "raise the limit of processes (ulimit -u, the container's) or of memory (ulimit -v)"
        return UserError("this machine refuses another thread", hint=hint)
    return refused(error) if isinstance(error, OSError) else None


def bug(error: BaseException) -> str:
    """The traceback of an error that is ours, marked as such."""
    return f"{''.join(traceback.format_exception(error))}{BUG_NOTE}"


def _say(text: str, status: int) -> int:
    try:
        log.tell(Failed("", text, bug=status == BUG))
    except BrokenPipeError:
        return _unread()
    except (OSError, UserError):  # a full disk behind standard output or standard error: the status has to tell it
        _drop_output()
    return status


def _unread() -> int:
    """Whoever read the output has seen enough: end without a word, as programs do that know of no such signal."""
    _drop_output()
    return UNREAD


def _drop_output() -> None:
    """For the interpreter's own flush at exit."""
    for stream in (sys.stdout, sys.stderr):
        drop(stream)

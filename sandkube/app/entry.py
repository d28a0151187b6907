"""The entry of the command `sandkube`: nothing of ours is imported before the standard streams are open."""

import os
import sys

LAST_STREAM = 2


def open_streams() -> None:
    """Open standard streams that came closed: the next file would get such a number, and output would get in it."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= LAST_STREAM:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: PTH123, SIM115


def main() -> int:
    """Run the words of this process; its exit status."""
    open_streams()
    from sandkube.app.main import run

    return run()

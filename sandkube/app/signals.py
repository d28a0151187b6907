"""Signals and umask of a command, while it builds and afterwards."""

from __future__ import annotations

import os
import signal

from sandkube.run import stop_children, stopping


def _on_signal(number: int, _frame: object) -> None:
    """First signal: end the children, let the steps fail. Second: leave at once (the store takes it)."""
    if stopping():
        os._exit(128 + number)
    stop_children()


def prepare_process() -> None:
    """Signals and umask of a command that builds."""
    os.umask(0o022)
    signal.signal(signal.SIGINT, _on_signal)
    signal.signal(signal.SIGTERM, _on_signal)


def _on_term(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def release_signals() -> None:
    """Signals of a command that has built and goes on: both ask it to clean up and leave."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _on_term)

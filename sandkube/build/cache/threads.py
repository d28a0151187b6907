"""Threads that wait for caches. Who waits for them leaves when the user asks to stop, however long a server is silent.

They are daemons: the process ends without them. What they do can be left at any moment, it changes nothing but caches.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from sandkube.errors import UserError
from sandkube.run import go_on

T = TypeVar("T")
X = TypeVar("X")
_AGAIN = 0.1  # seconds
_Work = queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]


def result(one: Future[T]) -> T:
    """What a future comes to. Raises Interrupted as soon as the user asks to stop."""
    while not wait((one,), _AGAIN).done:
        go_on()
    return one.result()


class Threads:
    """So many threads, started with the first work; fewer where the machine refuses some."""

    def __init__(self, count: int, name: str) -> None:
        self._count, self._name = count, name
        self._work: _Work = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._started = False

    def submit(self, function: Callable[..., T], *arguments: object) -> Future[T]:
        """Call a function in one of them. Raises UserError where the machine refuses all of them."""
        with self._lock:
            self._started = self._started or self._start()
        future: Future[T] = Future()
        self._work.put((future, lambda: function(*arguments)))
        return future

    def _start(self) -> bool:
        count = 0
        with contextlib.suppress(RuntimeError):  # "can't start new thread", and no word more
            for number in range(self._count):
                name = f"{self._name}-{number}"
                threading.Thread(target=_run, args=(self._work,), name=name, daemon=True).start()
                count += 1
        if not count:
            raise UserError("this machine starts no thread that could ask caches", hint="raise the limit: ulimit -u")
        weakref.finalize(self, _end, self._work, count).atexit = False
        return True

    def map(self, function: Callable[[X], T], values: Iterable[X]) -> list[T]:
        """What a function gives for each value. Raises what it raises, and Interrupted."""
        coming = [self.submit(function, value) for value in values]
        try:
            return [result(each) for each in coming]
        finally:
            for each in coming:
                each.cancel()


def _run(waiting: _Work) -> None:
    while one := waiting.get():
        future, work = one
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work())
            except BaseException as error:  # for who waits
                future.set_exception(error)
        del one, future, work


def _end(waiting: _Work, count: int) -> None:
    for _ in range(count):
        waiting.put(None)

"""Images of a running cluster: what of our own containerd's client does in the node (native/ctr), asked from here."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sandkube import images
from sandkube.cluster import programs
from sandkube.cluster.configured import configured_of
from sandkube.cluster.place import Place, needs_running
from sandkube.decode import decoded
from sandkube.documents import parse_json
from sandkube.errors import UserError, one_line
from sandkube.run import base_environment

_NO_ROOM = "no space left on device"
_GRACE = 10.0  # seconds
_SOCKET = "/run/sandkube/nodes/{}/run/containerd/containerd.sock"
"""Where the first node finds containerd of another one (native/node/boot/member.go)."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An image that pods can be made from: its id and names, its digests in repositories, bytes; whether it stays."""

    id: str
    names: tuple[str, ...]
    digests: tuple[str, ...]
    size: int
    pinned: bool


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image that a cluster has now, by its full names."""

    id: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Answer:
    """A line of what the program says."""

    error: str = ""
    lacks: tuple[str, ...] | None = None
    loaded: tuple[Loaded, ...] | None = None
    images: tuple[Listed, ...] | None = None


class _Conversation:
    """The program in the first node, beside the containerd of one of them: a document goes in, lines come out."""

    def __init__(self, one: Place, said: IO[bytes], number: int, *words: str) -> None:
        self._place, self._said = one, said
        sandbox = programs.sandbox(one, needs_running(one).container)
        address = [f"--address={_SOCKET.format(number)}"] if number > 1 else []
        self.process = subprocess.Popen(
            sandbox.execute(["ctr", *address, "sandkube", *words]),
            env=base_environment(Path("/root")),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            process_group=0,
        )
        assert self.process.stdin
        assert self.process.stdout
        self._input, self._output = self.process.stdin, self.process.stdout

    def __enter__(self) -> _Conversation:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Without an end of its input the program loads nothing, and ends."""
        with suppress(BrokenPipeError):
            self._input.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(None if kind is None else _GRACE)
        self.process.kill()
        self.process.wait()
        self._output.close()

    def write(self, data: bytes) -> None:
        """Give it bytes. Raises BrokenPipeError where it reads no more."""
        self._input.write(data)

    def end(self, *, more: bool = False) -> None:
        """What was written goes off now; that was all unless there is `more`."""
        self._input.flush() if more else self._input.close()

    def answer(self) -> _Answer:
        """Its next line. Raises UserError for what it calls an error."""
        line = self._output.readline()
        if not line:
            self.process.wait()
            needs_running(self._place)
            self._said.seek(0)
            last = self._said.read().decode(errors="replace").strip().splitlines()[-1:]
            raise UserError(
                f"cluster {self._place.name}: {''.join(last) or 'its containerd gave no answer'}",
                hint=f"./do logs --name {self._place.name} containerd shows more",
            )
        found = decoded(_Answer, parse_json(line), "the node's answer")
        if found.error:
            raise UserError(found.error)
        return found


def load(one: Place, held: images.Held, told: Callable[[int, int], None]) -> tuple[tuple[Loaded, ...], int | None]:
    """Have a cluster have images: those that it has now, and the bytes that were sent, None where it had all of them.

    Each node gets them. `told` is called with bytes so far and bytes in all of a node. Raises UserError; the node that
    it is about has nothing of the images then, nor have those after it.
    """
    found = [_load(one, number, held, told) for number in _numbers(one)]
    sent = [size for _, size in found if size is not None]
    return found[0][0], sum(sent) if sent else None


def _numbers(one: Place) -> range:
    return range(1, len(configured_of(one).nodes) + 1)


def _load(
    one: Place, number: int, held: images.Held, told: Callable[[int, int], None]
) -> tuple[tuple[Loaded, ...], int | None]:
    wanted = [{"config": each.config, "names": each.names, "blobs": [*each.blobs]} for each in held.images]
    with tempfile.TemporaryFile() as said, _Conversation(one, said, number, "load") as node:
        try:
            with suppress(BrokenPipeError):
                node.write(json.dumps(wanted).encode() + b"\n")
                node.end(more=True)
            first = node.answer()
            if first.loaded is not None:
                return first.loaded, None
            sent = _send(node, held, held.parts(first.lacks or ()), told)
            return node.answer().loaded or (), sent
        except UserError as error:
            raise _about(error, held.files.name, one.name) from None


def _send(node: _Conversation, held: images.Held, parts: Sequence[str], told: Callable[[int, int], None]) -> int:
    sent, size = 0, held.size(parts)
    with suppress(BrokenPipeError):
        for piece in held.packed(parts):
            node.write(piece)
            sent += len(piece)
            told(min(sent, size), size)
        node.end()
    return size


def _about(error: UserError, what: str, cluster: str) -> UserError:
    if _NO_ROOM in error.message:
        return UserError(
            f"{what}: cluster {cluster} has no room for it",
            hint=f"layers may take a quarter of the memory; ./do remove-image IMAGE --name {cluster} gives some back",
        )
    return UserError(f"{what}: not loaded into cluster {cluster}: {one_line(error.message)}", hint=error.hint)


def _ask(one: Place, number: int, *words: str) -> _Answer:
    with tempfile.TemporaryFile() as said, _Conversation(one, said, number, *words) as node:
        node.end()
        return node.answer()


def listed(one: Place) -> tuple[Listed, ...]:
    """The images that all nodes of a cluster have, by name. Raises UserError."""
    first, *others = [_ask(one, number, "list").images or () for number in _numbers(one)]
    everywhere = [each for each in first if all(each.id in {image.id for image in node} for node in others)]
    return tuple(sorted(everywhere, key=lambda each: (not each.names, each.names, each.id)))


def remove(one: Place, name: str) -> None:
    """Take an image, or one of its names, from each node of a cluster. Raises UserError, where a pod uses it too."""
    errors: list[UserError] = []
    for number in _numbers(one):
        try:
            _ask(one, number, "remove", name)
        except UserError as error:
            errors.append(error)
    if errors:
        raise UserError(f"cluster {one.name}: {one_line(errors[0].message)}", hint=errors[0].hint)

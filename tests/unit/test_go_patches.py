"""Patches of a Go program's modules: each is applied to the version that is built, or refused by name."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest

from sandkube.build.box import Mount
from sandkube.build.boxes.bubblewrap import Bubblewrap
from sandkube.build.builders import Job
from sandkube.build.builders import go as builder
from sandkube.build.lock import Module
from sandkube.build.sources import go as source_go
from sandkube.errors import UserError

PATCH = "--- a/a.go\n+++ b/a.go\n@@ -1 +1 @@\n-package a\n+package a // patched\n"


def module(cache: Path, path: str, version: str, *, whole: bool = True) -> Module:
    """A module in a user's cache, with files or with its go.mod only."""
    made = Module(path, version, None, "")
    mod = source_go._downloaded(cache / "gomod", made, "mod")
    mod.parent.mkdir(parents=True, exist_ok=True)
    mod.write_text(f"module {path}\n")
    made = dataclasses.replace(made, mod=source_go._hash1([("go.mod", mod)]))
    if not whole:
        return made
    tree = source_go._unpacked(cache / "gomod", made)
    tree.mkdir(parents=True)
    (tree / "a.go").write_text("package a\n")
    (tree / "version").write_text(version)
    return dataclasses.replace(made, zip=source_go.tree_h1(made, tree))


def job(base: Path, modules: list[Module], *patched: str) -> Job:
    """A job with a patch of each of the named modules."""
    for each in ("src", "out", "work"):
        (base / each).mkdir()
    patch = base / "patches/tool/0001-words.patch"
    patch.parent.mkdir(parents=True)
    patch.write_text(PATCH)
    return Job(
        name="tool",
        src=base / "src",
        out=base / "out",
        work=base / "work",
        inputs={},
        modules=tuple(modules),
        module_patches=tuple((each, patch) for each in patched),
        cache=base / "cache",
        box=Bubblewrap(base / "bwrap"),
        log=io.BytesIO(),
    )


def shown(mounts: list[Mount]) -> dict[str, tuple[str, str]]:
    """What the build sees of each module: its version, by its own words, and its source."""
    return {
        mount.inside.removeprefix("/mod/"): ((mount.host / "version").read_text(), (mount.host / "a.go").read_text())
        for mount in mounts
        if mount.inside != "/mod"
    }


def test_the_version_with_files_is_patched(tmp_path: Path) -> None:
    """The closure also reads the go.mod of a version that sorts after it."""
    cache = tmp_path / "cache"
    modules = [
        module(cache, "example.org/Json", "v1.1.12"),
        module(cache, "example.org/Json", "v1.1.7", whole=False),
        module(cache, "example.org/other", "v1.0.0"),
    ]
    mounts = builder._module_mounts(job(tmp_path, modules, "example.org/Json"), "/mod")
    assert shown(mounts) == {
        "example.org/!json@v1.1.12": ("v1.1.12", "package a // patched\n"),
        "example.org/other@v1.0.0": ("v1.0.0", "package a\n"),
    }


def test_one_of_several_versions_is_named(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    modules = [module(cache, "example.org/json", version) for version in ("v1.1.12", "v1.1.7")]
    mounts = builder._module_mounts(job(tmp_path, modules, "example.org/json@v1.1.7"), "/mod")
    assert shown(mounts) == {
        "example.org/json@v1.1.12": ("v1.1.12", "package a\n"),
        "example.org/json@v1.1.7": ("v1.1.7", "package a // patched\n"),
    }


def test_names_that_look_alike_are_two_folders(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    modules = [module(cache, path, "v1.0.0") for path in ("example.org/a_b", "example.org_a/b", "example.org/a/b")]
    mounts = builder._module_mounts(job(tmp_path, modules, *(each.path for each in modules)), "/mod")
    assert {text for _, text in shown(mounts).values()} == {"package a // patched\n"}
    assert len({mount.host for mount in mounts}) == 4


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            "example.org/json",
            "recipes/tool.toml: build.patches: module example.org/json: the closure holds several versions of it\n"
            '  hint: write module = "example.org/json@v1.1.12" or "example.org/json@v1.1.7"',
        ),
        (
            "example.org/jsn",
            "recipes/tool.toml: build.patches: module example.org/jsn is not in the closure "
            "(did you mean example.org/json?)",
        ),
        (
            "example.org/json@v1.1.8",
            "recipes/tool.toml: build.patches: module example.org/json@v1.1.8 is not in the closure "
            "(did you mean example.org/json@v1.1.7?)",
        ),
        (
            "example.org/asked",
            "recipes/tool.toml: build.patches: module example.org/asked: the build reads its go.mod only, "
            "so there is nothing to patch",
        ),
    ],
)
def test_no_module_is_guessed(tmp_path: Path, wanted: str, message: str) -> None:
    cache = tmp_path / "cache"
    modules = [module(cache, "example.org/json", version) for version in ("v1.1.12", "v1.1.7")]
    modules.append(module(cache, "example.org/asked", "v1.0.0", whole=False))
    with pytest.raises(UserError) as raised:
        builder._module_mounts(job(tmp_path, modules, wanted), "/mod")
    assert str(raised.value) == message


def test_a_patched_cache_is_named_by_patch_and_module(tmp_path: Path) -> None:
    patch = tmp_path / "0001-words.patch"
    patch.write_text(PATCH)
    paths = {builder._modcache_path(each) for each in ((), (("a", patch),), (("b", patch),))}
    assert len(paths) == 3

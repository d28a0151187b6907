"""Recipes are decoded strictly, and all problems of all files are reported together."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandkube import recipe
from sandkube.errors import Problems


def write(root: Path, **files: str) -> Path:
    (root / "recipes").mkdir()
    for name, text in files.items():
        (root / "recipes" / f"{name}.toml").write_text(text)
    return root


def problems(root: Path) -> list[str]:
    with pytest.raises(Problems) as caught:
        recipe.load(root)
    return list(caught.value.problems)


def test_all_problems_together(tmp_path: Path) -> None:
    write(
        tmp_path,
        zig='source = "pypi:ziglang@0.17.1"\n[build]\nkind = "tree"\n',
        a='source = "pypo:x@1"\n[build]\nkind = "tree"\nexecutabel = []\n',
        b='source = "go:x/y@v1"\n[build]\nkind = "go"\npackages = ["./x", 3]\n'
        'cgo = "yes"\npatches = ["0002-x.patch"]\n',
        c='[build]\nkind = "bundel"\n',
    )
    (tmp_path / "patches/b").mkdir(parents=True)
    (tmp_path / "patches/b/0001-x.patch").touch()
    assert problems(tmp_path) == [
        "recipes/a.toml: build.executabel: unknown key (did you mean executable?)",
        "recipes/a.toml: source: unknown source kind 'pypo' (did you mean pypi?);"
        " known: go, pypi, deb, git, url, local",
        "recipes/b.toml: build.cgo: expected true or false, got 'yes'",
        "recipes/b.toml: build.kind: unknown input 'go'",
        "recipes/b.toml: build.packages[1]: expected a string, got 3",
        "recipes/b.toml: build.patches[0]: no such file patches/b/0002-x.patch (did you mean 0001-x.patch?)",
        "recipes/c.toml: build.kind: expected one of tree, go, c, image, content, rootfs, bundle, got 'bundel'"
        " (did you mean bundle?)",
    ]


def test_cycle(tmp_path: Path) -> None:
    text = '[build]\nkind = "rootfs"\ninstall = [{from = "%s", path = ".", to = "."}]\n'
    write(tmp_path, a=text % "b", b=text % "a")
    assert problems(tmp_path) == ["recipes/a.toml: cycle: a -> b -> a"]


def test_unknown_input_gets_a_suggestion(tmp_path: Path) -> None:
    write(
        tmp_path,
        rootfs='[build]\nkind = "rootfs"\ninstall = []\n',
        bundle='[build]\nkind = "bundle"\nrootfs = "rootsf"\n',
    )
    assert problems(tmp_path) == ["recipes/bundle.toml: build.rootfs: unknown input 'rootsf' (did you mean rootfs?)"]


def test_parse(tmp_path: Path) -> None:
    write(tmp_path, t='source = "deb:src:libseccomp@2.5.4-1"\n[build]\nkind = "tree"\n')
    found = recipe.load(tmp_path)["t"]
    assert found.source == recipe.Source("deb", "src:libseccomp", "2.5.4-1")
    assert str(found.source) == "deb:src:libseccomp@2.5.4-1"

"""Patches: the same bytes whatever git of this machine is told, and a sentence where one does not apply."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sandkube.build import patching
from sandkube.build.patching import apply_patches
from sandkube.errors import UserError

PATCH = """\
--- a/a.txt
+++ b/a.txt
@@ -1,3 +1,3 @@
 a
-b
+B $Id$
 c
--- /dev/null
+++ b/dir/new
@@ -0,0 +1 @@
+new
"""
CRLF = "* text eol=crlf ident working-tree-encoding=UTF-16LE\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source with one file, inside of a repository whose user likes CRLF."""
    (tmp_path / "work/tree").mkdir(parents=True)
    (tmp_path / "work/tree/a.txt").write_text("a\nb\nc\n")
    subprocess.run(["git", "init", "--quiet", tmp_path / "work"], check=True)
    (tmp_path / "work/.gitattributes").write_text(CRLF)
    return tmp_path / "work/tree"


def patch(base: Path, text: str = PATCH) -> Path:
    path = base / "patches/tool/0001-words.patch"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def assert_patched(tree: Path) -> None:
    assert (tree / "a.txt").read_bytes() == b"a\nB $Id$\nc\n"
    assert (tree / "dir/new").read_bytes() == b"new\n"


def test_a_repository_around_says_nothing(tree: Path, tmp_path: Path) -> None:
    apply_patches(tree, [patch(tmp_path)])
    assert_patched(tree)


@pytest.mark.parametrize("at", [".gitattributes", "dir/.gitattributes"])
def test_attributes_of_the_source_change_nothing(tree: Path, tmp_path: Path, at: str) -> None:
    (tree / at).parent.mkdir(exist_ok=True)
    (tree / at).write_text(f"[attr]odd text eol=crlf\n{CRLF}* odd\n" if "/" not in at else CRLF)
    apply_patches(tree, [patch(tmp_path)])
    assert_patched(tree)


def test_attributes_and_settings_of_the_user_change_nothing(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / ".config/git").mkdir(parents=True)
    (home / ".config/git/attributes").write_text(CRLF)
    (home / ".gitconfig").write_text("[core]\n autocrlf = true\n eol = crlf\n[apply]\n whitespace = fix\n")
    for name, value in {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "GIT_DIR": str(tmp_path / "work/.git"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.autocrlf",
        "GIT_CONFIG_VALUE_0": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(patching, "base_environment", lambda _: {"PATH": "/usr/bin:/bin", "HOME": str(home)})
    apply_patches(tree, [patch(tmp_path)])
    assert_patched(tree)


def test_attributes_of_the_system_are_not_asked_for(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of system attributes is built into git, and root's; so what is looked at is what git is told."""
    seen = tmp_path / "seen"
    wrapper = tmp_path / "bin/git"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\n[ "$GIT_ATTR_NOSYSTEM" = 1 ] && : >"{seen}"\nPATH=/usr/bin:/bin git "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setattr(patching, "base_environment", lambda _: {"PATH": f"{wrapper.parent}:/usr/bin:/bin"})
    apply_patches(tree, [patch(tmp_path)])
    assert seen.exists()
    assert_patched(tree)


def test_what_does_not_apply_is_named(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        apply_patches(tree, [patch(tmp_path, PATCH.replace(" a\n", " x\n"))])
    assert raised.value.message.startswith("patches/tool/0001-words.patch: does not apply:\n")
    assert "error: patch failed: a.txt:1" in raised.value.message
    assert (tree / "a.txt").read_text() == "a\nb\nc\n"


def test_no_file_is_passed_over(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"error: missing: No such file or directory"):
        apply_patches(tree, [patch(tmp_path, PATCH.replace("a.txt", "missing"))])


@pytest.mark.parametrize("path", ["../outside", ".git/config"])
def test_nothing_outside_is_written(tree: Path, tmp_path: Path, path: str) -> None:
    text = f"--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+new\n"
    with pytest.raises(UserError, match="does not apply"):
        apply_patches(tree, [patch(tmp_path, text)])
    assert not (tree / path).exists()

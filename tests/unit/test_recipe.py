"""Recipes are decoded strictly, and all problems of all files are reported together."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandkube.build import plan, recipe
from sandkube.build.sources import Source
from sandkube.errors import Problems
from tests.projects import project

HEAD = 'description = "Words."\n'
LOCAL = HEAD + 'source = "local:native/x"\n[build]\n'
GO, C, TREE = (f'{LOCAL}kind = "{kind}"\n' for kind in ("go", "c", "tree"))
IMAGE = HEAD + '[build]\nkind = "image"\nname = "x:1"\ninstall = []\n'
ROOTFS = HEAD + '[build]\nkind = "rootfs"\n'
TOOLS = dict.fromkeys(("go", "zig", "busybox"), TREE)
"""Recipes that others need."""


def write(root: Path, **files: str) -> Path:
    (root / "recipes").mkdir()
    (root / "native/x").mkdir(parents=True)
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
        zig=TREE,
        a=HEAD + 'source = "pypo:x@1"\n[build]\nkind = "tree"\nexecutabel = []\n',
        b='source = "go:x/y@v1.0.0"\n[build]\nkind = "go"\npackages = ["./x", 3]\ncgo = "yes"\n',
        c=HEAD + '[build]\nkind = "bundel"\n',
        d=GO + 'packages = ["."]\npatches = ["0002-x.patch", "0001-x.patch", {file = "0001-x.patch"}, "lost.patch"]\n',
        e=GO + 'packages = ["."]\n',
    )
    (tmp_path / "patches/d").mkdir(parents=True)
    (tmp_path / "patches/d/0001-x.patch").touch()
    (tmp_path / "patches/d/lost.patch").symlink_to("nowhere")
    assert problems(tmp_path) == [
        "recipes/a.toml: build.executabel: unknown key (did you mean executable?)",
        "recipes/a.toml: source: unknown source kind 'pypo' (did you mean pypi?);"
        " known: go, pypi, deb, git, oci, url, local",
        "recipes/b.toml: build.cgo: expected true or false, got 'yes'",
        "recipes/b.toml: build.packages[1]: expected a string, got 3",
        "recipes/b.toml: description: missing key",
        "recipes/c.toml: build.kind: expected one of tree, go, c, image, layout, content, rootfs, bundle, packed, "
        "wheel, tar, run, got 'bundel' (did you mean bundle?)",
        "recipes/d.toml: build.patches[0]: no such file patches/d/0002-x.patch (did you mean 0001-x.patch?)",
        "recipes/d.toml: build.patches[2]: patches/d/0001-x.patch is listed twice",
        "recipes/d.toml: build.patches[3]: patches/d/lost.patch is a link that leads nowhere",
        "recipes/e.toml: build.kind: unknown input 'go'",
    ]


PATH = "expected a relative path without .., got"
BELOW = "expected a relative path without . and .., got"
WRONG = {
    "install without from": (ROOTFS + 'install = [{form = "zig", path = ".", to = "."}]', [
        "build.install[0].form: unknown key (did you mean from?)", "build.install[0].from: missing key",
    ]),
    "install of a word": (ROOTFS + 'install = ["zig"]', ["build.install[0]: expected a table, got 'zig'"]),
    "install out of it": (ROOTFS + 'install = [{from = "zig", path = "/etc", to = "a/../b"}]', [
        f"build.install[0].path: {PATH} '/etc'", f"build.install[0].to: {PATH} 'a/../b'",
    ]),
    "mode in words": (IMAGE + 'directories = [{path = "a", mode = "rwx"}]', [
        "build.directories[0].mode: expected a mode such as \"0755\", got 'rwx'"
    ]),
    "mode in a file system": (ROOTFS + 'install = []\ndirectories = [{path = "a", mode = "1777"}]', [
        "build.directories[0].mode: a mode goes with images only: a file system's modes are those of the store"
    ]),
    "directory out of it": (IMAGE + 'directories = [{path = "../a"}]', [f"build.directories[0].path: {PATH} '../a'"]),
    "directory twice": (IMAGE + 'directories = [{path = "a"}, {path = "a", mode = "0700"}]', [
        "build.directories[1]: a is named twice"
    ]),
    "link out of it": (IMAGE + 'links = {"/a" = "b"}', [f"build.links['/a']: {BELOW} '/a'"]),
    "link to nothing": (IMAGE + 'links = {a = ""}', ["build.links.a: expected a text that is not empty, got ''"]),
    "link over a folder": (IMAGE + 'links = {a = "b"}\ndirectories = [{path = "a/c"}]', [
        "build.links.a: is in the way of a/c"
    ]),
    "applets out of it": (IMAGE + 'applets = "/bin"', [f"build.applets: {PATH} '/bin'"]),
    "applets of nothing": (IMAGE + 'applets = ""', [f"build.applets: {PATH} ''"]),
    "output out of it": (C + 'sources = ["x.c"]\noutput = "../../x"', [f"build.output: {BELOW} '../../x'"]),
    "absolute output": (C + 'sources = ["x.c"]\noutput = "/x"', [f"build.output: {BELOW} '/x'"]),
    "headers from elsewhere": (C + 'sources = ["x.c"]\noutput = "x"\nheaders = ["/etc/hostname"]', [
        f"build.headers[0]: {BELOW} '/etc/hostname'"
    ]),
    "headers of one name": (C + 'sources = ["x.c"]\noutput = "x"\nheaders = ["a/x.h", "b/x.h"]', [
        "build.headers[1]: x.h is the name of a/x.h, too"
    ]),
    "no source": (C + 'sources = []\noutput = "x"', ["build.sources: expected at least one item, got an array"]),
    "sources from elsewhere": (C + 'sources = ["/etc/*.c", "", "a**"]\noutput = "x"', [
        "build.sources[0]: expected a pattern of relative paths without .., got '/etc/*.c'",
        "build.sources[1]: expected a pattern of relative paths without .., got ''",
        "build.sources[2]: expected a pattern of relative paths without .., got 'a**'",
    ]),
    "NUL": (C + r'sources = ["\u0000"]' + '\noutput = "x"', [
        r"build.sources[0]: expected a string without NUL and surrogates, got '\x00'"
    ]),
    "macro's name": (C + 'sources = ["x.c"]\noutput = "x"\ndefine = {"A B" = "1"}', [
        "build.define['A B']: expected a name of letters, digits and _, got 'A B'"
    ]),
    "executable elsewhere": (TREE + 'executable = ["/x"]', [
        "build.executable[0]: expected a pattern of relative paths without .., got '/x'"
    ]),
    "rename to nothing": (TREE + 'rename = {"x.c" = ""}', [
        "build.rename['x.c']: expected the name of a file, got ''"
    ]),
    "go for nothing": (GO, ["build.packages: missing: a go recipe builds packages or runs the tests of some"]),
    "skip without test": (GO + 'packages = ["."]\nskip = ["TestX"]', [
        "build.skip: there is no test to skip tests of"
    ]),
    "names out of it": (GO + 'packages = ["."]\nnames = {d = "../../../y"}', [
        "build.names.d: expected the name of a file, got '../../../y'"
    ]),
    "one name twice": (GO + 'packages = ["."]\nnames = {a = "c", b = "c"}', [
        "build.names: two programs get one name"
    ]),
    "libraries without cgo": (GO + 'packages = ["."]\nlibraries = ["zig"]', [
        "build.libraries: only cgo = true links libraries"
    ]),
    "a package that is an option": (GO + 'packages = ["-o/x"]', [
        "build.packages[0]: expected a word without blanks, got '-o/x'"
    ]),
    "a tag with a comma": (GO + 'packages = ["."]\ntags = ["a,b"]', [
        "build.tags[0]: expected a build tag, got 'a,b'"
    ]),
    "a module elsewhere": (GO + 'packages = ["."]\npatches = [{file = "a.patch", module = "../x"}]', [
        "build.patches[0].module: expected the path of a Go module, got '../x'"
    ]),
    "a patch elsewhere": (TREE + 'patches = ["../x.patch"]', [
        "build.patches[0]: expected the name of a .patch file, got '../x.patch'"
    ]),
    "environment": (IMAGE + 'env = ["PATH"]', ["build.env[0]: expected NAME=VALUE, got 'PATH'"]),
    "working folder": (IMAGE + 'workdir = "tmp"', ["build.workdir: expected an absolute path, got 'tmp'"]),
    "no kind": (LOCAL, [
        "build.kind: expected one of tree, go, c, image, layout, content, rootfs, bundle, packed, wheel, tar, run, "
        "got ''"
    ]),
    "a kind that is a number": (LOCAL + "kind = 3", [
        "build.kind: expected one of tree, go, c, image, layout, content, rootfs, bundle, packed, wheel, tar, run, "
        "got 3"
    ]),
    "a tag twice": (GO + 'packages = ["."]\ntags = ["a", "a"]', ["build.tags: holds 'a' twice"]),
    "no build": (HEAD, ["build: missing key"]),
    "a build that is a word": (HEAD + 'build = "go"', ["build: expected a table, got 'go'"]),
    "no description": (TREE.removeprefix(HEAD), ["description: missing key"]),
    "two lines": (TREE.replace("Words.", r"a\nb"), [
        r"description: expected one line of at most 120 characters, got 'a\nb'"
    ]),
    "no source where one is needed": (HEAD + '[build]\nkind = "tree"', [
        "source: missing key: builder tree needs a source"
    ]),
    "a source too many": (LOCAL + 'kind = "bundle"\nrootfs = "zig"', [
        "source: builder bundle composes other outputs and takes no source"
    ]),
    "mirrors of nothing": (HEAD + 'mirrors = ["https://example.org/x"]\n[build]\nkind = "bundle"\nrootfs = "zig"', [
        "mirrors: there is no source that they are of"
    ]),
    "a long number": (TREE + f"executable = 0x{'f' * 20000}", [
        "build.executable: expected an array, got a number of more than 64 bits"
    ]),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_told_before_any_work(tmp_path: Path, what: str) -> None:
    text, wanted = WRONG[what]
    write(tmp_path, t=text, **TOOLS)
    assert problems(tmp_path) == [f"recipes/t.toml: {each}" for each in wanted]


SOURCES = {
    "url:": "'' is no address of a file, such as https://example.org/name.tar.gz",
    "url:file:///etc/passwd": "'file:///etc/passwd' is no address of a file, such as https://example.org/name.tar.gz",
    "url:https://[x/y": "'https://[x/y' is no address of a file, such as https://example.org/name.tar.gz",
    "url:https://example.org/": "'https://example.org/' does not end in a file name",
    "local:": "a local source is a folder of this repository, got ''",
    "local:../x": "a local source is a folder of this repository, got '../x'",
    "local:.": "a local source is a folder of this repository, got '.'",
    "local:outputs/result": "outputs/result is in what Sandkube itself makes",
    "local:native/y": "no such folder native/y",
    "local:native/out": "native/out is a link that leads out of this repository",
    "go:../x@v1.0.0": "'../x' at 'v1.0.0' is no Go module with a version such as v1.2.3",
    "go:example.org/x@latest": "'example.org/x' at 'latest' is no Go module with a version such as v1.2.3",
    "pypi:x --index-url y@1": "'x --index-url y' is no project's name",
    "pypi:x@1 --hash=z": "'1 --hash=z' is no version of a project",
    "deb:X@1": "'X' is no name of a Debian package",
    "deb:src:xy@a b": "'a b' is no version of a Debian package",
    "git:--upload-pack=x@0123456789012345678901234567890123456789": (
        "'--upload-pack=x' is no address of a git repository, such as https://example.org/name.git"
    ),
    "git:ext::sh@0123456789012345678901234567890123456789": (
        "'ext::sh' is no address of a git repository, such as https://example.org/name.git"
    ),
}


@pytest.mark.parametrize("source", SOURCES)
def test_sources_of_nothing_and_of_elsewhere(tmp_path: Path, source: str) -> None:
    write(tmp_path, t=TREE.replace("local:native/x", source))
    (tmp_path / "native/out").symlink_to("/etc")
    assert problems(tmp_path) == [f"recipes/t.toml: source: {SOURCES[source]}"]


def test_cycle(tmp_path: Path) -> None:
    text = ROOTFS + 'install = [{from = "%s", path = ".", to = "."}]\n'
    write(tmp_path, a=text % "b", b=text % "a")
    assert problems(tmp_path) == ["recipes/a.toml: cycle: a -> b -> a"]


def test_unknown_input_gets_a_suggestion(tmp_path: Path) -> None:
    write(tmp_path, rootfs=ROOTFS + "install = []\n", bundle=HEAD + '[build]\nkind = "bundle"\nrootfs = "rootsf"\n')
    assert problems(tmp_path) == ["recipes/bundle.toml: build.rootfs: unknown input 'rootsf' (did you mean rootfs?)"]


def test_parse(tmp_path: Path) -> None:
    write(tmp_path, t=HEAD + 'source = "deb:src:libseccomp@2.5.4-1"\n[build]\nkind = "tree"\n')
    found = recipe.load(tmp_path)["t"]
    assert found.source == Source("deb", "src:libseccomp", "2.5.4-1")
    assert str(found.source) == "deb:src:libseccomp@2.5.4-1"
    assert found.description == "Words."


def test_files_that_are_none(tmp_path: Path) -> None:
    """A dangling link, a folder, a link to itself, no UTF-8, no TOML: a sentence each."""
    write(tmp_path, t=TREE, bad="= 1", deep=f"{HEAD}a = {'[' * 9000}")
    folder = tmp_path / "recipes"
    (folder / "dangling.toml").symlink_to("nowhere")
    (folder / "folder.toml").mkdir()
    (folder / "loop.toml").symlink_to("loop.toml")
    (folder / "latin.toml").write_bytes(b'a = "\xe9"')
    (folder / "T.toml").write_text(TREE)
    found = [each.replace("recipes/", "") for each in problems(tmp_path)]
    assert [each for each in found if not each.startswith(("latin", "bad"))] == [
        "T.toml: expected a recipe's name, of a-z, 0-9 and inner hyphens, got 'T' in the file's name",
        "dangling.toml: the file is a link that leads nowhere",
        "deep.toml: not valid TOML: nested too deeply",
        "folder.toml: the file is a folder; a file is expected",
        "loop.toml: the file cannot be read: Too many levels of symbolic links",
        "t.toml: duplicate name: T.toml is the same product",
    ]
    for name in ("bad", "latin"):
        assert [each for each in found if each.startswith(f"{name}.toml: not valid TOML: ")]


def test_an_editors_lock_is_no_recipe(tmp_path: Path) -> None:
    write(tmp_path, t=TREE)
    (tmp_path / "recipes/.#t.toml").symlink_to("user@host.1234:5678")
    assert list(recipe.load(tmp_path)) == ["t"]


def test_what_nothing_reads_is_told(tmp_path: Path) -> None:
    write(tmp_path, t=TREE + 'patches = ["1.patch"]\n')
    for name in ("patches/t/1.patch", "patches/t/2.patch", "patches/gone/1.patch", "patches/t/2.patch~"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("x.tml", "t.toml~", ".t.toml.swp", "#t.toml#"):
        (tmp_path / "recipes" / name).touch()
    assert recipe.unused(tmp_path, recipe.load(tmp_path)) == [
        "recipes/x.tml: is no recipe: their names end in .toml",
        "patches/gone/1.patch: is not used: there is no recipe gone",
        "patches/t/2.patch: is not used: recipes/t.toml does not list it",
    ]


def test_patches_of_another_recipe(tmp_path: Path) -> None:
    """Those that a recipe's own folder has not; nothing else of that other recipe."""
    listed = 'patches = ["1.patch", "2.patch"]\n'
    write(tmp_path, one=TREE + listed, other='patches_of = "one"\n' + TREE + listed)
    for name in ("one/1.patch", "one/2.patch", "other/2.patch"):
        (tmp_path / "patches" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "patches" / name).write_text(name)
    recipes = recipe.load(tmp_path)
    paths = [recipes["other"].patch_path(tmp_path, each) for each in recipes["other"].patches]
    assert [path.read_text() for path in paths] == ["one/1.patch", "other/2.patch"]
    assert recipe.unused(tmp_path, recipes) == []
    (tmp_path / "patches/one/1.patch").unlink()
    assert problems(tmp_path) == [
        "recipes/one.toml: build.patches[0]: no such file patches/one/1.patch (did you mean 2.patch?)",
        "recipes/other.toml: build.patches[0]: no such file patches/one/1.patch (did you mean 2.patch?)",
    ]
    (tmp_path / "recipes/other.toml").write_text('patches_of = "gone"\n' + TREE)
    (tmp_path / "recipes/one.toml").write_text(TREE)
    assert problems(tmp_path) == ["recipes/other.toml: patches_of: no such folder patches/gone"]


def test_names_with_control_characters_break_no_line(tmp_path: Path) -> None:
    """Of recipes and patches, whether they are used or not, there or not."""
    write(tmp_path, t=TREE + r'patches = ["a\nb.patch", "no.patch"]', **{"x\ny": TREE, "X\nY": TREE})
    (tmp_path / "recipes/x\r").touch()
    (tmp_path / "patches/t").mkdir(parents=True)
    (tmp_path / "patches/g\nh").mkdir()
    for name in ("t/a\nb.patch", "t/n\no.patch", "g\nh/c"):
        (tmp_path / "patches" / name).touch()
    name = r"expected a recipe's name, of a-z, 0-9 and inner hyphens, got '%s' in the file's name"
    assert problems(tmp_path) == [
        r"recipes/X\nY.toml: " + name % r"X\nY",
        r"recipes/t.toml: build.patches[0]: expected a name without control characters, got 'a\nb.patch'",
        r"recipes/t.toml: build.patches[1]: no such file patches/t/no.patch (did you mean n\no.patch?)",
        r"recipes/x\ny.toml: duplicate name: recipes/X\nY.toml is the same product",
        r"recipes/x\ny.toml: " + name % r"x\ny",
    ]
    assert recipe.unused(tmp_path, {}) == [
        r"recipes/x\r: is no recipe: their names end in .toml",
        r"patches/g\nh/c: is not used: there is no recipe g\nh",
        r"patches/t/a\nb.patch: is not used: there is no recipe t",
        r"patches/t/n\no.patch: is not used: there is no recipe t",
    ]


def test_an_optional_recipe_is_made_when_somebody_names_it(tmp_path: Path) -> None:
    one = project(tmp_path)
    loaded = plan.load(one)
    assert loaded.recipes["archive"].optional
    assert "archive" not in plan.choose(loaded, [])
    assert plan.choose(loaded, ["archive"]) == ("archive",)
    assert set(plan.choose(loaded, [])) == {name for name in loaded.recipes if name != "archive"}

"""Builders on the host: what a recipe or an input cannot be is a sentence with its key; no link is followed."""

from __future__ import annotations

import io
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from sandkube.build import builders
from sandkube.build.box import OUT, SRC, Call
from sandkube.build.builders import Job
from sandkube.build.builders.bundle import Bundle
from sandkube.build.builders.c import C
from sandkube.build.builders.compose import Directory, Install
from sandkube.build.builders.content import Content
from sandkube.build.builders.elf import check_programs
from sandkube.build.builders.go import Go
from sandkube.build.builders.image import Image
from sandkube.build.builders.rootfs import Rootfs
from sandkube.build.builders.tree import Tree
from sandkube.errors import StepFailed, UserError
from sandkube.run import Finished
from sandkube.tree import Refused, copy
from tests.unit.test_tree import trace


@dataclass(frozen=True, slots=True)
class Listed:
    """Runs nothing: lists the commands, says what it is told to say, and leaves files where a compiler would."""

    says: bytes = b""
    leaves: Sequence[str] = ()
    commands: list[Sequence[str]] = field(default_factory=list)

    def run(self, call: Call, **_settings: object) -> Finished:
        """Note the command."""
        self.commands.append(call.command)
        for mount in call.mounts:
            if mount.inside == OUT:
                for name in self.leaves:
                    (mount.host / name).touch()
        return Finished(tuple(call.command), 0, self.says)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    """A folder of the machine's that no builder may read or touch."""
    folder = tmp_path / "host"
    (folder / "bin").mkdir(parents=True)
    (folder / "secret").write_text("of the host")
    (folder / "bin/tool").write_text("of the host")
    (folder / "bin/tool").chmod(0o4711)
    before = trace(folder)
    yield folder
    assert trace(folder) == before


def job_in(folder: Path, host: Path) -> Job:
    """A step in a folder, whose source and inputs hold links to `host`."""
    for name in ("src", "out", "work", "cache", "base/dir", "zig", "go", "busybox/bin", "zstd/bin"):
        (folder / name).mkdir(parents=True)
    for each in (folder / "src", folder / "base"):
        (each / "x.c").write_text("int x;")
        (each / "conf").symlink_to(host / "secret")
        (each / "bin").symlink_to(host / "bin")
    (folder / "base/dir/run").write_text("#!")
    (folder / "base/dir/run").chmod(0o555)
    (folder / "base/dir").chmod(0o555)
    (folder / "busybox/bin/busybox").write_text("#!")
    (folder / "zstd/bin/zstd").write_text("#!")
    return Job(
        name="x",
        inputs={each: folder / each for each in ("base", "zig", "go", "busybox", "zstd")},
        modules=(),
        module_patches=(),
        box=Listed(),
        log=io.BytesIO(),
        src=folder / "src",
        out=folder / "out",
        work=folder / "work",
        cache=folder / "cache",
    )


@pytest.fixture
def job(tmp_path: Path, host: Path) -> Job:
    """A step whose source and inputs hold links to `host`."""
    return job_in(tmp_path, host)


def build(job: Job, options: Any) -> dict[str, str]:
    """What a builder makes: text, `-> aim`, or nothing for a folder; a star for what can be executed."""
    builders.KINDS[type(options).__name__.lower()].build(job, options)
    found = {}
    for each in sorted(job.out.rglob("*")):
        status = each.lstat()
        name = str(each.relative_to(job.out))
        if stat.S_ISLNK(status.st_mode):
            found[name] = f"-> {each.readlink()}"
        elif stat.S_ISDIR(status.st_mode):
            found[name] = ""
        else:
            found[name + ("*" if status.st_mode & stat.S_IXUSR else "")] = each.read_text()
    return found


def test_compose(job: Job, host: Path) -> None:
    install = (Install("base", "dir", "."), Install("base", ".", "all"), Install("base", "x.c", "usr/y.c"))
    listed = Listed(says=b"cat\nls\n")
    options = Rootfs(install, (Directory("tmp", "1777"),), {"etc/mtab": "/proc/mounts"}, applets="sbin")
    assert build(replace(job, box=listed), options) == {
        "all": "",
        "all/bin": f"-> {host}/bin",
        "all/conf": f"-> {host}/secret",
        "all/dir": "",
        "all/dir/run*": "#!",
        "all/x.c": "int x;",
        "etc": "",
        "etc/mtab": "-> /proc/mounts",
        "run*": "#!",
        "sbin": "",
        "sbin/busybox": "#!",
        "sbin/cat": "-> busybox",
        "sbin/ls": "-> busybox",
        "tmp": "",
        "usr": "",
        "usr/y.c": "int x;",
    }


def test_bundle_and_tree(job: Job, host: Path) -> None:
    assert build(job, Bundle("base"))["rootfs"] == f"-> ../{job.inputs['base'].name}"
    (job.src / "d").mkdir()
    (job.src / "d/x.c").write_text("other")
    found = build(replace(job, out=job.work), Tree(executable=("**/y.c",), rename={"x.c": "y.c"}))
    assert found == {"bin": f"-> {host}/bin", "conf": f"-> {host}/secret", "d": "", "d/y.c*": "other", "y.c*": "int x;"}


def test_c(job: Job) -> None:
    """Each source has an object of its own, and no file's name is an option."""
    (job.src / "foo").mkdir()
    for name in ("foo/bar.c", "foo_bar.c", "foo_bar.c1.o", "-o.c", "a b.c", "x.h"):
        (job.src / name).write_text(name)
    listed = Listed()
    options = C(("**/*.c",), "lib/x.a", headers=("x.h",))
    assert build(replace(job, box=listed), options) == {"include": "", "include/x.h": "x.h", "lib": ""}
    *compiled, archived = listed.commands
    pairs = [(each[each.index("-c") + 1], each[-1]) for each in compiled]
    assert pairs == [
        ("./-o.c", "./-o.c.o"),
        ("a b.c", "a b.c.o"),
        ("foo/bar.c", "foo_bar.c.o"),
        ("foo_bar.c", "foo_bar.c2.o"),
        ("x.c", "x.c.o"),
    ]
    assert archived[3:] == (f"{OUT}/lib/x.a", *(target for _, target in pairs))
    build(replace(job, box=listed, out=job.work), C(("*.c",), "bin/x"))
    assert listed.commands[-1][-9:-3] == ("./-o.c", "a b.c", "foo_bar.c", "x.c", "-static", "-s")


def test_links_of_a_source_are_compiled_in_the_sandbox(job: Job) -> None:
    (job.src / "twin.c").symlink_to("x.c")
    listed = Listed()
    build(replace(job, box=listed), C(("twin.c",), "x.a"))
    assert "twin.c" in listed.commands[0]


def image(**options: Any) -> Image:
    return Image("n", (), **options)


def installed(path: str, to: str, mode: str = "") -> Rootfs:
    return Rootfs((Install("base", path, to, mode),))


INSIDE = "expected a path inside the output, got"
SAID: list[tuple[Any, str]] = [
    (installed("conf", "etc/conf"), "install[0].path: 'conf' is a link to 'HOST/secret'; install that"),
    (installed("bin", "bin"), "install[0].path: 'bin' is a link to 'HOST/bin'; install that"),
    (installed("bin/tool", "tool"), "install[0].path: 'bin' is a symbolic link, not a folder"),
    (installed("none", "x"), "install[0].path: no such file 'none' in that input"),
    (installed("/x.c", "x"), f"install[0].path: {INSIDE} '/x.c'"),
    (installed("x.c", "../x"), f"install[0].to: {INSIDE} '../x'"),
    (installed("x.c", "a\0b"), f"install[0].to: {INSIDE} 'a\\x00b'"),
    (installed("x.c", "x", "rwxr-xr-x"), "install[0].mode: expected a mode such as 0755, got 'rwxr-xr-x'"),
    (installed("x.c", "x", "9"), "install[0].mode: expected a mode such as 0755, got '9'"),
    (Rootfs((Install("base", ".", "."), Install("base", "x.c", "bin/written"))), "install[1].to: 'bin' is a symbolic "),
    (Rootfs((Install("base", ".", "."), Install("base", "x.c", "conf"))), "install[1].to: 'conf' is there already"),
    (Rootfs((Install("base", "x.c", "a"), Install("base", "x.c", "a"))), "install[1].to: 'a' is there already"),
    (
        Rootfs((Install("base", "x.c", "a"), Install("base", "x.c", "a/b"))),
        "install[1].to: 'a' is a file, not a folder",
    ),
    (Rootfs((), (Directory("a", "rwx"),)), "directories[0].mode: expected a mode such as 0755, got 'rwx'"),
    (Rootfs((), (Directory("/a"),)), f"directories[0].path: {INSIDE} '/a'"),
    (Rootfs((Install("base", ".", "."),), (Directory("bin/a"),)), "directories[0]: 'bin' is a symbolic link, not a "),
    (Rootfs((Install("base", ".", "."),), links={"dir": "x"}), "links.dir: 'dir' is there already"),
    (Rootfs((Install("base", ".", "."),), links={"x.c/l": "x"}), "links.x.c/l: 'x.c' is a file, not a folder"),
    (Rootfs((), links={"../l": "x"}), f"links.../l: {INSIDE} '../l'"),
    (Rootfs((), links={"l": ""}), "links.l: the link 'l' cannot point to ''"),
    (Rootfs((), links={"l": "\0"}), "links.l: the link 'l' cannot point to '\\x00'"),
    (Rootfs((), applets="/bin"), f"applets: {INSIDE} '/bin'"),
    (Rootfs((Install("base", ".", "."),), applets="bin"), "applets: 'bin' is a symbolic link, not a folder"),
    (image(directories=(Directory("a", "0o7777"),)), "directories[0].mode: expected a mode such as 0755, got '0o7777'"),
    (Tree(executable=("bin/*",)), "executable[0]: 'bin/*' matches nothing"),
    (Tree(executable=("conf",)), "executable[0]: 'conf' matches nothing"),
    (Tree(executable=("/x",)), "executable[0]: '/x' leaves its folder"),
    (Tree(executable=("a\0",)), "executable[0]: 'a\\x00' holds a NUL"),
    (Tree(rename={"x.c": ""}), "rename.x.c: '' is no name for a file"),
    (Tree(rename={"x.c": "../x"}), "rename.x.c: '../x' is no name for a file"),
    (Tree(rename={"/x": "y"}), "rename./x: '/x' is no name for a file"),
    (Tree(rename={"x.c": "conf"}), "rename.x.c: 'conf' is there already"),
    (Tree(rename={"none": "y"}), "rename: no file of the source is called none"),
    (C(("*.c",), "../x.a"), f"output: {INSIDE} '../x.a'"),
    (C(("*.c",), "/absolute/x.a"), f"output: {INSIDE} '/absolute/x.a'"),
    (C(("*.c",), ""), "output: '' is no name for a file"),
    (C(("/etc/*.c",), "x.a"), "sources[0]: '/etc/*.c' leaves its folder"),
    (C(("",), "x.a"), "sources[0]: '' matches nothing"),
    (C(("bin/*",), "x.a"), "sources[0]: 'bin/*' matches nothing"),
    (C(("*.c",), "x.a", headers=("conf",)), "headers[0]: 'conf' is a symbolic link, not a file"),
    (C(("*.c",), "x.a", headers=("/etc/hostname",)), "headers[0]: '/etc/hostname' leaves its folder"),
    (C(("*.c",), "x.a", headers=("bin/tool",)), "headers[0]: 'bin' is a symbolic link, not a folder"),
    (C(("*.c",), "x.a", headers=("nosuch.h",)), "headers[0]: there is no file 'nosuch.h'"),
    (C(("*.c",), "x.a", headers=("x.c", "x.c")), "headers[1]: 'include/x.c' is there already"),
    (Go(("./d",), names={"d": "../../y"}), "names.d: '../../y' is no name for a file"),
    (Go(("./d",), names={"d": "/y"}), "names.d: '/y' is no name for a file"),
    (Go(("./d",), names={"typo": "x"}), "names.typo: no program typo was built; what was: d, e"),
    (Go(("./d",), names={"d": "e"}), "names.d: 'bin/e' is there already"),
    (Content(("base",)), "images[0]: there is no file 'index.json'"),
]


@pytest.mark.parametrize(("options", "text"), SAID, ids=[text[:60].replace("\0", "0") for _, text in SAID])
def test_said(options: Any, text: str, job: Job, host: Path) -> None:
    listed = Listed(leaves=("bin/d", "bin/e") if isinstance(options, Go) else ())
    with pytest.raises(UserError) as failure:
        build(replace(job, box=listed), options)
    wanted = f"recipes/x.toml: build.{text.replace('HOST', str(host))}"
    assert failure.value.message == wanted or (text.endswith(" ") and failure.value.message.startswith(wanted))
    early = "inside the output" in text or "a mode such as" in text or "no name" in text
    assert not (early and (listed.commands or any(job.out.iterdir())))


def test_a_source_without_a_name_that_can_be_printed(job: Job) -> None:
    (job.src / "caf\udce9.c").touch()
    with pytest.raises(UserError, match=r"^recipes/x.toml: build.sources\[0\]: cannot compile 'caf\\udce9.c': "):
        build(job, C(("*.c",), "x.a"))


@pytest.mark.parametrize("text", ["", "{}", '{"manifests": []}', '{"manifests": [{"annotations": 1}]}'])
def test_an_input_that_is_no_image(text: str, job: Job) -> None:
    (job.inputs["base"] / "index.json").write_text(text)
    with pytest.raises(UserError) as failure:
        build(job, Content(("base",)))
    assert failure.value.message == "recipes/x.toml: build.images[0]: base is no image: its index.json names none"


def test_vendor_of_a_source_goes_and_what_a_link_there_names_stays(job: Job, host: Path) -> None:
    (job.src / "vendor").symlink_to(host / "bin")
    build(replace(job, box=Listed()), Go(("./d",)))
    assert not (job.src / "vendor").is_symlink()


ELF = b"\x7fELF"


@pytest.mark.parametrize("data", [ELF, ELF + b"\2\1\1" + bytes(9), ELF + bytes(200), ELF + b"\2\1\1" + b"\xff" * 60])
def test_an_elf_file_that_is_none_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/broken").write_bytes(data)
    with pytest.raises(StepFailed, match=r"^the output was refused:\n  bin/broken: "):
        check_programs(tmp_path, forbidden=[SRC])


def test_a_folder_is_not_copied_into_itself(tmp_path: Path) -> None:
    (tmp_path / "outputs/staging").mkdir(parents=True)
    (tmp_path / "a").touch()
    with pytest.raises(
        Refused, match=r"^'outputs/staging' is where the copy goes: a folder cannot be copied into itself$"
    ):
        copy(tmp_path, ".", tmp_path / "outputs/staging")

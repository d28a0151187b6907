"""A kind is one module and one line: a made-up source kind and a made-up builder kind go through all of the engine."""

from __future__ import annotations

import shutil
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sandkube.build import builders, lock, plan, resolve, sources, spec
from sandkube.build.builders import BuilderKind, Job
from sandkube.build.builders.bundle import Bundle
from sandkube.build.builders.c import C
from sandkube.build.builders.compose import Install
from sandkube.build.builders.content import Content
from sandkube.build.builders.go import Go
from sandkube.build.builders.image import Image
from sandkube.build.builders.layout import Layout
from sandkube.build.builders.packed import Packed
from sandkube.build.builders.rootfs import Rootfs
from sandkube.build.builders.run import Program, Run
from sandkube.build.builders.tar import Tar
from sandkube.build.builders.tree import Tree
from sandkube.build.builders.wheel import Wheel
from sandkube.build.lock import File, Pin
from sandkube.build.places import Places
from sandkube.build.realise import Realiser
from sandkube.build.sources import Ask, Source, SourceKind, blobs
from sandkube.build.store import Store
from sandkube.digest import sha256_bytes
from sandkube.errors import Problems, UserError
from sandkube.nar import nar_hash
from sandkube.tree import walk
from tests.image_maker import Made, layer, layout, write
from tests.servers import only_loopback
from tests.unit.test_archive import SOUND, deb, zipped
from tests.unit.test_builders import Listed, job_in
from tests.unit.test_go_patches import module
from tests.unit.test_tree import trace


def _identity(ask: Ask) -> str:
    return f"words:{ask.pin.files[0].sha256}"


def _snapshot(ask: Ask, into: Path) -> str:
    (into / "words").write_text(ask.source.name * int(ask.source.version))
    return _identity(ask)


def _resolve(ask: Ask) -> Pin:
    text = ask.source.name * int(ask.source.version)
    return Pin("", files=(File("words", sha256_bytes(text.encode()), len(text)),))


WORDS = SourceKind(
    identity=_identity,
    resolve=_resolve,
    fetch=lambda _: None,
    snapshot=_snapshot,
    code=("errors",),
    versions=lambda _: ["1", "2", "3"],
    check=lambda source: "" if source.version.isdecimal() else f"a number of times is wanted, got {source.version!r}",
)


@dataclass(frozen=True, slots=True)
class Louder:
    """The options of the made-up builder."""

    of: str = ""
    times: int = 1


def _louder(job: Job, options: Louder) -> None:
    origin = job.inputs[options.of] / "words" if options.of else job.src / "words"
    (job.out / "words").write_text(origin.read_text().upper() + "!" * options.times)


def _inputs(options: Louder) -> Mapping[str, str]:
    return {options.of: "build.of"} if options.of else {}


@pytest.fixture(autouse=True)
def _kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line that each takes."""
    monkeypatch.setitem(sources.KINDS, "words", WORDS)
    monkeypatch.setitem(builders.KINDS, "louder", BuilderKind(Louder, _louder, ("errors",), _inputs, boxed=False))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/words.toml").write_text(
        'description = "x"\nsource = "words:ab@2"\n[build]\nkind = "louder"\ntimes = 3\n'
    )
    relock(tmp_path)
    return tmp_path


def relock(root: Path) -> None:
    one = plan.load(root)
    pins = resolve.resolve(one.recipes, one.lock, root, root / "cache", again=(), go_client=lambda _: root)
    (root / "lock.json").write_text(lock.encode(pins))


def made(root: Path) -> str:
    one = plan.load(root)
    assert spec.check(one.recipes, one.lock, root) == []
    realiser = Realiser(one, Places(root, root / "outputs", root / "cache"), Store(root / "outputs/store"))
    realiser.realise("words")
    return (realiser.output("words") / "words").read_text()


def test_made_up_kinds_are_pinned_and_built(root: Path) -> None:
    assert made(root) == "ABAB!!!"


def test_a_made_up_kind_is_upgraded(root: Path) -> None:
    one = plan.load(root)
    resolve.upgrade(one.recipes, one.lock, "words", "", root, root / "cache", go=lambda: root)
    relock(root)
    assert made(root) == "ABABAB!!!"


def test_options_and_names_of_made_up_kinds_are_checked(root: Path) -> None:
    (root / "recipes/words.toml").write_text(
        'description = "x"\nsource = "words:ab@x"\n[build]\nkind = "louder"\ntimse = 3\n'
    )
    with pytest.raises(Problems) as caught:
        plan.load(root)
    assert caught.value.problems == (
        "recipes/words.toml: build.timse: unknown key (did you mean times?)",
        "recipes/words.toml: source: a number of times is wanted, got 'x'",
    )


@pytest.mark.parametrize("kind", sources.KINDS)
def test_every_source_kind_is_written_and_read(kind: str) -> None:
    record = sources.KINDS[kind]
    versions = {"git": "0" * 40, "words": "2", "go": "v1.2.3", "oci": f"sha256:{'0' * 64}"}
    names = {"url": "https://example.org/b", "pypi": "ab", "deb": "ab", "oci": "example.org/a/b:1"}
    source = Source(kind, names.get(kind, "a/b"), versions.get(kind, "1.2") if record.versioned else "")
    assert sources.parse(str(source)) == source
    if record.versioned:
        with pytest.raises(ValueError, match=f"expected {kind}:NAME@VERSION"):
            sources.parse(f"{kind}:a/b")
    if not record.mirrors:
        with pytest.raises(ValueError, match="mirrors go with"):
            sources.parse(str(source), ("https://example.org",))


def in_cache(cache: Path, name: str, content: bytes) -> tuple[Pin, Path]:
    """The pin of a file that the cache has, and where it stands."""
    got = cache.with_name(name)
    got.write_bytes(content)
    sha256 = blobs.put(cache, got)
    return Pin("", files=(File(name, sha256, len(content)),)), blobs.path_of(cache, sha256)


def of_git(root: Path, cache: Path) -> tuple[Source, Pin, Path]:
    """A repository beside the checkout, in the cache with its one commit; a file of its objects there."""
    work = root.with_name("repository")
    (work / "bin").mkdir(parents=True)
    (work / "bin/run").write_text("#!/bin/sh\n" * 100)
    (work / "bin/run").chmod(0o755)
    who = ("-c", "user.name=A", "-c", "user.email=a@b", "-c", "commit.gpgSign=false")
    for words in (["init", "--quiet"], ["add", "--all"], [*who, "commit", "--quiet", "--message", "one"]):
        subprocess.run(["git", *words], cwd=work, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=work, check=True, capture_output=True, text=True)
    source = Source("git", f"file://{work}", head.stdout.strip())
    pin = sources.KINDS["git"].resolve(Ask("one", source, Pin(""), root, cache))
    objects = [each for each in cache.glob("git/*/objects/*/*") if each.suffix in (".pack", "")]
    return source, pin, max(objects, key=lambda each: each.stat().st_size)


def held(kind: str, root: Path, cache: Path) -> tuple[Ask, Path]:
    """What a kind is asked for, with all of it at hand, and a file in which bytes of it stand."""
    match kind:
        case "url":
            source, (pin, path) = Source("url", "http://127.0.0.1:9/x.tar"), in_cache(cache, "x.tar", SOUND)
        case "pypi":
            content = zipped(("a/run", b"#!", 0o755), ("a/b", b"text", 0o600))
            source, (pin, path) = Source("pypi", "a", "1"), in_cache(cache, "a-1-py3-none-any.whl", content)
        case "deb":
            content = deb((b"debian-binary", b"2.0\n"), (b"data.tar", SOUND))
            source, (pin, path) = Source("deb", "a", "1"), in_cache(cache, "a_1_amd64.deb", content)
        case "go":
            one = module(cache, "example.org/a", "v1.0.0")
            source, pin = Source("go", one.path, one.version), Pin("", h1=one.zip or "", mod=one.mod)
            path = cache / "gomod/example.org/a@v1.0.0/a.go"
        case "git":
            source, pin, path = of_git(root, cache)
        case "oci":
            made = Made([layer({"bin/a": b"a" * 100})])
            parts = zip(
                ("manifest.json", "config.json", "layer-1"), (made.manifest, made.config, *made.blobs), strict=True
            )
            pins, (*_, path) = zip(*(in_cache(cache, name, data) for name, data in parts), strict=True)
            source = Source("oci", "example.org/a:1", f"sha256:{pins[0].files[0].sha256}")
            pin = Pin("", files=tuple(file for each in pins for file in each.files))
        case "local":
            source, pin, path = Source("local", "native/a"), Pin(""), root / "native/a/run"
            path.parent.mkdir(parents=True)
            path.write_text("#!/bin/sh\n")
            path.chmod(0o700)
        case _:
            raise AssertionError(f"{kind}: a new kind of source goes here")
    return Ask("one", source, pin, root, cache, go_client=lambda: Path("/nonexistent/go")), path


REAL_SOURCES, REAL_BUILDERS = tuple(sources.KINDS), tuple(builders.KINDS)
"""The kinds without those that are made up here."""


@pytest.fixture
def asked(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Ask, Path]:
    only_loopback(monkeypatch, tmp_path / "home")
    (tmp_path / "root").mkdir()
    (tmp_path / "cache").mkdir()
    return held(request.param, tmp_path / "root", tmp_path / "cache")


def snapshot(ask: Ask, into: Path) -> str:
    into.mkdir()
    return sources.KINDS[ask.source.kind].snapshot(ask, into)


@pytest.mark.parametrize("asked", REAL_SOURCES, indirect=True)
def test_every_source_kind_keeps_its_word(asked: tuple[Ask, Path], tmp_path: Path) -> None:
    """Its identity is by content and writes nothing; what is at hand is not fetched; a snapshot is all it may be."""
    ask, _ = asked
    kind = sources.KINDS[ask.source.kind]
    before = trace(tmp_path)
    identity = kind.identity(ask)
    assert trace(tmp_path) == before
    shutil.copytree(ask.root, tmp_path / "elsewhere", symlinks=True)
    moved = replace(ask, recipe="other", root=tmp_path / "elsewhere", cache=tmp_path / "none")
    if kind.pinned:
        moved = replace(moved, source=replace(ask.source, name="other", version="9"), root=tmp_path / "none")
    assert kind.identity(moved) == identity
    kind.fetch(ask)
    assert snapshot(ask, tmp_path / "a") == snapshot(ask, tmp_path / "b") == identity
    assert nar_hash(tmp_path / "a") == nar_hash(tmp_path / "b")
    modes = {stat.S_IMODE(found.st_mode) for _, found in walk(tmp_path / "a") if not stat.S_ISLNK(found.st_mode)}
    assert modes <= {0o644, 0o755}
    assert [*walk(tmp_path / "a")]


@pytest.mark.parametrize("asked", REAL_SOURCES, indirect=True)
def test_no_source_kind_hands_out_a_changed_byte(asked: tuple[Ask, Path], tmp_path: Path) -> None:
    """It is refused, or it is another source; and a repository that is there is fetched anew."""
    ask, path = asked
    kind = sources.KINDS[ask.source.kind]
    identity = kind.identity(ask)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    if not kind.pinned:
        assert snapshot(ask, tmp_path / "a") == kind.identity(ask) != identity
        return
    with pytest.raises(UserError):
        snapshot(ask, tmp_path / "a")
    if ask.source.kind == "git":
        kind.fetch(ask)
        assert snapshot(ask, tmp_path / "b") == identity


@pytest.mark.parametrize("asked", REAL_SOURCES, indirect=True)
def test_every_byte_of_a_pin_counts(asked: tuple[Ask, Path]) -> None:
    ask, _ = asked
    kind = sources.KINDS[ask.source.kind]
    others = [
        replace(ask.pin, files=tuple(replace(each, sha256="0" * 64) for each in ask.pin.files)),
        replace(ask.pin, h1="h1:"),
        replace(ask.pin, tree="0" * 40),
    ]
    changed = [each for each in others if kind.identity(replace(ask, pin=each)) != kind.identity(ask)]
    assert len(changed) == bool(kind.pinned)


OPTIONS: Mapping[str, Any] = {
    "tree": Tree(executable=("x.c",)),
    "c": C(("*.c",), "lib/x.a", headers=("x.c",)),
    "go": Go(("./d",), names={"d": "e"}),
    "image": Image("example.local/a:1", (Install("base", ".", "all"),), links={"a": "b"}, applets="sbin"),
    "rootfs": Rootfs((Install("base", ".", "all"),), links={"a": "b"}, applets="sbin"),
    "layout": Layout("example.local/a:1"),
    "content": Content(("image",)),
    "bundle": Bundle("base"),
    "packed": Packed(("base",)),
    "tar": Tar("base", "base.tar"),
    "run": Run(Program("base", "bin/d"), ("--to", "/sandkube/out/d")),
    "wheel": Wheel("x", "1.0", "A package.", ("*.c",), "base", "x.main:main"),
}


def built(folder: Path, host: Path, kind: str) -> tuple[Job, Listed]:
    """A job in a folder of its own after it was done, and what it ran. Nothing but its output may be written.

    What runs in the build sandbox is told, not run; it would write to what is mounted as writable.
    """
    box = Listed(says=b"cat\n", leaves=("bin/d",) if kind == "go" else ())
    job = replace(job_in(folder, host), box=box)
    image = replace(job, out=folder / "image", work=folder / "image-work")
    for each in (image.out, image.work):
        each.mkdir()
    builders.KINDS["image"].build(image, OPTIONS["image"])
    job = replace(job, inputs={**job.inputs, "image": image.out})
    box.commands.clear()
    if kind == "layout":
        job = replace(job, src=write(folder / "layout", layout([Made([layer({"bin/a": b"a"})])])))
    kept = [host, *job.inputs.values()]
    before = [trace(each) for each in kept], sorted(path.name for path in folder.iterdir())
    builders.KINDS[kind].build(job, OPTIONS[kind])
    assert ([trace(each) for each in kept], sorted(path.name for path in folder.iterdir())) == before
    return job, box


@pytest.mark.parametrize("kind", REAL_BUILDERS)
def test_every_builder_kind_keeps_its_word(kind: str, tmp_path: Path) -> None:
    """The same job in two folders makes the same tree by the same commands, and writes nothing else."""
    host = tmp_path / "host"
    (host / "bin").mkdir(parents=True)
    (host / "secret").write_text("of the host")
    (one, first), (two, second) = (built(tmp_path / each, host, kind) for each in ("a", "b/ü deeper"))
    assert nar_hash(one.out) == nar_hash(two.out)
    assert [*walk(one.out)] or first.commands
    assert first.commands == second.commands
    assert builders.KINDS[kind].boxed >= bool(first.commands)


def test_a_version_of_what_has_none_is_refused(root: Path) -> None:
    (root / "native").mkdir()
    path = root / "recipes/words.toml"
    path.write_text('description = "x"\nsource = "local:native"\n[build]\nkind = "tree"\n')
    before, one = path.read_text(), plan.load(root)
    with pytest.raises(UserError, match=r"words: local:native has no version\n  hint: change source in recipes/words"):
        resolve.upgrade(one.recipes, one.lock, "words", "2", root, root / "cache", go=lambda: root)
    assert path.read_text() == before

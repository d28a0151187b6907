"""`oci:` sources: images of a registry on loopback, with what registries do wrong, and on to containerd's root."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandkube.build import builders, sources
from sandkube.build.builders.layout import Layout
from sandkube.build.lock import File, Pin
from sandkube.build.sources import Ask, Source, oci
from sandkube.build.sources.settings import Patience
from sandkube.errors import HashMismatch, UserError
from tests.clones import Clone
from tests.image_maker import Made, described, digest, index, layer, layout, write
from tests.registries import PASSWORD, USER, Registry, registry
from tests.servers import Cut, Reset, file_server, only_loopback
from tests.unit.test_builders import job_in

QUICK = Patience(attempts=3, stall=20.0, pause=0.01, total=60.0)
IMAGE = Made([layer({"bin/a": b"a" * 5000}), layer({"bin/b": b"b" * 70000})], packer="+gzip")
OTHER = Made([layer({"bin/c": b"c"})], platform="linux/arm64")
DIGEST = digest(IMAGE.manifest)


def stock(one: Registry, *images: Made) -> None:
    """Put images into a registry."""
    for each in images:
        one.manifests[digest(each.manifest)] = each.manifest
        one.blobs |= {digest(data): data for data in (*each.blobs, each.config)}


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Registry]:
    """A registry with two images and an index of both."""
    only_loopback(monkeypatch, tmp_path / "home")
    oci._registries.cache_clear()
    with registry() as one:
        stock(one, IMAGE, OTHER)
        yield one


def ask(one: Registry, cache: Path, wanted: str = DIGEST) -> Ask:
    """A recipe that asks for an image of it, pinned."""
    source = sources.parse(f"oci:127.0.0.1:{one.port}/team/app:1@{wanted}")
    made = Ask("image-app", source, Pin(""), cache / "root", cache)
    return replace(made, pin=oci.resolve(made, QUICK))


def found(of: Ask, into: Path) -> dict[str, Any]:
    """What a snapshot holds: its index, and its blobs by digest."""
    into.mkdir()
    assert sources.KINDS["oci"].snapshot(of, into) == sources.KINDS["oci"].identity(of)
    held = {f"sha256:{each.name}": each.read_bytes() for each in (into / "blobs/sha256").iterdir()}
    assert all(digest(data) == name for name, data in held.items())
    return {"index": json.loads((into / "index.json").read_text()), "blobs": held}


def test_each_blob_is_pinned_and_fetched(there: Registry, tmp_path: Path) -> None:
    one = ask(there, tmp_path)
    wanted = (IMAGE.manifest, IMAGE.config, *IMAGE.blobs)
    names = ("manifest.json", "config.json", "layer-1", "layer-2")
    assert one.pin.files == tuple(
        File(name, digest(data).removeprefix("sha256:"), len(data)) for name, data in zip(names, wanted, strict=True)
    )
    assert there.asked("GET", "blobs") == [], "to pin it takes no layers"
    oci.fetch(one, QUICK)
    made = found(one, tmp_path / "out")
    assert set(made["blobs"].values()) == {*wanted}
    assert [each["digest"] for each in made["index"]["manifests"]] == [DIGEST]
    before = len(there.seen)
    oci.fetch(one, QUICK)
    assert len(there.seen) == before, "what is there is not fetched again"


def test_an_index_stands_for_its_image_of_our_platform(there: Registry, tmp_path: Path) -> None:
    def entry(made: Made) -> dict[str, Any]:
        system, architecture = made.platform.split("/")
        platform = {"os": system, "architecture": architecture}
        return described(made.manifest, "application/vnd.oci.image.manifest.v1+json", platform=platform)

    both, others = index([entry(OTHER), entry(IMAGE)]), index([entry(OTHER)])
    there.manifests |= {digest(each): each for each in (both, others)}
    one = ask(there, tmp_path, digest(both))
    oci.fetch(one, QUICK)
    assert [each["digest"] for each in found(one, tmp_path / "out")["index"]["manifests"]] == [DIGEST]
    with pytest.raises(UserError, match="has nothing for linux/amd64; its platforms: linux/arm64$"):
        ask(there, tmp_path, digest(others))


def test_with_a_login(there: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there.wants = "bearer"
    with pytest.raises(UserError, match="without a login, for none was found") as caught:
        ask(there, tmp_path)
    assert PASSWORD not in str(caught.value)
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    oci._registries.cache_clear()
    oci.fetch(ask(there, tmp_path), QUICK)


def test_a_cut_layer_goes_on_where_it_was_cut(there: Registry, tmp_path: Path) -> None:
    (_, large), one = IMAGE.blobs, ask(there, tmp_path)
    path = f"/v2/storage/blobs/{digest(large)}"
    files = {f"/v2/storage/blobs/{name}": data for name, data in there.blobs.items()}
    with file_server(files) as storage:
        there.storage = storage.address
        storage.faults[path] = [Reset(40), Cut(60)]
        oci.fetch(one, QUICK)
        assert storage.ranges(path)[0] == ""
        assert storage.ranges(path)[-1].startswith("bytes=")
        assert large in found(one, tmp_path / "out")["blobs"].values()


def test_other_bytes_are_never_taken(there: Registry, tmp_path: Path) -> None:
    one = ask(there, tmp_path)
    name = digest(IMAGE.blobs[0])
    there.blobs[name] = IMAGE.blobs[0][:-1] + b"x"
    for _ in range(2):
        with pytest.raises(HashMismatch, match=f"image-app: blobs/{name}: the bytes do not match their pin"):
            oci.fetch(one, QUICK)
    there.manifests[DIGEST] = OTHER.manifest
    with pytest.raises(HashMismatch, match=f"image-app: manifests/{DIGEST}: .* from 127.0.0.1:{there.port}/team/app"):
        ask(there, tmp_path / "again")


def test_what_is_not_there(there: Registry, tmp_path: Path) -> None:
    wanted = digest(b"nothing")
    where = rf"127.0.0.1:{there.port}/team/app"
    with pytest.raises(UserError, match=rf"^image-app: manifests/{wanted} of {where}: .* has it not: status 404"):
        ask(there, tmp_path, wanted)
    one = ask(there, tmp_path)
    gone = digest(IMAGE.blobs[1])
    there.faults[f"GET /v2/team/app/blobs/{gone}"] = [(503, {}), (429, {})]
    oci.fetch(one, QUICK)
    there.faults[f"GET /v2/team/app/blobs/{gone}"] = [(500, {})] * 3
    with pytest.raises(UserError, match=r"could not be fetched: 127.0.0.1:\d+: status 500 \(3 attempts\)"):
        oci.fetch(replace(one, cache=tmp_path / "other"), QUICK)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("oci:busybox@" + DIGEST, "'busybox' is no full name of an image"),
        ("oci:docker.io/Library/a@" + DIGEST, "'docker.io/Library/a' is no full name of an image"),
        ("oci:docker.io/library/a:1@latest", "an image is pinned by its digest, @sha256: and 64 digits, got 'latest'"),
        ("oci:docker.io/library/a:1", "expected oci:NAME@VERSION"),
    ],
)
def test_names_that_are_none(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        sources.parse(text)


def test_pins_that_are_none() -> None:
    source = Source("oci", "docker.io/library/a", DIGEST)
    files = tuple(File(name, DIGEST[7:], 1) for name in ("manifest.json", "config.json"))
    misfit = sources.KINDS["oci"].misfit
    assert misfit(source, Pin("", files=files)) == ""
    assert misfit(source, Pin("", files=files[:1])) == "expected a manifest and a configuration, got manifest.json"
    other = replace(files[0], sha256="0" * 64)
    assert misfit(source, Pin("", files=(other, files[1]))) == f"its digest is sha256:{'0' * 64}"


def test_an_image_becomes_a_part_of_containerds_root(here: Clone, there: Registry, tmp_path: Path) -> None:
    """By the builders that a recipe names: `layout`, which gives it a name, and what `content` runs."""
    one = ask(there, tmp_path)
    oci.fetch(one, QUICK)
    job = job_in(tmp_path / "job", tmp_path)
    found(one, tmp_path / "src")
    job = replace(job, name="image-app", src=tmp_path / "src")
    builders.KINDS["layout"].build(job, Layout("example.org/app:1"))
    program = here.folder / "outputs/result/imagestore/bin/imagestore"
    words = [str(program), "--out", str(tmp_path / "root"), "--namespace", "k8s.io", f"example.org/app:1={job.out}"]
    subprocess.run(words, check=True)
    snapshot = tmp_path / "root/io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs"
    assert (snapshot / "bin/a").read_bytes() == b"a" * 5000
    assert (snapshot / "bin/b").read_bytes() == b"b" * 70000


def test_layouts_that_are_none(tmp_path: Path) -> None:
    job = replace(job_in(tmp_path / "job", tmp_path), name="image-app", src=tmp_path / "src")
    files = layout([replace(IMAGE, names=["app:1"])])
    write(tmp_path / "src", files)
    name = next(each for each in files if files[each] == IMAGE.blobs[1])
    (tmp_path / "src" / name).write_bytes(b"x" * len(IMAGE.blobs[1]))
    with pytest.raises(UserError, match=rf"^recipes/image-app.toml: source: {name} has other bytes than its name says"):
        builders.KINDS["layout"].build(job, Layout("example.org/app:1"))
    (tmp_path / "src/index.json").unlink()
    with pytest.raises(UserError, match=r"^recipes/image-app.toml: source is no image: it is neither"):
        builders.KINDS["layout"].build(job, Layout("example.org/app:1"))

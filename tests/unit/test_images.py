"""Archives and folders of container images: what is found in them, what is sent of it, what is refused and how."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from sandkube.errors import UserError
from sandkube.image_files import archive, folder_or_archive
from sandkube.images import Held, held
from tests.image_maker import Made, blob_name, described, digest, docker, index, layout, packed, write

BASE, TOP = packed({"bin/busybox": b"program" * 100}), packed({"etc/word": b"word"})
ONE = Made([BASE, TOP], ["busybox:1"])
OTHER = Made([TOP], ["example.org/tool:2", "tool:3"])
ARM = Made([BASE], ["busybox:1"], platform="linux/arm64")
FORMS: Mapping[str, Callable[..., dict[str, bytes]]] = {"docker": docker, "layout": layout}


class Bench:
    """A folder to read archives in."""

    def __init__(self, folder: Path, kept: ExitStack) -> None:
        self.folder, self._kept = folder, kept

    def at(self, path: Path, tag: str = "") -> Held:
        """What is held by a file or a folder."""
        return held(self._kept.enter_context(folder_or_archive(path, self.folder)), tag)

    def read(self, files: Mapping[str, bytes] | bytes, tag: str = "") -> Held:
        """What is held by files, packed."""
        (self.folder / "image.tar").write_bytes(files if isinstance(files, bytes) else packed(files))
        return self.at(self.folder / "image.tar", tag)

    def refusal(self, files: Mapping[str, bytes] | bytes, tag: str = "") -> str:
        """The sentence, without the folder of the test."""
        with pytest.raises(UserError) as raised:
            self.read(files, tag)
        return raised.value.message.replace(f"{self.folder}/", "")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as kept:
        yield Bench(tmp_path, kept)


def unpacked(found: Held, parts: list[str]) -> dict[str, bytes]:
    """What a reader sees of a tar that is sent."""
    with tarfile.open(fileobj=io.BytesIO(b"".join(found.packed(parts)))) as sent:
        return {each.name: sent.extractfile(each).read() for each in sent}  # type: ignore[union-attr]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("folder", [False, True])
def test_names_and_configurations(bench: Bench, tmp_path: Path, form: str, folder: bool) -> None:
    files = FORMS[form]([ONE, OTHER])
    found = bench.at(write(tmp_path / "folder", files)) if folder else bench.read(files)
    named = [(each.config, name) for each in found.images for name in each.names]
    wanted = [(digest(one.config), name) for one in (ONE, OTHER) for name in one.names]
    assert named == wanted
    everything = [blob for each in found.images for blob in each.blobs]
    assert unpacked(found, found.parts(everything)) == files
    assert found.size(found.parts(everything)) == sum(map(len, files.values()))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_archives_that_are_compressed_as_a_whole(bench: Bench, pack: Callable[[bytes], bytes]) -> None:
    files = docker([ONE])
    found = bench.read(pack(packed(files)))
    assert unpacked(found, found.parts(())) == files
    assert bench.refusal(pack(packed(files))[:-20]) == "image.tar: ends in the middle"


def test_a_stream(tmp_path: Path) -> None:
    into, out = os.pipe()
    with os.fdopen(out, "wb") as sink:
        sink.write(packed(docker([ONE])))  # less than a pipe holds
    with os.fdopen(into, "rb") as stream, archive(stream, "standard input", tmp_path) as files:
        found = held(files, "")
    assert [each.names for each in found.images] == [("busybox:1",)]
    assert list(tmp_path.iterdir()) == []


def test_what_a_node_has_is_not_sent(bench: Bench) -> None:
    found = bench.read(layout([ONE]))
    assert sorted(found.images[0].blobs) == sorted(map(digest, (BASE, TOP, ONE.config, ONE.manifest)))
    assert unpacked(found, found.parts([digest(TOP)])).keys() == {"oci-layout", "index.json", blob_name(TOP)}


def test_other_platforms_are_not_sent(bench: Bench) -> None:
    found = bench.read(layout([ARM, ONE], nested=True))
    one = found.images[0]
    assert (one.config, one.names) == (digest(ONE.config), ("busybox:1",))
    assert blob_name(ARM.config) not in one.files
    assert blob_name(ONE.config) in one.files
    assert len(one.files) == 5  # with the index that leads there


def test_links_to_layers(bench: Bench) -> None:
    files = docker([ONE])
    name = next(each for each in files if each.endswith("layer.tar"))
    data = files.pop(name)
    found = bench.read(packed({"first/layer.tar": data, **files}, {name: "../first/layer.tar"}))
    assert unpacked(found, found.parts(()))[name] == data


def test_the_same_layer_twice_is_sent_once(bench: Bench) -> None:
    name = "b/layer.tar"
    files = docker([Made([BASE], ["one:1"])])
    entries = json.loads(files["manifest.json"])
    entries[0]["Layers"].append(name)
    files["manifest.json"] = json.dumps(entries).encode()
    found = bench.read(packed(files, {name: f"../{entries[0]['Layers'][0]}"}))
    parts = found.parts(())
    assert len(b"".join(found.packed(parts))) < found.size(parts) + 8 * 1024
    assert unpacked(found, parts)[name] == BASE


def test_tags(bench: Bench) -> None:
    bare = layout([Made([BASE], ["latest"])])
    assert bench.read(bare, "mine:1").images[0].names == ("mine:1",)
    assert bench.refusal(bare) == "image.tar holds no image with a name"
    assert bench.refusal(docker([ONE, OTHER]), "mine:1") == "image.tar holds 2 images: --tag names one"
    assert bench.read(layout([Made([BASE], ["a", "b"])]), "mine:1").images[0].names == ("mine:1",)


@pytest.mark.parametrize("form", FORMS)
def test_other_platforms_alone_are_refused(bench: Bench, form: str) -> None:
    make = FORMS[form]
    assert bench.refusal(make([ARM])) == "image.tar is for linux/arm64, and a node runs linux/amd64"
    mixed = bench.refusal(make([OTHER, ARM]))
    assert mixed == "busybox:1 in image.tar is for linux/arm64, and a node runs linux/amd64"


def broken(files: dict[str, bytes], name: str, data: bytes | None) -> dict[str, bytes]:
    return {key: value for key, value in (files | {name: data}).items() if value is not None}


LAYOUT, DOCKER = layout([ONE]), docker([ONE])
CONFIG = f"{digest(ONE.config).removeprefix('sha256:')}.json"
NO_IMAGE = layout([ONE]) | {"index.json": index([described(b"chart", "application/vnd.cncf.helm.config.v1+json")])}


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (b"", "image.tar is empty, no image"),
        (b"no tar at all" * 100, "image.tar is no image: no tar (.*)"),
        (
            packed({"etc/passwd": b""}),
            "image.tar is no image: it is neither an archive of docker save nor an OCI layout",
        ),
        (packed(DOCKER)[:4000], "image.tar: ends in the middle"),
        (packed(DOCKER)[:512], "image.tar: ends in the middle"),
        (b"\x28\xb5\x2f\xfd____", "image.tar is compressed by zstd as a whole"),
        (gzip.compress(packed(DOCKER))[:100] + bytes(100), "image.tar: (damaged: .*|ends in the middle)"),
        (broken(DOCKER, CONFIG, None), f"image.tar: {CONFIG} is missing"),
        (broken(DOCKER, CONFIG, ONE.config + b" "), f"image.tar: the bytes of {CONFIG} have another digest"),
        (broken(DOCKER, f"{digest(TOP)[7:]}/layer.tar", None), "image.tar: .*/layer.tar is missing"),
        (broken(DOCKER, "manifest.json", b"{"), "image.tar: manifest.json: not valid JSON: .*"),
        (broken(DOCKER, "manifest.json", b"{}"), "image.tar: manifest.json is not what docker save writes"),
        (broken(DOCKER, "manifest.json", b"[{}]"), "image.tar: manifest.json: 'Config' is not what it is in an image"),
        (broken(DOCKER, "manifest.json", b"[]"), "image.tar holds no image"),
        (broken(LAYOUT, blob_name(ONE.manifest), ONE.manifest.replace(b": 2", b": 3")), "image.tar: the bytes of .*"),
        (broken(LAYOUT, blob_name(TOP), None), f"image.tar: {blob_name(TOP)} is missing"),
        (broken(LAYOUT, blob_name(TOP), TOP[:-1]), f"image.tar: {blob_name(TOP)} has 10239 bytes, not 10240"),
        (broken(LAYOUT, "oci-layout", b'{"imageLayoutVersion": "2"}'), "image.tar: an OCI layout of version '2' .*"),
        (broken(LAYOUT, "index.json", b"[]"), "image.tar: index.json: 'manifests' is not what it is in an image"),
        (broken(LAYOUT, "index.json", index([])), "image.tar holds no image"),
        (NO_IMAGE, "image.tar: index.json: 'application/vnd.cncf.helm.config.v1.json' is no image"),
    ],
)
def test_what_is_wrong_is_a_sentence(bench: Bench, files: Mapping[str, bytes] | bytes, sentence: str) -> None:
    assert re.fullmatch(sentence, bench.refusal(files)), bench.refusal(files)


def test_paths(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file or directory"):
        bench.at(tmp_path / "absent.tar")
    with pytest.raises(UserError, match="is no image: it is neither"):
        bench.at(tmp_path)


def test_names_that_leave_a_folder_are_not_followed(bench: Bench, tmp_path: Path) -> None:
    files = docker([ONE])
    (tmp_path / "secret.json").write_bytes(ONE.config)
    files["manifest.json"] = json.dumps([{"Config": "../secret.json", "RepoTags": ["a:1"], "Layers": []}]).encode()
    with pytest.raises(UserError, match=r"\.\./secret\.json is missing"):
        bench.at(write(tmp_path / "folder", files))


def test_a_header_that_asks_for_memory(bench: Bench) -> None:
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, 1 << 30
    assert re.fullmatch(r"image.tar is no image: no tar \(.*\)", bench.refusal(member.tobuf() + bytes(4096)))

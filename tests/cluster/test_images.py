"""Images that people bring along: loaded in each form, run by pods, refused where they are damaged, removed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from sandkube import images
from sandkube.app.guard import guarded
from sandkube.app.images import Images
from sandkube.app.load_image import LoadImage
from sandkube.app.remove_image import RemoveImage
from sandkube.app.verb import Verb
from sandkube.cli.building import Checkout
from sandkube.cluster import images as cluster_images
from sandkube.cluster import stop
from sandkube.cluster.place import place
from sandkube.cluster.programs import Programs
from sandkube.image_files import folder_or_archive
from tests.clones import Said
from tests.cluster.conftest import ROOT, Cluster, boot, inside
from tests.image_maker import Made, blob_name, digest, docker, layer, layout, packed, write

LINKS = {f"bin/{each}": "busybox" for each in ("sh", "cat", "sleep")}
Do = Callable[..., Said]


@pytest.fixture(scope="module")
def node(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for all of them."""
    one = place(tmp_path_factory.mktemp("outputs"), "images")
    try:
        yield boot(one, programs)
    finally:
        if one.folder.exists():
            stop.stop(one)


@pytest.fixture(scope="module")
def base() -> bytes:
    """A layer with a shell."""
    return layer({"bin/busybox": (ROOT / "outputs/result/busybox/bin/busybox").read_bytes()}, LINKS)


@pytest.fixture
def do(node: Cluster, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Do:
    """A command as it is typed, with bytes on standard input."""

    def run(kind: type[Verb], *words: str | Path, status: int = 0, stdin: bytes = b"") -> Said:
        home = Checkout(lambda *_words, **_settings: 0, outputs=node.place.folder.parents[1])
        named = [] if "--all" in words else ["--name", node.place.name]
        with ExitStack() as opened:
            (source := opened.enter_context((node.place.folder / "stdin").open("w+b"))).write(stdin)
            source.seek(0)
            monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=source, isatty=lambda: False))
            capfd.readouterr()
            found = guarded(lambda: kind(home).parse_execute([*map(str, words), *named]))
        said = Said(*capfd.readouterr())
        assert found == status, said
        return said

    return run


def word(text: str) -> bytes:
    """A layer that differs from others."""
    return layer({"etc/word": text.encode()})


def kept(node: Cluster) -> str:
    """All that containerd keeps: names, blobs, snapshots, what is half written, leases."""
    lists = ("images ls --quiet", "content ls --quiet", "content active", "leases ls --quiet", "snapshots ls")
    only = {"snapshots ls": "grep Committed | "}  # those of containers come and go
    done = inside(node, "; ".join(f"ctr --namespace k8s.io {each} | {only.get(each, '')}sort" for each in lists))
    assert done.returncode == 0, done
    return done.stdout


def run_pod(node: Cluster, name: str, images: Sequence[str], policy: str = "IfNotPresent", then: str = "") -> None:
    """A pod each of whose containers reads its image's own file; it ends then, or sleeps."""
    command = ["sh", "-c", f"cat /etc/word; exec {then}" if then else "cat /etc/word"]
    containers = [
        {"name": f"c{at}", "image": each, "imagePullPolicy": policy, "command": command}
        for at, each in enumerate(images)
    ]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}}
    spec = {"restartPolicy": "Never", "containers": containers}
    node.kubectl("create", "--filename=-", stdin=json.dumps(pod | {"spec": spec}).encode())
    phase = "Running" if then else "Succeeded"
    node.kubectl("wait", f"pod/{name}", f"--for=jsonpath={{.status.phase}}={phase}", "--timeout=120s")


def test_every_form_runs(node: Cluster, base: bytes, do: Do, tmp_path: Path) -> None:
    """One pod has a container of each."""

    def made(name: str, packer: str = "") -> Made:
        return Made([base, word(name)], [name], packer=packer)

    several = [made("several-a:1"), made("example.org/several/b:2")]
    forms: Mapping[str, tuple[str | Path, bytes]] = {
        "busybox:1": (tmp_path / "docker.tar", packed(docker([made("busybox:1")]))),
        "docker.io/me/gz:1": (tmp_path / "gz.tar", packed(docker([made("docker.io/me/gz:1", "+gzip")]))),
        "whole-gz:1": (tmp_path / "whole.tar.gz", gzip.compress(packed(docker([made("whole-gz:1")])), 1)),
        "localhost/zst:1": (tmp_path / "zstd.tar", packed(layout([made("localhost/zst:1", "+zstd")]))),
        "stream:1": ("-", packed(layout([made("stream:1", "+gzip")]))),
        "several-a:1": (tmp_path / "several.tar", packed(docker(several))),
    }
    printed = []
    for source, data in forms.values():
        if isinstance(source, Path):
            source.write_bytes(data)
        printed += do(LoadImage, source, stdin=data if source == "-" else b"").out.split()
    arm = Made([base], ["folder:1"], platform="linux/arm64")
    folder = write(tmp_path / "folder", layout([made("folder:1"), arm], nested=True))
    printed += do(LoadImage, folder, "--all").out.split()
    names = [*forms, "example.org/several/b:2", "folder:1"]
    run_pod(node, "forms", names)
    said = {at: node.kubectl("logs", "forms", f"--container=c{at}").stdout.decode() for at in range(len(names))}
    assert said == dict(enumerate(names))
    node.kubectl("delete", "pod", "forms", "--grace-period=1")
    assert printed[0] == "docker.io/library/busybox:1"
    seen = do(Images).out
    assert all(f"\n{each} " in seen for each in printed), seen
    for each in printed:
        do(RemoveImage, each)
    assert not set(printed) & set(do(Images).out.split())


def test_what_is_there_is_not_sent_again(node: Cluster, base: bytes, do: Do, tmp_path: Path) -> None:
    one = tmp_path / "one.tar"
    one.write_bytes(packed(layout([Made([base, word("first")], ["again:1"])])))
    assert "MB in" in do(LoadImage, one).err
    before = kept(node)
    assert "had it already" in do(LoadImage, one).err
    assert kept(node) == before
    one.write_bytes(packed(layout([Made([base, word("second")], ["again:1"])])))
    with folder_or_archive(one, tmp_path) as files:
        loaded, sent = cluster_images.load(node.place, images.held(files, ""), lambda _sent, _size: None)
    assert [each.names for each in loaded] == [("docker.io/library/again:1",)]
    assert sent is not None
    assert sent < len(base) / 10
    run_pod(node, "again", ["again:1"], "Never")
    assert node.kubectl("logs", "again").stdout == b"second"
    node.kubectl("delete", "pod", "again", "--grace-period=1")


def test_tag(base: bytes, do: Do, tmp_path: Path) -> None:
    (tmp_path / "bare.tar").write_bytes(packed(layout([Made([base, word("bare")], ["latest"])])))
    assert do(LoadImage, tmp_path / "bare.tar", "--tag", "bare:1").out == "docker.io/library/bare:1\n"
    said = do(LoadImage, tmp_path / "bare.tar", "--tag", "Bare:1", status=1).err
    assert 'not loaded into cluster images: "Bare:1" is no name of an image' in said
    do(RemoveImage, "bare:1")


def damaged(base: bytes) -> Iterator[tuple[str, dict[str, bytes], str]]:
    good, bad = Made([base, word("good")], ["good:1"]), Made([base, word("bad-")], ["bad:1"])
    files = layout([good, bad])
    other = bytes([bad.layers[1][0] ^ 1]) + bad.layers[1][1:]
    yield "layout", files | {blob_name(bad.layers[1]): other}, f"the bytes of blob {digest(bad.layers[1])} have another"
    files = docker([good, bad])
    name = f"{digest(bad.layers[1]).removeprefix('sha256:')}/layer.tar"
    yield "docker", files | {name: word("else")}, "wrong diff id"
    torn = Made([base, word("torn")], ["torn:1"], packer="+gzip")
    files = docker([good, torn])
    name = next(each for each in files if files[each] == torn.blobs[1])
    yield "torn layer", files | {name: torn.blobs[1][:-9]}, "failed to extract layer"


def test_damage_leaves_nothing(node: Cluster, base: bytes, do: Do, tmp_path: Path) -> None:
    """Nor of the images of the same file that are sound."""
    before = kept(node)
    for name, files, sentence in damaged(base):
        (tmp_path / name).write_bytes(packed(files))
        said = do(LoadImage, tmp_path / name, status=1)
        assert said.out == ""
        assert said.err.startswith(f"error: {tmp_path / name}: not loaded into cluster images: "), said
        assert sentence in said.err
        assert kept(node) == before
    assert do(LoadImage, "-", stdin=b"x" * 2000, status=1).err.startswith("error: standard input is no image: no tar")


def test_who_leaves_in_the_middle(node: Cluster, base: bytes, tmp_path: Path) -> None:
    before = kept(node)
    large = Made([base, layer({"etc/large": bytes(8 << 20)})], ["large:1"])
    (tmp_path / "large.tar").write_bytes(packed(docker([large])))

    def leave(sent: int, size: int) -> None:
        if sent > size / 2:
            raise KeyboardInterrupt

    with folder_or_archive(tmp_path / "large.tar", tmp_path) as files, pytest.raises(KeyboardInterrupt):
        cluster_images.load(node.place, images.held(files, ""), leave)
    assert kept(node) == before


def test_images_in_use_stay(node: Cluster, base: bytes, do: Do, tmp_path: Path) -> None:
    (tmp_path / "used.tar").write_bytes(packed(docker([Made([base, word("used")], ["used:1", "used:2"])])))
    assert len(do(LoadImage, tmp_path / "used.tar").out.split()) == 2
    run_pod(node, "user", ["used:1"], then="sleep 9999")
    said = do(RemoveImage, "used:1", status=1).err
    assert said == "error: cluster images: the image used:1 is used by pod default/user\n"
    node.kubectl("delete", "pod", "user", "--grace-period=1", "--wait")
    do(RemoveImage, "used:1")
    left = json.loads(do(Images, "-o", "json").out)
    assert [each["names"] for each in left if "docker.io/library/used:2" in each["names"]] == [
        ["docker.io/library/used:2"]
    ]
    do(RemoveImage, "used:2")
    assert digest(word("used")) not in kept(node)
    assert do(RemoveImage, "used:2", status=1).err == "error: cluster images: there is no image used:2\n"
    pinned = do(RemoveImage, "sandkube.local/pause:1.34.2", status=1).err
    assert "is a part of the node: no pod starts without it" in pinned

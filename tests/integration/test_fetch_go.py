"""Go modules by the real go client from a module proxy on loopback: sums, faults, and a damaged module cache."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandkube.build.cache.keys import Keys
from sandkube.build.cache.push import Pusher
from sandkube.build.cache.settings import Setting
from sandkube.build.cache.shared import Shared
from sandkube.build.cache.stock import Stock
from sandkube.build.lock import Module, Pin
from sandkube.build.sources import Ask, Source, go
from sandkube.build.supply import Supply
from sandkube.errors import HashMismatch, UserError
from tests.clones import ROOT
from tests.servers import Other, Reset, Served, Status, file_server, go_module, only_loopback

GOOD = go_module("example.com/demo", "v1.2.3", {"demo.go": "package demo\n"})
EVIL = go_module("example.com/demo", "v1.2.3", {"demo.go": "package demo // evil\n"})
ZIP, MOD = "/example.com/demo/@v/v1.2.3.zip", "/example.com/demo/@v/v1.2.3.mod"
UPPER = {  # an upper-case letter is asked for as !letter; what is inside the zip keeps its name
    path.replace("/Up", "/!up"): content
    for path, content in go_module("example.com/Up", "v0.1.0", {"up.go": "package up\n"}).items()
}
NEWEST = go_module("example.com/demo", "v1.10.0", {"demo.go": "package demo\n"})
LIST = {"/example.com/demo/@v/list": b"v1.3.0-rc.1\nv1.2.3\nv1.10.0\nv1.9.0\n"}


@pytest.fixture(scope="session")
def client() -> Path:
    """The pinned go client, built by the engine."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH",)}
    subprocess.run(["./do", "build", "go-client"], cwd=ROOT, env=env, check=True)
    return (ROOT / "outputs/result/go-client/go/bin/go").resolve()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Served]:
    only_loopback(monkeypatch, tmp_path / "home")
    with file_server(GOOD | UPPER | LIST | NEWEST) as served:
        monkeypatch.setenv("GOPROXY", served.address)
        yield served


@pytest.fixture
def demo(client: Path, proxy: Served, tmp_path: Path) -> Module:
    """The pin of the good module, found with a cache of its own."""
    found = go.resolve_module(client, "example.com/demo", "v1.2.3", cache=tmp_path / "pin")
    proxy.seen.clear()
    return found


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def unpacked(cache: Path) -> Path:
    return cache / "gomod/example.com/demo@v1.2.3"


def test_fetched_once_and_copied(client: Path, proxy: Served, demo: Module, tmp_path: Path) -> None:
    go.fetch_modules(client, [demo], cache=tmp_path, name="recipe")
    asked = len(proxy.seen)
    go.fetch_modules(client, [demo], cache=tmp_path, name="recipe")
    assert len(proxy.seen) == asked
    go.source_tree(demo, tmp_path / "src", cache=tmp_path)
    assert files(tmp_path / "src") == {"demo.go": "package demo\n", "go.mod": "module example.com/demo\n\ngo 1.24\n"}
    assert (tmp_path / "src/demo.go").stat().st_mode & 0o777 == 0o644


@pytest.mark.usefixtures("proxy")
def test_a_workspace_above_says_nothing(
    client: Path, demo: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """golang/go#54741: `go list -m` and `go mod download` read a go.work of any folder above."""
    (tmp_path / "work/tmp").mkdir(parents=True)
    (tmp_path / "work/go.work").write_text("go 1.24\n\nuse ./elsewhere\n")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "work/tmp"))
    go.fetch_modules(client, [Module(demo.path, demo.version, None, demo.mod)], cache=tmp_path / "a", name="recipe")
    go.fetch_modules(client, [demo], cache=tmp_path / "b", name="recipe")
    assert go.resolve_module(client, demo.path, demo.version, cache=tmp_path / "c") == demo


@pytest.mark.usefixtures("proxy")
def test_the_go_command_leaves_nothing_in_its_home(client: Path, tmp_path: Path) -> None:
    """golang/go#68928: telemetry writes files, by a child that lives on, whatever GOTELEMETRY says."""
    (tmp_path / "home").mkdir(exist_ok=True)
    before = files(tmp_path / "home")
    env = go.environment(tmp_path / "gomod", tmp_path / "home")
    go.call(client, ["mod", "download", "example.com/demo@v1.2.3"], env, tmp_path)
    assert go.call(client, ["env", "GOTELEMETRY"], env, tmp_path) == "off\n"
    assert files(tmp_path / "home") == before


@pytest.mark.usefixtures("proxy")
def test_sums_are_those_of_the_go_command(client: Path, demo: Module, tmp_path: Path) -> None:
    go.fetch_modules(client, [demo], cache=tmp_path, name="recipe")
    assert go.tree_h1(demo, unpacked(tmp_path)) == demo.zip


def test_a_toolchain_needs_no_checksum_database(client: Path, proxy: Served, tmp_path: Path) -> None:
    """The go client insists on the database for golang.org/toolchain, but for what go.sum names."""
    version = "v0.0.1-go1.99.0.linux-amd64"
    served = go_module("golang.org/toolchain", version, {"VERSION": "go1.99.0\n"})
    evil = go_module("golang.org/toolchain", version, {"VERSION": "go1.99.0 evil\n"})
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "VERSION").write_text("go1.99.0\n")
    (tree / "go.mod").write_bytes(served[f"/golang.org/toolchain/@v/{version}.mod"])
    mod = go._hash1([("go.mod", tree / "go.mod")])
    pin = Module("golang.org/toolchain", version, "", mod)
    pin = Module(pin.path, pin.version, go.tree_h1(pin, tree), mod)
    proxy.files |= evil
    with pytest.raises(HashMismatch) as caught:
        go.fetch_modules(client, [pin], cache=tmp_path, name="recipe")
    assert caught.value.message.startswith(
        f"recipe: Go module golang.org/toolchain@{version}: the bytes do not match their pin: "
        f"expected {pin.zip}, got h1:"
    )
    proxy.files |= served
    go.fetch_modules(client, [pin], cache=tmp_path, name="recipe")
    go.source_tree(pin, tmp_path / "src", cache=tmp_path)
    assert files(tmp_path / "src") == files(tree)


def test_only_go_mod_where_only_that_is_pinned(client: Path, proxy: Served, demo: Module, tmp_path: Path) -> None:
    go.fetch_modules(client, [Module(demo.path, demo.version, None, demo.mod)], cache=tmp_path, name="recipe")
    assert ZIP not in {path for path, _ in proxy.seen}
    assert not unpacked(tmp_path).exists()


def test_a_wrong_zip_is_never_used(client: Path, proxy: Served, demo: Module, tmp_path: Path) -> None:
    proxy.faults[ZIP] = [Other(EVIL[ZIP])]
    with pytest.raises(HashMismatch) as caught:
        go.fetch_modules(client, [demo], cache=tmp_path, name="recipe")
    assert caught.value.message.startswith(
        "recipe: Go module example.com/demo@v1.2.3, files: the bytes do not match their pin: "
        f"expected {demo.zip}, got h1:"
    )
    assert caught.value.message.endswith(", from the module proxy")
    assert not unpacked(tmp_path).exists()
    assert not list(tmp_path.glob("gomod/cache/download/example.com/demo/@v/*.zip"))
    go.fetch_modules(client, [demo], cache=tmp_path, name="recipe")
    assert (unpacked(tmp_path) / "demo.go").read_text() == "package demo\n"


def test_a_wrong_go_mod_is_never_used(client: Path, proxy: Served, demo: Module, tmp_path: Path) -> None:
    proxy.faults[MOD] = [Other(b"module example.com/demo\n\ngo 1.23\n")]
    with pytest.raises(HashMismatch) as caught:
        go.fetch_modules(client, [demo], cache=tmp_path, name="recipe")
    assert caught.value.message.startswith(
        "recipe: Go module example.com/demo@v1.2.3, go.mod: the bytes do not match their pin: "
        f"expected {demo.mod}, got h1:"
    )
    go.fetch_modules(client, [demo], cache=tmp_path, name="recipe")


@pytest.mark.parametrize("fault", [Reset(60), Status(500), Other(b"not a zip")], ids=["reset", "500", "junk"])
def test_passing_faults(
    fault: Reset | Status | Other,
    client: Path,
    proxy: Served,
    demo: Module,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    proxy.faults[ZIP] = [fault]
    go.fetch_modules(client, [demo], cache=tmp_path, name="recipe")
    assert (unpacked(tmp_path) / "demo.go").read_text() == "package demo\n"
    assert "recipe: 1 Go modules did not come, asking again: " in capsys.readouterr().err


def test_a_module_that_is_gone(client: Path, proxy: Served, demo: Module, tmp_path: Path) -> None:
    for path in (ZIP, MOD, ZIP.replace(".zip", ".info")):
        del proxy.files[path]
    with pytest.raises(UserError) as caught:
        go.fetch_modules(client, [demo], cache=tmp_path, name="recipe")
    assert str(caught.value) == (
        "go mod download example.com/demo@v1.2.3: go: exit status 1:\n"
        f"  go: example.com/demo@v1.2.3: reading {proxy.address}/example.com/demo/@v/v1.2.3.info: 404 Not Found\n"
        "  hint: is a module proxy reachable? GOPROXY, NETRC and proxy variables are honoured"
    )


def damage_file(cache: Path) -> None:
    path = unpacked(cache) / "demo.go"
    path.chmod(0o644)
    path.write_text("package demo // evil\n")


def damage_extra(cache: Path) -> None:
    unpacked(cache).chmod(0o755)
    (unpacked(cache) / "extra.go").write_text("package demo\n")


def damage_missing(cache: Path) -> None:
    unpacked(cache).chmod(0o755)
    (unpacked(cache) / "demo.go").unlink()


def damage_mod(cache: Path) -> None:
    path = cache / "gomod/cache/download/example.com/demo/@v/v1.2.3.mod"
    path.chmod(0o644)
    path.write_text("module example.com/demo\n\ngo 1.23\n")


@pytest.mark.parametrize("damage", [damage_file, damage_extra, damage_missing, damage_mod])
@pytest.mark.usefixtures("proxy")
def test_a_damaged_cached_module_is_named_and_mended(
    damage: Callable[[Path], None], client: Path, demo: Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    go.fetch_modules(client, [demo], cache=tmp_path, name="recipe")
    damage(tmp_path)
    with pytest.raises(
        UserError, match=r"^Go module example\.com/demo@v1\.2\.3: the sum of its (files|go\.mod) is h1:"
    ):
        go.source_tree(demo, tmp_path / "src", cache=tmp_path)
    go.fetch_modules(client, [demo], cache=tmp_path, name="recipe")
    part, pinned = ("go.mod", demo.mod) if damage is damage_mod else ("files", demo.zip)
    said = capsys.readouterr().err
    assert f"recipe: cached module example.com/demo@v1.2.3 was damaged: the sum of its {part} is h1:" in said
    assert f", pinned is {pinned}; it is fetched again\n" in said
    go.source_tree(demo, tmp_path / "src", cache=tmp_path)
    assert (tmp_path / "src/demo.go").read_text() == "package demo\n"


@pytest.mark.usefixtures("proxy")
def test_an_unfinished_module_is_finished(client: Path, demo: Module, tmp_path: Path) -> None:
    """A go client that was killed while it unpacked leaves a part of the folder and a .partial mark."""
    go.fetch_modules(client, [demo], cache=tmp_path, name="recipe")
    damage_missing(tmp_path)
    (tmp_path / "gomod/cache/download/example.com/demo/@v/v1.2.3.partial").touch()
    go.fetch_modules(client, [demo], cache=tmp_path, name="recipe")
    assert (unpacked(tmp_path) / "demo.go").read_text() == "package demo\n"


@pytest.mark.usefixtures("proxy")
def test_several_steps_at_once(client: Path, demo: Module, tmp_path: Path) -> None:
    """Steps share modules; first from an empty cache, then from one that all find damaged."""

    def one() -> None:
        try:
            go.fetch_modules(client, [demo, upper], cache=tmp_path, name="recipe")
            go.source_tree(demo, Path(tempfile.mkdtemp(dir=tmp_path)), cache=tmp_path)
        except BaseException as error:
            faults.append(error)

    upper = go.resolve_module(client, "example.com/Up", "v0.1.0", cache=tmp_path / "pin")
    faults: list[BaseException] = []
    for _ in range(2):
        threads = [threading.Thread(target=one) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert faults == []
        damage_file(tmp_path)


def module_tree(folder: Path, proxy: Served, client: Path) -> Path:
    """A main module that imports example.com/demo in its program and example.com/Up in its test only."""
    folder.mkdir()
    (folder / "go.mod").write_text(
        "module main\n\ngo 1.24\n\nrequire (\n\texample.com/demo v1.2.3\n\texample.com/Up v0.1.0\n)\n"
    )
    (folder / "main.go").write_text('package main\n\nimport _ "example.com/demo"\n\nfunc main() {}\n')
    (folder / "main_test.go").write_text('package main\n\nimport _ "example.com/Up"\n')
    env = go.environment(folder.parent / "tidy", folder.parent) | {"GOPROXY": proxy.address, "GONOSUMDB": "*"}
    go.call(client, ["mod", "tidy"], env, folder)
    return folder


@pytest.mark.parametrize("test", [(), ("./...",)])
def test_closure_is_what_is_read(
    test: tuple[str, ...], client: Path, proxy: Served, demo: Module, tmp_path: Path
) -> None:
    tree = module_tree(tmp_path / "main", proxy, client)
    found = go.resolve_closure(client, tree, ["."], [], cgo=False, test=test, cache=tmp_path)
    whole = {f"{each.path}@{each.version}" for each in found if each.zip}
    assert whole == {"example.com/demo@v1.2.3", *(["example.com/Up@v0.1.0"] if test else [])}
    assert demo in found
    assert len(found) == len(whole)


@pytest.mark.parametrize("evil", [b"junk", EVIL[ZIP]], ids=["junk", "evil"])
def test_closure_with_a_damaged_cached_zip(
    evil: bytes, client: Path, proxy: Served, demo: Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = module_tree(tmp_path / "main", proxy, client)
    go.fetch_modules(client, [demo], cache=tmp_path, name="recipe")
    cached = tmp_path / "gomod/cache/download" / ZIP[1:]
    cached.chmod(0o644)
    cached.write_bytes(evil)
    found = go.resolve_closure(client, tree, ["."], [], cgo=False, test=(), cache=tmp_path)
    assert demo in found
    assert "go: cached example.com/demo/@v/v1.2.3.zip was damaged; removed\n" in capsys.readouterr().err


def test_closure_refuses_what_go_sum_refuses(client: Path, proxy: Served, tmp_path: Path) -> None:
    tree = module_tree(tmp_path / "main", proxy, client)
    proxy.files[ZIP] = EVIL[ZIP]
    with pytest.raises(UserError, match=r"checksum mismatch"):
        go.resolve_closure(client, tree, ["."], [], cgo=False, test=(), cache=tmp_path)


def test_another_version_than_asked_for(client: Path, proxy: Served, tmp_path: Path) -> None:
    proxy.files["/example.com/demo/@v/main.info"] = b'{"Version":"v1.2.3"}'
    with pytest.raises(UserError) as caught:
        go.resolve_module(client, "example.com/demo", "main", cache=tmp_path)
    assert str(caught.value) == (
        "go:example.com/demo@main: the proxy resolves it to v1.2.3\n  hint: write that version"
    )


@pytest.mark.usefixtures("proxy")
def test_versions_are_releases_oldest_first(client: Path) -> None:
    assert go.versions(client, "example.com/demo") == ["v1.2.3", "v1.9.0", "v1.10.0"]


@pytest.mark.usefixtures("client", "proxy")
def test_passwords_of_the_user_are_honoured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/.netrc").touch(0o600)
    assert go.environment(tmp_path, tmp_path)["NETRC"] == str(tmp_path / "home/.netrc")
    monkeypatch.setenv("NETRC", "/elsewhere")
    assert go.environment(tmp_path, tmp_path)["NETRC"] == "/elsewhere"


def test_a_module_that_the_proxy_has_no_more_comes_from_a_cache(
    client: Path, proxy: Served, demo: Module, tmp_path: Path
) -> None:
    """Who fetched it gave it to the cache; a zip with other bytes there is not shown to the client."""
    only_mod = Module(
        "example.com/Up", "v0.1.0", None, go.resolve_module(client, "example.com/Up", "v0.1.0", cache=tmp_path).mod
    )
    pin = Pin("", h1=demo.zip or "", mod=demo.mod, modules=(only_mod,))

    def bring(name: str, *, write: bool = False, offline: bool = False) -> Path:
        proxy.seen.clear()
        shared = Shared([Setting(f"file://{tmp_path}/shared", write=write)], Keys(tmp_path / "keys"))
        pusher, cache = Pusher(shared), tmp_path / name
        ask = Ask("demo", Source("go", demo.path, demo.version), pin, tmp_path, cache, lambda: client)
        Supply(Stock(shared), pusher, offline).bring(ask)
        for _ in pusher.drain():
            pass
        return unpacked(cache) / "demo.go"

    with pytest.raises(
        UserError, match=r"^demo: offline, and no cache has go\.mod of example\.com/demo@v1\.2\.3, Go module "
    ):
        bring("none", offline=True)
    assert proxy.seen == []
    bring("first", write=True)
    assert len([*(tmp_path / "shared/sources").iterdir()]) == 3
    for offline in (False, True):
        assert bring(f"second-{offline}", offline=offline).read_text() == "package demo\n"
        assert proxy.seen == []
    for path in (tmp_path / "shared/sources").iterdir():
        path.write_bytes(EVIL[ZIP])
    assert bring("third").read_text() == "package demo\n"
    assert ZIP in [path for path, _ in proxy.seen]

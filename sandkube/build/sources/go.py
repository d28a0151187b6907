"""`go:` sources and module closures, by the ordinary go client into this user's module cache, checked one by one.

In the user's cache: `gomod/` is a GOMODCACHE as the go command lays it out (go.dev/ref/mod#module-cache), and
`gomod-seals/` holds, for each unpacked module whose bytes were checked, the seal it had then.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import re
import stat
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandkube import log, tree
from sandkube.build.lock import Module, Pin
from sandkube.build.sources import go_faults
from sandkube.build.sources.go_versions import TOOLCHAIN, releases
from sandkube.build.sources.kind import Ask, Source, SourceKind
from sandkube.build.sources.settings import client_environment
from sandkube.digest import sha256_file
from sandkube.errors import HashMismatch, UserError
from sandkube.run import CommandFailed, run, wait
from sandkube.shapes import GO_PATH, GO_VERSION

_BATCH = 100
_HERE = Path()
_ATTEMPTS = 3  # the go client itself gives up at the first cut connection or 5xx


def escape(text: str) -> str:
    """The escaped form of a module path or version: `!x` for an upper-case letter (golang.org/x/mod/module)."""
    return re.sub(r"[A-Z]", lambda match: "!" + match.group().lower(), text)


def _unescape(text: str) -> str:
    return re.sub(r"!([a-z])", lambda match: match.group(1).upper(), text)


def _unpacked(modcache: Path, module: Module) -> Path:
    return modcache / f"{escape(module.path)}@{escape(module.version)}"


def _downloaded(modcache: Path, module: Module, suffix: str) -> Path:
    return modcache / "cache/download" / escape(module.path) / "@v" / f"{escape(module.version)}.{suffix}"


def _hash1(files: Iterable[tuple[str, Path]]) -> str:
    """dirhash.Hash1 of golang.org/x/mod: SHA-256 over the sorted lines `HEX  NAME`, as `h1:BASE64`."""
    lines = []
    for name, path in sorted(files):
        with path.open("rb") as stream:
            lines.append(f"{hashlib.file_digest(stream, 'sha256').hexdigest()}  {name}\n")
    digest = hashlib.sha256("".join(lines).encode()).digest()
    return f"h1:{base64.b64encode(digest).decode()}"


def _tree_files(module: Module, unpacked: Path) -> Iterator[tuple[str, Path]]:
    for name, found in tree.walk(unpacked):
        if stat.S_ISREG(found.st_mode):
            yield f"{module.path}@{module.version}/{name}", unpacked / name
        elif not stat.S_ISDIR(found.st_mode):
            raise tree.Refused(f"{name!r} is {tree.kind_of(found)}, which no module holds")


def tree_h1(module: Module, unpacked: Path) -> str:
    """The `h1:` sum of an unpacked module, equal to that of its zip. Raises Refused for a link, which no zip has."""
    return _hash1(_tree_files(module, unpacked))


def environment(modcache: Path, home: Path) -> dict[str, str]:
    """The go client's environment on the host: the user's proxy settings, nothing else of the machine's Go.

    A relative XDG_CONFIG_HOME gives it no folder for telemetry: its only other switch is a file in that folder, and it
    would leave files and a child that writes them (Go 1.26, telemetry.Default of golang.org/x/telemetry).
    """
    return client_environment(home) | {
        "GOMODCACHE": str(modcache),
        "GOCACHE": str(home / "go-build"),
        "GOFLAGS": "-mod=mod -modcacherw",
        "GOTOOLCHAIN": "local",
        "GOENV": "off",
        "GOWORK": "off",
        "XDG_CONFIG_HOME": "none",
        "GOOS": "linux",
        "GOARCH": "amd64",
    }


def call(go: Path, words: Sequence[str], env: dict[str, str], cwd: Path) -> str:
    """Run the go client; its standard output. Raises UserError with its last lines."""
    with tempfile.TemporaryFile() as sink:
        try:
            done = run([go, *words], env=env, cwd=cwd, log=sink, capture=True)
        except CommandFailed as failure:
            sink.seek(0)
            said = (sink.read() or failure.finished.stdout).decode(errors="replace").splitlines()
            # A checksum mismatch is told in ten lines, the sums in the first of them.
            text = "\n  ".join(
                [line for line in said if line.strip() and not line.startswith("go: downloading ")][-12:]
            )
            raise UserError(
                f"go {' '.join(words[:3])}: {failure.message}:\n  {text}",
                hint=go_faults.hint(text),
            ) from None
    return done.stdout.decode()


@dataclass(frozen=True, slots=True)
class _Fault:
    """What is wrong with a module of the cache: it is absent, or a part of it has another sum than is pinned."""

    part: str = ""
    expected: str = ""
    got: str = ""

    def __str__(self) -> str:
        return (
            f"the sum of its {self.part} is {self.got}, pinned is {self.expected}" if self.part else "not in the cache"
        )


_ABSENT = _Fault()


class _Cache:
    """This user's module cache: what of it is sound."""

    def __init__(self, cache: Path) -> None:
        self.modcache = cache / "gomod"
        self.seals = cache / "gomod-seals"

    def fault(self, module: Module) -> _Fault | None:
        """None when the module is there with its pinned bytes."""
        try:
            got = _hash1([("go.mod", _downloaded(self.modcache, module, "mod"))])
            if got != module.mod:
                return _Fault("go.mod", module.mod, got)
            return self._tree_fault(module, module.zip) if module.zip else None
        except FileNotFoundError:  # never there, or another step that found it damaged removes it at this moment
            return _ABSENT

    def _tree_fault(self, module: Module, pinned: str) -> _Fault | None:
        unpacked = _unpacked(self.modcache, module)
        # The go client makes VERSION.partial before it unpacks and removes it after: a folder beside one is unfinished,
        # in another process's hands or left by one that was killed; the client itself mends it.
        if not unpacked.is_dir() or _downloaded(self.modcache, module, "partial").exists():
            return _ABSENT
        seal = self.seals / f"{escape(module.path).replace('/', '_')}@{escape(module.version)}"
        now = f"{tree.seal_of(unpacked)} {pinned}"
        try:
            if seal.read_text() == now:
                return None
        except OSError:
            pass
        try:
            got = tree_h1(module, unpacked)
        except tree.Refused as refusal:
            got = f"none, for {refusal.message}"
        if got != pinned:
            return _Fault("files", pinned, got)
        self.seals.mkdir(parents=True, exist_ok=True)
        temporary = seal.with_name(f".{seal.name}.{os.getpid()}.{threading.get_ident()}")
        temporary.write_text(now)
        temporary.replace(seal)
        return None

    def drop_damaged(self, module: Module) -> _Fault | None:
        """Remove what the cache holds of a module, unless it is sound by now; returns what was wrong."""
        self.seals.mkdir(parents=True, exist_ok=True)
        with (self.seals / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two that find the same damage: the second must not drop a mended module
            fault = self.fault(module)
            if fault is not None and fault.part:
                for suffix in ("zip", "ziphash", "info", "lock", "partial", "mod"):
                    _downloaded(self.modcache, module, suffix).unlink(missing_ok=True)
                tree.remove_tree(_unpacked(self.modcache, module))
            return fault


def _sum_lines(module: Module) -> str:
    """A module's lines of go.sum."""
    lines = f"{module.path} {module.version}/go.mod {module.mod}\n"
    return lines + (f"{module.path} {module.version} {module.zip}\n" if module.zip else "")


def _download(go: Path, modules: Sequence[Module], cache: _Cache) -> None:
    """Ask the go client for modules: whole ones by `mod download`, go.mod files by `list -m`."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        (folder / "go.mod").write_text("module fetch\n\ngo 1.24\n")
        # The go client takes no toolchain without the checksum database, GOSUMDB=off or not, unless go.sum names it.
        (folder / "go.sum").write_text("".join(_sum_lines(each) for each in modules if each.path == TOOLCHAIN))
        env = environment(cache.modcache, folder) | {"GOSUMDB": "off"}  # the lock's sums are checked here, all of them
        whole = [f"{each.path}@{each.version}" for each in modules if each.zip]
        partial = [f"{each.path}@{each.version}" for each in modules if not each.zip]
        for words, names in ((["mod", "download"], whole), (["list", "-m"], partial)):
            for start in range(0, len(names), _BATCH):
                call(go, [*words, *names[start : start + _BATCH]], env, folder)


def _download_all(go: Path, missing: Sequence[Module], cache: _Cache, name: str) -> None:
    """`_download`, asking again for those that a passing fault kept out."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _download(go, missing, cache)
            return
        except UserError as error:
            if found := go_faults.MISMATCH.search(error.message):
                what, got, expected = found.groups()
                raise HashMismatch(
                    f"{name}: Go module {what}", expected=expected, got=got, origin="the module proxy"
                ) from None
            if attempt == _ATTEMPTS or re.search(r"404 Not Found|410 Gone", error.message):
                raise
            missing = [each for each in missing if cache.fault(each) == _ABSENT]
            last = error.message.splitlines()[-1].strip()
            log.step(name, f"{len(missing)} Go modules did not come, asking again: {last}")
            wait(attempt)


def fetch_modules(go: Path, modules: Sequence[Module], *, cache: Path, name: str) -> None:
    """Bring every pinned module into the cache and check it against its pin. Raises HashMismatch, UserError."""
    own = _Cache(cache)
    missing = []
    for module in modules:
        if own.fault(module) is None:
            continue
        fault = own.drop_damaged(module)
        if fault is None:
            continue
        if fault.part:
            log.step(name, f"cached module {module.path}@{module.version} was damaged: {fault}; it is fetched again")
        missing.append(module)
    if not missing:
        return
    log.step(name, f"fetching {len(missing)} of {len(modules)} Go modules")
    _download_all(go, missing, own, name)
    wrong = [(module, fault) for module in missing if (fault := own.drop_damaged(module)) is not None]
    for module, fault in wrong:
        raise HashMismatch(
            f"{name}: Go module {module.path}@{module.version}" + (f", {fault.part}" if fault.part else ""),
            expected=fault.expected or module.zip or module.mod,
            got=fault.got or "nothing",
            origin="the module proxy",
        )


def source_tree(module: Module, into: Path, *, cache: Path) -> None:
    """Copy a module of the cache, checked again, to a writable folder; modes 0644 and 0755 (folders)."""
    own = _Cache(cache)
    if (fault := own.fault(module)) is not None:
        raise UserError(f"Go module {module.path}@{module.version}: {fault}", hint="run it again")
    into.mkdir(parents=True, exist_ok=True)
    tree.copy(_unpacked(own.modcache, module), ".", into)
    for name, found in tree.walk(into):
        if found.st_mode & 0o100 and not stat.S_ISDIR(found.st_mode):
            tree.chmod(into, name, 0o644)


def module_view(modules: Sequence[Module], *, cache: Path, into: Path) -> list[tuple[Path, str]]:
    """Make a GOMODCACHE that shows the closure and nothing else; returns (unpacked module, its mount point).

    The go command (1.26) builds from it with GOPROXY=off: it reads `cache/download/…/@v/VERSION.mod`, compares
    `VERSION.ziphash` with go.sum, and takes an unpacked folder as it is, so no zip is needed.
    """
    own = _Cache(cache)
    binds = []
    into.mkdir(parents=True, exist_ok=True)  # a program may need no module at all
    for module in modules:
        data = _downloaded(own.modcache, module, "mod").read_bytes()
        tree.write(into, str(_downloaded(_HERE, module, "mod")), data)
        if module.zip:
            tree.write(into, str(_downloaded(_HERE, module, "ziphash")), module.zip.encode())
            point = str(_unpacked(_HERE, module))
            tree.make_folder(into, point)
            binds.append((_unpacked(own.modcache, module), point))
    return binds


def default_proxy(go: Path, folder: Path) -> str:
    """The user's GOPROXY, or the go client's own default."""
    return os.environ.get("GOPROXY") or call(go, ["env", "GOPROXY"], environment(folder, folder), folder).strip()


def resolve_module(go: Path, path: str, version: str, *, cache: Path) -> Module:
    """The sums of one module as the go client (with its checksum database, if on) finds them; kept in the cache."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        text = call(go, ["mod", "download", "-json", f"{path}@{version}"], environment(cache / "gomod", folder), folder)
    found = json.loads(text)
    if found["Version"] != version:
        raise UserError(f"go:{path}@{version}: the proxy resolves it to {found['Version']}", hint="write that version")
    return Module(path, version, found["Sum"], found["GoModSum"])


def _scan(modcache: Path) -> Iterator[Module]:
    download = modcache / "cache/download"
    for mod in sorted(download.rglob("*.mod")):
        path = _unescape(str(mod.parent.parent.relative_to(download)))
        ziphash = mod.with_suffix(".ziphash")
        whole = ziphash.read_text().strip() if ziphash.is_file() else None
        yield Module(path, _unescape(mod.stem), whole, _hash1([("go.mod", mod)]))


def _drop_differing(known: Path, good: Path) -> None:
    """Remove the zips and go.mod files of `known` that differ from those that were just checked against go.sum."""
    for path in (*good.rglob("*.zip"), *good.rglob("*.mod")):
        twin = known / path.relative_to(good)
        if twin.is_file() and sha256_file(twin) != sha256_file(path):
            log.step("go", f"cached {twin.relative_to(known)} was damaged; removed")
            twin.unlink()


def resolve_closure(
    go: Path, source: Path, packages: Sequence[str], tags: Sequence[str], *, cgo: bool, test: Sequence[str], cache: Path
) -> tuple[Module, ...]:
    """The modules that a build of `packages`, and of the tests of `test`, reads: what the go client asks for from an
    empty module cache."""
    tree.remove_tree(source / "vendor")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        home = Path(temporary)
        fresh = home / "modcache"
        known = cache / "gomod/cache/download"
        known.mkdir(parents=True, exist_ok=True)
        env = environment(fresh, home) | {
            "GOFLAGS": "-mod=readonly -modcacherw",
            "GOPROXY": f"{known.resolve().as_uri()},{default_proxy(go, home)}",
            "CGO_ENABLED": "1" if cgo else "0",
        }
        words = ["list", "-deps", *(["-tags", ",".join(tags)] if tags else []), "-f", "{{.ImportPath}}"]
        asked = [[*words, *packages]] if packages else []
        asked += [[*words, "-test", *test]] if test else []
        try:
            for each in asked:
                call(go, each, env, source)
        except UserError as error:
            if not re.search(r"checksum mismatch|\bzip: ", error.message):
                raise
            log.step("go", "files of this user's module cache do not match go.sum; asking the proxy alone")
            tree.remove_tree(fresh)
            for each in asked:
                call(go, each, env | {"GOPROXY": default_proxy(go, home)}, source)
            _drop_differing(known, fresh / "cache/download")
        return tuple(_scan(fresh))


def versions(go: Path, path: str) -> list[str]:
    """Known versions of a module, oldest first."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        (folder / "go.mod").write_text("module fetch\n")
        text = call(go, ["list", "-m", "-versions", "-json", path], environment(folder / "mod", folder), folder)
    return releases(path, json.loads(text).get("Versions", []))


def _module(ask: Ask) -> Module:
    return Module(ask.source.name, ask.source.version, ask.pin.h1, ask.pin.mod)


def _snapshot(ask: Ask, into: Path) -> str:
    source_tree(_module(ask), into, cache=ask.cache)
    return tree_h1(_module(ask), into)


def _resolve(ask: Ask) -> Pin:
    module = resolve_module(ask.go_client(), ask.source.name, ask.source.version, cache=ask.cache)
    return Pin("", h1=module.zip or "", mod=module.mod)


def _check(source: Source) -> str:
    sound = re.fullmatch(f"{GO_PATH}@{GO_VERSION}", f"{source.name}@{source.version}", re.ASCII)
    return "" if sound else f"{source.name!r} at {source.version!r} is no Go module with a version such as v1.2.3"


KIND = SourceKind(
    identity=lambda ask: ask.pin.h1,
    resolve=_resolve,
    fetch=lambda ask: fetch_modules(ask.go_client(), [_module(ask)], cache=ask.cache, name=ask.recipe),
    snapshot=_snapshot,
    code=("build/sources/go",),
    versions=lambda ask: versions(ask.go_client(), ask.source.name),
    tools=("go-client",),
    pinned=("h1", "mod"),
    check=_check,
)

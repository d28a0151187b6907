"""Builder `go`: static programs from one Go module, offline, against the pinned module closure.

The module cache that the build sees is a read-only view that holds the closure and nothing else. Go's own build
cache is kept across builds, in a folder named by all that Go does not see: toolchain, C compiler, environment.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from sandkube import machine, tree
from sandkube.build.box import CACHE, IN, OUT, SRC, ZIG, Call, Mount, input_mounts
from sandkube.build.builders import go_closure, zig
from sandkube.build.builders.elf import check_programs
from sandkube.build.builders.kind import BuilderKind, Job, Modules, Patch, PatchName
from sandkube.build.lock import Module
from sandkube.build.patching import apply_patches
from sandkube.build.sources import go as fetch_go
from sandkube.decode import Fault, suggestion
from sandkube.digest import canonical_json, sha256_bytes, sha256_file
from sandkube.errors import UserError
from sandkube.run import Finished
from sandkube.shapes import Distinct, FileName, Identifier, RecipeName, Text, Word, matching

_MODCACHE = "/sandkube/mod"
_NO_BYTES = ("GOWORK", "XDG_CONFIG_HOME", *zig.ENVIRONMENT)
"""Variables that change no compiled byte: Go's build cache need not be another for them."""
Tag = Annotated[str, matching("a build tag", r"[\w.]+")]


@dataclass(frozen=True, slots=True)
class Go:
    """Builder `go`: programs from a Go module, into `bin/`; the names of passed tests of `test`, into `tests.txt`."""

    packages: Distinct[Word] = ()
    patches: Distinct[PatchName | Patch] = ()
    tags: Distinct[Tag] = ()
    ldflags: tuple[Text, ...] = ()
    cgo: bool = False
    libraries: Distinct[RecipeName] = ()
    names: Mapping[FileName, FileName] = field(default_factory=dict)
    test: Distinct[Word] = ()
    skip: Distinct[Identifier] = ()

    def faults(self) -> Iterator[Fault]:
        """Options without those that they are for."""
        if not self.packages and not self.test:
            yield ("packages",), "missing: a go recipe builds packages or runs the tests of some"
        if self.skip and not self.test:
            yield ("skip",), "there is no test to skip tests of"
        if self.names and not self.packages:
            yield ("names",), "there are no packages whose programs get names"
        if len(set(self.names.values())) < len(self.names):
            yield ("names",), "two programs get one name"
        if self.libraries and not self.cgo:
            yield ("libraries",), "only cgo = true links libraries"


def _environment(options: Go, modcache: str) -> dict[str, str]:
    env = {
        "GOROOT": f"{IN}/go",
        "GOTOOLCHAIN": "local",
        "GOENV": "off",
        "GOWORK": "off",
        "GOPROXY": "off",
        "GOSUMDB": "off",
        "GOFLAGS": "-mod=readonly",
        "GOMODCACHE": modcache,
        "GOCACHE": f"{CACHE}/go",
        "GOTELEMETRY": "off",
        "XDG_CONFIG_HOME": "none",
        "GOOS": "linux",
        "GOARCH": "amd64",
        "GOAMD64": "v1",
        "CGO_ENABLED": "1" if options.cgo else "0",
    }
    if options.cgo:
        flags = f"-O2 -g0 -ffile-prefix-map={SRC}=/src -ffile-prefix-map={modcache}=/mod"
        includes = "".join(f" -I{IN}/{name}/include" for name in options.libraries)
        libraries = "".join(f" -L{IN}/{name}/lib" for name in options.libraries)
        env |= {
            "CC": f"{zig.PROGRAM} cc -target {zig.TARGET}",
            "CGO_CFLAGS": flags + includes,
            "CGO_LDFLAGS": f"-O2 -g0{libraries}",
        }
        env |= zig.ENVIRONMENT
    return env


def _ldflags(options: Go) -> str:
    words = ["-s", "-w", "-buildid=", *options.ldflags]
    if options.cgo:
        # The -s for the C linker matters: Go's default CGO_LDFLAGS hold -g, which comes after Go's own -s.
        words += ["-linkmode", "external", "-extldflags", "'-static -s -Wl,--build-id=none'"]
    return " ".join(words)


def _cache_folder(job: Job, env: Mapping[str, str]) -> Path:
    """A Go build cache of its own for each toolchain, C compiler and environment.

    Where patched modules lie changes no byte: with -trimpath Go knows a package by its module and content. Builds with
    and without patches share what both need. (What C compilers are told has the path in it.)
    """
    inputs = {name: path.name for name, path in job.inputs.items()}
    told = {name: value for name, value in env.items() if name not in _NO_BYTES} | {"GOMODCACHE": _MODCACHE}
    folder = job.cache / "go-build" / sha256_bytes(canonical_json({"inputs": inputs, "env": told}))[:32]
    (folder / "go").mkdir(parents=True, exist_ok=True)
    return folder


def _caches(job: Job, options: Go, env: Mapping[str, str]) -> list[Mount]:
    mounts = [Mount(_cache_folder(job, env), CACHE, writable=True)]
    return [*mounts, zig.shared_cache(job.inputs["zig"], job.cache)] if options.cgo else mounts


def _patched_module(job: Job, wanted: str) -> Module:
    """The module of the closure that a patch's `module`, a path or `path@version`, names. Raises UserError."""
    named = {module: (module.path, f"{module.path}@{module.version}") for module in job.modules}
    found = [module for module, names in named.items() if wanted in names]
    whole = [module for module in found if module.zip]
    if len(whole) == 1:
        return whole[0]
    place = f"recipes/{job.name}.toml: build.patches: module {wanted}"
    if whole:
        words = '" or "'.join(named[module][1] for module in whole)
        raise UserError(f"{place}: the closure holds several versions of it", hint=f'write module = "{words}"')
    if found:
        raise UserError(f"{place}: the build reads its go.mod only, so there is nothing to patch")
    known = [names["@" in wanted] for module, names in named.items() if module.zip]
    raise UserError(f"{place} is not in the closure{suggestion(wanted, known)}")


def _folder(module: Module) -> str:
    return f"{fetch_go.escape(module.path)}@{fetch_go.escape(module.version)}"


def _patched_modules(job: Job) -> dict[str, Path]:
    """Copies of the closure's modules that have patches, patched, by `path@version` folder name in the view."""
    patches: dict[Module, list[Path]] = {}
    for wanted, patch in job.module_patches:
        patches.setdefault(_patched_module(job, wanted), []).append(patch)
    found: dict[str, Path] = {}
    for at, (module, files) in enumerate(patches.items()):
        into = job.work / "patched" / str(at)
        fetch_go.source_tree(module, into, cache=job.cache)
        apply_patches(into, files)
        found[_folder(module)] = into
    return found


def _module_mounts(job: Job, modcache: str) -> list[Mount]:
    patched = _patched_modules(job)
    view = job.work / "modules"
    binds = fetch_go.module_view(job.modules, cache=job.cache, into=view)
    return [
        Mount(view, modcache),
        *(Mount(patched.get(inside, host), f"{modcache}/{inside}") for host, inside in binds),
    ]


def _modcache_path(module_patches: Sequence[tuple[str, Path]]) -> str:
    """Go's index of a module's imports is cached by the module's path on disk: patched ones need another path."""
    if not module_patches:
        return _MODCACHE
    texts = [[module, sha256_file(path)] for module, path in module_patches]
    return f"{_MODCACHE}-{sha256_bytes(canonical_json(texts))[:12]}"


def _write_tests(job: Job, done: Finished) -> None:
    """`tests.txt`: package and name of each test that passed or was skipped, sorted. Raises UserError if one failed."""
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"{")]
    for each in said:
        job.log.write(each.get("Output", "").encode())
    failed = [each for each in said if each["Action"] == "fail"]
    if done.status != 0 or failed:
        names = ", ".join(each["Test"] for each in failed if "Test" in each)
        raise UserError(f"{job.name}: tests failed: {names or 'they could not be built'}")
    ended = [each for each in said if each["Action"] in ("pass", "skip") and "Test" in each]
    lines = sorted(f"{each['Action']} {each['Package']} {each['Test']}\n" for each in ended)
    (job.out / "tests.txt").write_text("".join(lines))


def _check_names(job: Job, options: Go) -> None:
    """What can be seen of `names` before any work."""
    for old, new in options.names.items():
        for each in (old, new):
            with job.at(f"build.names.{old}"):
                tree.check_name(each)


def _rename(job: Job, options: Go) -> None:
    for old, new in options.names.items():
        with job.at(f"build.names.{old}"):
            if tree.status(job.out, f"bin/{old}") is None:
                made = ", ".join(sorted(each.name for each in (job.out / "bin").iterdir()))
                raise tree.Refused(f"no program {old} was built; what was: {made}")
            tree.rename(job.out, f"bin/{old}", new)


def build(job: Job, options: Go) -> None:
    """Compile `options.packages` into `bin/`."""
    _check_names(job, options)
    tree.remove_tree(job.src / "vendor")  # a module zip holds no vendored package, at most a lone modules.txt
    modcache = _modcache_path(job.module_patches)
    env = _environment(options, modcache)
    mounts = input_mounts(job.inputs) + _module_mounts(job, modcache)
    mounts += [Mount(job.src, SRC, writable=True), Mount(job.out, OUT, writable=True)]
    mounts += _caches(job, options, env)
    (job.out / "bin").mkdir()
    go = f"{IN}/go/bin/go"
    tags = ["-tags", ",".join(options.tags)] if options.tags else []
    common = ["-trimpath", "-buildvcs=false", "-p", str(machine.compilers()), *tags]
    if options.test:
        skipped = ["-skip", "^(" + "|".join(options.skip) + ")$"] if options.skip else []
        flags = ["-json", "-count=1", *common, "-ldflags", _ldflags(options), *skipped]
        command = [go, "test", *flags, *options.test]
        (job.work / "cgroup").mkdir()
        tested = [*mounts, Mount(job.work / "cgroup", "/sys/fs/cgroup")]  # tests ask for its file system's type
        done = job.box.run(Call(command, tested, env, SRC), log=job.log, capture=True, check=False)
        _write_tests(job, done)
    if not options.packages:
        (job.out / "bin").rmdir()
        return
    command = [go, "build", "-v", *common, "-ldflags", _ldflags(options), "-o", f"{OUT}/bin/", *options.packages]
    job.box.run(Call(command, mounts, env, SRC), log=job.log)
    _rename(job, options)
    check_programs(job.out, forbidden=[SRC, OUT, CACHE, ZIG, str(job.out.parent), str(job.cache)])


def _inputs(options: Go) -> Mapping[str, str]:
    compiler = {"zig": ""} if options.cgo else {}
    return {"go": ""} | compiler | {name: f"build.libraries[{at}]" for at, name in enumerate(options.libraries)}


KIND = BuilderKind(
    Go,
    build,
    code=("build/builders/go", "build/builders/elf", "build/builders/zig", "build/sources/go"),
    inputs=_inputs,
    tools=("bubblewrap", "go-client"),
    heavy=True,
    modules=Modules(go_closure.spec, go_closure.resolve, go_closure.patches),
)

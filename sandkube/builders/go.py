"""Builder `go`: static programs from one Go module, offline, against the pinned module closure.

The module cache that the build sees is a read-only view that holds the closure and nothing else. Go's own build
cache is kept across builds, in a folder named by all that Go does not see: toolchain, C compiler, environment.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandkube.buildbox import CACHE, IN, OUT, SRC, Mount
from sandkube.builders import Job
from sandkube.builders.elf import check_programs
from sandkube.digest import canonical_json, sha256_bytes
from sandkube.errors import UserError
from sandkube.fetch import go as fetch_go
from sandkube.patching import apply_patches
from sandkube.recipe import Go
from sandkube.run import Finished

_MODCACHE = "/sandkube/mod"


def _environment(options: Go, modcache: str) -> dict[str, str]:
    env = {
        "GOROOT": f"{IN}/go",
        "GOTOOLCHAIN": "local",
        "GOENV": "off",
        "GOPROXY": "off",
        "GOSUMDB": "off",
        "GOFLAGS": "-mod=readonly",
        "GOMODCACHE": modcache,
        "GOCACHE": f"{CACHE}/go",
        "GOTELEMETRY": "off",
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
            "CC": f"{IN}/zig/ziglang/zig cc -target x86_64-linux-musl",
            "CGO_CFLAGS": flags + includes,
            "CGO_LDFLAGS": f"-O2 -g0{libraries}",
            "ZIG_GLOBAL_CACHE_DIR": f"{CACHE}/zig",
            "ZIG_LOCAL_CACHE_DIR": f"{CACHE}/zig",
        }
    return env


def _ldflags(options: Go) -> str:
    words = ["-s", "-w", "-buildid=", *options.ldflags]
    if options.cgo:
        # The -s for the C linker matters: Go's default CGO_LDFLAGS hold -g, which comes after Go's own -s.
        words += ["-linkmode", "external", "-extldflags", "'-static -s -Wl,--build-id=none'"]
    return " ".join(words)


def _cache_folder(job: Job, env: Mapping[str, str]) -> Path:
    """A Go build cache of its own for each toolchain, C compiler and environment."""
    inputs = {name: path.name for name, path in job.inputs.items()}
    folder = job.cache / "go-build" / sha256_bytes(canonical_json({"inputs": inputs, "env": dict(env)}))[:32]
    for name in ("go", "zig"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return folder


def _patched_modules(job: Job) -> dict[str, Path]:
    """Copies of the closure's modules that have patches, patched, by `path@version` folder name in the view."""
    found: dict[str, Path] = {}
    by_path = {module.path: module for module in job.modules}
    for path, patches in job.module_patches.items():
        if path not in by_path:
            raise UserError(f"recipes/{job.name}.toml: build.patches: module {path} is not in the closure")
        into = job.work / "patched" / path.replace("/", "_")
        fetch_go.source_tree(by_path[path], into, cache=job.cache)
        apply_patches(into, patches)
        found[path] = into
    return found


def _module_mounts(job: Job, modcache: str) -> list[Mount]:
    view = job.work / "modules"
    binds = fetch_go.module_view(job.modules, cache=job.cache, into=view)
    patched = _patched_modules(job)
    folders = {f"{fetch_go.escape(each.path)}@{fetch_go.escape(each.version)}": each.path for each in job.modules}
    mounts = [Mount(view, modcache)]
    for host, inside in binds:
        mounts.append(Mount(patched.get(folders[inside], host), f"{modcache}/{inside}"))
    return mounts


def _modcache_path(module_patches: Mapping[str, Sequence[Path]]) -> str:
    """Go's index of a module's imports is cached by the module's path on disk: patched ones need another path."""
    if not module_patches:
        return _MODCACHE
    texts = [path.read_bytes() for patches in module_patches.values() for path in patches]
    return f"{_MODCACHE}-{sha256_bytes(b''.join(texts))[:12]}"


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


def build(job: Job, options: Go) -> None:
    """Compile `options.packages` into `bin/`."""
    if (job.src / "vendor").is_dir():
        shutil.rmtree(job.src / "vendor")  # a module zip holds no vendored package, at most a lone modules.txt
    modcache = _modcache_path(job.module_patches)
    env = _environment(options, modcache)
    mounts = [Mount(path, f"{IN}/{name}") for name, path in sorted(job.inputs.items())]
    mounts += _module_mounts(job, modcache)
    mounts += [Mount(job.src, SRC, writable=True), Mount(job.out, OUT, writable=True)]
    mounts += [Mount(_cache_folder(job, env), CACHE, writable=True)]
    (job.out / "bin").mkdir()
    go = f"{IN}/go/bin/go"
    tags = ["-tags", ",".join(options.tags)] if options.tags else []
    common = ["-trimpath", "-buildvcs=false", "-p", str(os.cpu_count() or 1), *tags]
    if options.test:
        skipped = ["-skip", "^(" + "|".join(options.skip) + ")$"] if options.skip else []
        flags = ["-json", "-count=1", *common, "-ldflags", _ldflags(options), *skipped]
        command = [go, "test", *flags, *options.test]
        (job.work / "cgroup").mkdir()
        tested = [*mounts, Mount(job.work / "cgroup", "/sys/fs/cgroup")]  # tests ask for its file system's type
        done = job.box.run(command, mounts=tested, env=env, cwd=SRC, log=job.log, capture=True, check=False)
        _write_tests(job, done)
    if not options.packages:
        (job.out / "bin").rmdir()
        return
    command = [go, "build", "-v", *common, "-ldflags", _ldflags(options), "-o", f"{OUT}/bin/", *options.packages]
    job.box.run(command, mounts=mounts, env=env, cwd=SRC, log=job.log)
    for old, new in options.names.items():
        (job.out / "bin" / old).rename(job.out / "bin" / new)
    check_programs(job.out, forbidden=[SRC, OUT, CACHE, str(job.out)])

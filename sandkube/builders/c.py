"""Builder `c`: one static library (`lib/NAME.a`) or one static program from C files, with `zig cc` against musl."""

from __future__ import annotations

from sandkube.buildbox import CACHE, IN, OUT, SRC, Mount
from sandkube.builders import Job
from sandkube.builders.elf import check_programs
from sandkube.errors import UserError
from sandkube.recipe import C

_ZIG = f"{IN}/zig/ziglang/zig"


def _sources(job: Job, options: C) -> list[str]:
    found: list[str] = []
    for at, pattern in enumerate(options.sources):
        matches = sorted(str(path.relative_to(job.src)) for path in job.src.glob(pattern))
        if not matches:
            raise UserError(f"recipes/{job.name}.toml: build.sources[{at}]: {pattern!r} matches nothing")
        found += [each for each in matches if each not in found]
    return found


def build(job: Job, options: C) -> None:
    """Compile every source, then archive or link; copy the public headers to `include/`."""
    zig_cache = job.cache / "zig" / job.inputs["zig"].name[:32]
    zig_cache.mkdir(parents=True, exist_ok=True)
    mounts = [Mount(path, f"{IN}/{name}") for name, path in sorted(job.inputs.items())]
    mounts += [Mount(job.src, SRC, writable=True), Mount(job.out, OUT, writable=True)]
    mounts += [Mount(zig_cache, CACHE, writable=True)]
    env = {"ZIG_GLOBAL_CACHE_DIR": CACHE, "ZIG_LOCAL_CACHE_DIR": CACHE}

    def box(*command: str) -> None:
        job.box.run(command, mounts=mounts, env=env, cwd=SRC, log=job.log)

    flags = ["-target", "x86_64-linux-musl", "-g0", f"-ffile-prefix-map={SRC}=/src", *options.cflags]
    flags += [f"-I{folder}" for folder in options.include]
    flags += [f"-D{name}={value}" if value else f"-D{name}" for name, value in sorted(options.define.items())]
    sources = _sources(job, options)
    (job.out / options.output).parent.mkdir(parents=True, exist_ok=True)
    if options.output.endswith(".a"):
        objects = [f"{source.replace('/', '_')}.o" for source in sources]
        for source, target in zip(sources, objects, strict=True):
            box(_ZIG, "cc", *flags, "-c", source, "-o", target)
        box(_ZIG, "ar", "Dcr", f"{OUT}/{options.output}", *sorted(objects))
    else:
        box(_ZIG, "cc", *flags, *sources, "-static", "-s", "-Wl,--build-id=none", "-o", f"{OUT}/{options.output}")
        check_programs(job.out, forbidden=[SRC, OUT, CACHE, str(job.out)])
    for header in options.headers:
        public = job.out / "include" / header.rpartition("/")[2]
        public.parent.mkdir(exist_ok=True)
        public.write_bytes((job.src / header).read_bytes())

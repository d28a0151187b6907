"""Builder `c`: one static library (`lib/NAME.a`) or one static program from C files, with `zig cc` against musl."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from sandkube import tree
from sandkube.build.box import OUT, SRC, ZIG, Call, Mount, input_mounts
from sandkube.build.builders import zig
from sandkube.build.builders.elf import check_programs
from sandkube.build.builders.kind import BuilderKind, Job, Patch, PatchName
from sandkube.decode import Fault
from sandkube.shapes import Below, Distinct, Identifier, Inside, Pattern, Some, Text


@dataclass(frozen=True, slots=True)
class C:
    """Builder `c`: one static library or one static program from C files.

    `define` is as the compiler has it: an empty value is `-DNAME`, which makes the macro 1.
    """

    sources: Some[Pattern]
    output: Below
    patches: Distinct[PatchName | Patch] = ()
    include: Distinct[Inside] = ()
    define: Mapping[Identifier, str] = field(default_factory=dict)
    cflags: tuple[Text, ...] = ()
    headers: Distinct[Below] = ()

    def faults(self) -> Iterator[Fault]:
        """Headers of one name, of which one would be lost in `include/`."""
        names = [each.rpartition("/")[2] for each in self.headers]
        for at, name in enumerate(names):
            if name in names[:at]:
                yield ("headers", at), f"{name} is the name of {self.headers[names.index(name)]}, too"


def _sources(job: Job, options: C) -> list[str]:
    found: list[str] = []
    for at, pattern in enumerate(options.sources):
        with job.at(f"build.sources[{at}]"):
            matches = tree.glob(job.src, pattern, links=True)
        if not matches:
            raise job.fault(f"build.sources[{at}]", f"{pattern!r} matches nothing")
        for name in matches:
            if not name.isprintable():
                raise job.fault(f"build.sources[{at}]", f"cannot compile {name!r}: its name is no printable UTF-8")
        found += [each for each in matches if each not in found]
    return found


def _word(source: str) -> str:
    """A source as a word of a command line, where one that begins with a hyphen is an option."""
    return f"./{source}" if source.startswith("-") else source


def _objects(job: Job, sources: Sequence[str]) -> Iterator[str]:
    """A name for each source's object, its own and no file's of the source: the archive keeps these names."""
    taken = {name for name, _ in tree.walk(job.src)}
    for source in sources:
        flat = source.replace("/", "_")
        names = (f"{flat}{number or ''}.o" for number in itertools.count())
        taken.add(name := next(each for each in names if each not in taken))
        yield name


def _headers(job: Job, options: C) -> None:
    for at, header in enumerate(options.headers):
        with job.at(f"build.headers[{at}]"):
            tree.write(job.out, f"include/{header.rpartition('/')[2]}", tree.read(job.src, header))


def build(job: Job, options: C) -> None:
    """Copy the public headers to `include/`, then compile every source, then archive or link."""
    job.check_inside("build.output", options.output)
    with job.at("build.output"):
        tree.check_name(PurePosixPath(options.output).name)
        tree.make_folder(job.out, str(PurePosixPath(options.output).parent))
    _headers(job, options)
    sources = _sources(job, options)
    mounts = input_mounts(job.inputs)
    mounts += [Mount(job.src, SRC, writable=True), Mount(job.out, OUT, writable=True)]
    mounts += [zig.shared_cache(job.inputs["zig"], job.cache)]

    def box(*command: str) -> None:
        job.box.run(Call(command, mounts, zig.ENVIRONMENT, SRC), log=job.log)

    flags = ["-target", zig.TARGET, "-g0", f"-ffile-prefix-map={SRC}=/src", *options.cflags]
    flags += [f"-I{folder}" for folder in options.include]
    flags += [f"-D{name}={value}" if value else f"-D{name}" for name, value in sorted(options.define.items())]
    output = f"{OUT}/{options.output}"
    if output.endswith(".a"):
        objects = list(_objects(job, sources))
        for source, target in zip(sources, objects, strict=True):
            box(zig.PROGRAM, "cc", *flags, "-c", _word(source), "-o", _word(target))
        box(zig.PROGRAM, "ar", "Dcr", output, *sorted(map(_word, objects)))
    else:
        box(zig.PROGRAM, "cc", *flags, *map(_word, sources), *zig.LINK, "-o", output)
        check_programs(job.out, forbidden=[SRC, OUT, ZIG, str(job.out.parent), str(job.cache)])


KIND = BuilderKind(
    C,
    build,
    code=("build/builders/c", "build/builders/elf", "build/builders/zig"),
    inputs=lambda _: {"zig": ""},
    tools=("bubblewrap",),
)

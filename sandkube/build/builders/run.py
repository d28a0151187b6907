"""Builder `run`: what a program of another output writes, which makes the same bytes wherever and whenever it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sandkube.build.box import IN, OUT, Call, Mount, input_mounts
from sandkube.build.builders.kind import BuilderKind, Job
from sandkube.shapes import Below, Distinct, RecipeName, Text


@dataclass(frozen=True, slots=True)
class Program:
    """An executable file, `path`, of the output of `from`."""

    from_: RecipeName
    path: Below


@dataclass(frozen=True, slots=True)
class Run:
    """Builder `run`: run `program` in the build sandbox.

    `arguments` name the output as /sandkube/out and each input, the program's too, as /sandkube/in/NAME.
    """

    program: Program
    arguments: tuple[Text, ...] = ()
    inputs: Distinct[RecipeName] = ()


def build(job: Job, options: Run) -> None:
    """Run the program."""
    program = f"{IN}/{options.program.from_}/{options.program.path}"
    mounts = [*input_mounts(job.inputs), Mount(job.out, OUT, writable=True)]
    job.box.run(Call([program, *options.arguments], mounts), log=job.log)


def _inputs(options: Run) -> Mapping[str, str]:
    named = {name: f"build.inputs[{at}]" for at, name in enumerate(options.inputs)}
    return named | {options.program.from_: "build.program.from"}


KIND = BuilderKind(Run, build, code=("build/builders/run",), inputs=_inputs, sourced=False, tools=("bubblewrap",))

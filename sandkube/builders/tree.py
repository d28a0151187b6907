"""Builder `tree`: the unpacked source as it is, with names and executable bits put right."""

from __future__ import annotations

from sandkube.builders import Job
from sandkube.errors import UserError
from sandkube.recipe import Tree


def build(job: Job, options: Tree) -> None:
    """Move the source to the output; rename, then mark programs as executable."""
    for each in sorted(job.src.iterdir()):
        each.rename(job.out / each.name)
    for old, new in options.rename.items():
        renamed = sorted(job.out.rglob(old))
        if not renamed:
            raise UserError(f"recipes/{job.name}.toml: build.rename: no file of the source is called {old}")
        for path in renamed:
            path.rename(path.with_name(new))
    for at, pattern in enumerate(options.executable):
        found = [path for path in job.out.glob(pattern) if path.is_file() and not path.is_symlink()]
        if not found:
            raise UserError(f"recipes/{job.name}.toml: build.executable[{at}]: {pattern!r} matches nothing")
        for path in found:
            path.chmod(0o755)

"""Patches, by `git apply`: exact context, binary patches too, and never the silence of a parent repository.

`git apply` inside a repository skips files outside of its current folder without a word, so it runs with
GIT_CEILING_DIRECTORIES at the tree's parent: no repository is found, every file counts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from sandkube.errors import UserError
from sandkube.run import CommandFailed, base_environment, run


def apply_patches(tree: Path, patches: Sequence[Path]) -> None:
    """Apply patches in order. Raises UserError with the patch's name and git's words (file and line of the hunk)."""
    real = tree.resolve()
    env = base_environment(Path("/nonexistent")) | {
        "GIT_CEILING_DIRECTORIES": str(real.parent),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
    }
    for patch in patches:
        with tempfile.TemporaryFile() as log:
            try:
                run(
                    ["git", "apply", "--verbose", "--whitespace=nowarn", str(patch.resolve())],
                    env=env,
                    cwd=real,
                    log=log,
                )
            except CommandFailed:
                log.seek(0)
                said = "\n".join(f"  {line}" for line in log.read().decode(errors="replace").splitlines())
                raise UserError(
                    f"patches/{patch.parent.name}/{patch.name}: does not apply:\n{said}",
                    hint="make it anew against this version of the source (HACKING.md, patch a product)",
                ) from None

"""Patches, by `git apply`: exact context, binary patches too, and the same bytes on every machine.

git changes line ends and more by attributes (gitattributes(5)): of the system, of the user and of the source itself.
An empty repository that is made for the call has the last word on them, and knows no setting of anybody. It is also
why no file is passed over: inside a repository, `git apply` skips without a word what is outside of its current folder.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sandkube.errors import UserError
from sandkube.run import CommandFailed, base_environment, run

_ATTRIBUTES = "* -text !eol -ident !filter !working-tree-encoding !whitespace !diff !merge\n"


@contextlib.contextmanager
def _repository(tree: Path) -> Iterator[Mapping[str, str]]:
    """The environment in which git takes `tree` for the files of an empty repository without settings."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("objects", "refs", "info"):
            (folder / name).mkdir()
        (folder / "HEAD").write_text("ref: refs/heads/none\n")
        (folder / "info/attributes").write_text(_ATTRIBUTES)
        yield base_environment(Path("/nonexistent")) | {
            "GIT_DIR": temporary,
            "GIT_WORK_TREE": str(tree),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_ATTR_NOSYSTEM": "1",
            "LC_ALL": "C.UTF-8",
        }


def _apply(patch: Path, tree: Path, env: Mapping[str, str]) -> None:
    words = ["-c", f"core.attributesFile={os.devnull}", "apply", "--verbose", "--whitespace=nowarn"]
    with tempfile.TemporaryFile() as log:
        try:
            run(["git", *words, patch.resolve()], env=env, cwd=tree, log=log)
        except CommandFailed:
            log.seek(0)
            said = "\n".join(f"  {line}" for line in log.read().decode(errors="replace").splitlines())
            raise UserError(
                f"patches/{patch.parent.name}/{patch.name}: does not apply:\n{said}",
                hint="make it anew against this version of the source (HACKING.md, patch a product)",
            ) from None


def apply_patches(tree: Path, patches: Sequence[Path]) -> None:
    """Apply patches in order. Raises UserError with the patch's name and git's words (file and line of the hunk)."""
    if not patches:
        return
    real = tree.resolve()
    with _repository(real) as env:
        for patch in patches:
            _apply(patch, real, env)

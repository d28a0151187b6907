"""The folders that a run uses, and what the machine refuses there."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sandkube.errors import RunRefused, UserError, one_line, refused
from sandkube.files import check_folder


def _home(environment: Mapping[str, str]) -> Path | None:
    home = Path(environment.get("HOME") or "/")
    if home == Path("/"):
        try:
            home = Path(pwd.getpwuid(os.getuid()).pw_dir)
        except KeyError:
            return None
        return home if home != Path("/") and home.is_dir() else None
    return home


@dataclass(frozen=True, slots=True)
class Places:
    """The folders that a run uses: the clone, its outputs, and this user's cache."""

    root: Path
    outputs: Path
    cache: Path

    @classmethod
    def of(cls, root: Path, environment: Mapping[str, str]) -> Places:
        """`outputs/` of the clone; the cache under XDG_CACHE_HOME, or ~/.cache as the XDG specification says.

        Who has no home (none is named, the one of the user database is not there, or it is `/`, as container engines
        have it for users they do not know) has the cache in outputs/cache.
        """
        outputs = root / "outputs"
        base = environment.get("XDG_CACHE_HOME", "")
        if not base.startswith("/"):  # the specification has a relative one ignored
            home = _home(environment)
            base = str(home / ".cache" if home else outputs / "cache")
        return cls(root, outputs, Path(base) / "sandkube")

    def refused(self, error: OSError) -> UserError | None:
        """The sentence for what the machine refused a step; a full disk often comes without a file's name."""
        if error.errno == errno.ENOSPC and not error.filename:
            free = {path: shutil.disk_usage(path).free / 1e6 for path in (self.outputs, self.cache) if path.is_dir()}
            text = ", ".join(f"{path} has {left:.0f} MB free" for path, left in free.items())
            return UserError(f"no space left on device: {text}", hint="free some space there; a whole build takes 5 GB")
        return refused(error)

    def check_outputs(self) -> None:
        """Raises RunRefused where something else stands in the place of a folder that steps write to."""
        try:
            for name in ("", "logs", "failed", "result"):
                check_folder(self.outputs / name)
        except UserError as error:
            raise RunRefused(error.message, hint=error.hint) from None

    def check_cache(self) -> None:
        """Make the cache folder, and try to write in it. Raises RunRefused."""
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.cache):
                pass
        except OSError as error:
            raise RunRefused(
                f"the cache folder {one_line(self.cache)} cannot be used: {error.strerror}",
                hint="set XDG_CACHE_HOME to a folder that this user can write",
            ) from None

"""A cluster's kubeconfig: the names in it, and its part in the user's own kubeconfig.

The file is read and written by the built kubectl, which knows all that may stand in it; comments are lost, as by
kubectl itself. What is new is renamed into place, under the lock that client-go and so kubectl has: FILE.lock, a file
that is made and removed (tools/clientcmd/config.go). A cluster's folder notes in `merged.json` what was put where.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sandkube import log
from sandkube.cluster.place import Place
from sandkube.cluster.watch import DELETE, Watch
from sandkube.decode import decoded
from sandkube.documents import parse_json, read_file
from sandkube.errors import UserError, told
from sandkube.files import write_whole
from sandkube.run import CommandFailed, base_environment, run

_MERGED = "merged.json"
_PARTS = ("clusters", "contexts", "users")
_PATIENCE = 10.0  # seconds for whoever has the lock; kubectl has it for milliseconds
_NAMES = re.compile(r"^( *(?:- )?(?:name|cluster|user|current-context): )(?:sandkube|admin)$", re.MULTILINE)
"""Lines of the node's kubeconfig (native/node/pki) that name its cluster, its user and its context."""


@dataclass(frozen=True, slots=True)
class _Merged:
    """What was put into a file: the authority tells this cluster from others of its name."""

    file: str
    program: str
    authority: str
    previous: str
    """The context that was the current one."""


def context(name: str) -> str:
    """What a cluster, its user and its context are called."""
    return f"sandkube-{name}"


def named(text: str, name: str) -> str:
    """The node's kubeconfig with the names that a cluster has on this machine."""
    return _NAMES.sub(rf"\1{context(name)}", text)


def user_file(environment: Mapping[str, str]) -> Path:
    """The file that kubectl would change: the first one of KUBECONFIG that is there, the last if none is, or
    ~/.kube/config. Raises UserError where there is no home.
    """
    files = [each for each in environment.get("KUBECONFIG", "").split(os.pathsep) if each]
    if files:
        return Path(next((each for each in files if Path(each).exists()), files[-1])).absolute()
    try:
        return Path.home() / ".kube/config"
    except RuntimeError:
        raise UserError("this user has no home for a .kube/config", hint="set KUBECONFIG to a file") from None


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold the lock that client-go takes. Raises UserError, OSError."""
    lock = file.with_name(f"{file.name}.lock")
    file.parent.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + _PATIENCE
    with contextlib.ExitStack() as stack:
        watch = None
        while True:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
                break
            left = until - time.monotonic()
            if left <= 0:
                raise UserError(
                    f"{lock} is there: another program changes {file}, or was killed while it did",
                    hint=f"if none does, remove it: rm {lock}",
                )
            if watch is None:
                watch = stack.enter_context(Watch(file.parent, DELETE))
            else:
                select.select([watch.descriptor], [], [], left)
                watch.drain()
        stack.callback(lock.unlink, missing_ok=True)
        yield


class _Files:
    """Kubeconfigs as values, by kubectl."""

    def __init__(self, place: Place, program: Path) -> None:
        self._place = place
        self._program = program

    def _view(self, file: Path, form: str) -> bytes:
        words = [str(self._program), "config", "view", "--raw", f"--kubeconfig={file}", f"--output={form}"]
        said = self._place.folder / ".kubeconfig.said"
        try:
            with said.open("w+b") as errors:
                try:
                    env = base_environment(self._place.folder)
                    return run(words, env=env, cwd=self._place.folder, log=errors, capture=True).stdout
                except CommandFailed:
                    errors.seek(0)
                    text = errors.read().decode(errors="replace").strip().removeprefix("error: ")
                    raise UserError(f"{file} is no kubeconfig: {text}", hint="it is left as it is; mend it") from None
        finally:
            said.unlink(missing_ok=True)

    def read(self, file: Path) -> dict[str, Any]:
        """What a file says; nothing, if there is none. Raises UserError."""
        found: dict[str, Any] = parse_json(self._view(file, "json")) if file.exists() else {}
        return found | {part: found.get(part) or [] for part in _PARTS}

    def write(self, file: Path, config: Mapping[str, Any]) -> None:
        """Replace a file whole; its mode and its owner stay. Raises UserError, OSError."""
        draft = self._place.folder / ".kubeconfig.draft"
        try:
            self._place.write_file(draft.name, json.dumps({"apiVersion": "v1", "kind": "Config"} | dict(config)))
            text = self._view(draft, "yaml")
        finally:
            draft.unlink(missing_ok=True)
        real = Path(os.path.realpath(file))
        before = real.stat() if real.exists() else None
        write_whole(real, text, mode=before.st_mode & 0o7777 if before else 0o600)
        if before is not None and (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
            with contextlib.suppress(PermissionError):
                os.chown(real, before.st_uid, before.st_gid)


def _authority(config: Mapping[str, Any], name: str) -> str:
    found = [each["cluster"] for each in config["clusters"] if each["name"] == name]
    return str(found[0].get("certificate-authority-data", "")) if found else ""


def merge(place: Place, program: Path, file: Path) -> None:
    """Put a cluster into a kubeconfig, and make it the current one. Raises UserError, and leaves the file as it is."""
    files, name = _Files(place, program), context(place.name)
    own = files.read(place.kubeconfig)
    try:
        with _locked(file):
            config = files.read(file)
            previous = str(config.get("current-context") or "")
            known = _merged(place)
            if previous == name:
                previous = known.previous if known else ""
            for part in _PARTS:
                config[part] = [*(each for each in config[part] if each["name"] != name), *own[part]]
            config["current-context"] = name
            note = _Merged(str(file), str(program), _authority(own, name), previous)
            place.write_file(_MERGED, json.dumps(asdict(note)))
            files.write(file, config)
    except OSError as error:
        raise UserError(f"{error.filename or file}: {error.strerror}", hint="KUBECONFIG names another file") from None


def _merged(place: Place) -> _Merged | None:
    with contextlib.suppress(UserError, ValueError):
        return decoded(_Merged, parse_json(read_file(place.folder / _MERGED, _MERGED)), _MERGED)
    return None


def unmerge(place: Place) -> None:
    """Take a cluster out of the kubeconfig that it was put into, if it is there. What hinders that is said, no more."""
    note = _merged(place)
    if note is None:
        return
    try:
        _take_out(place, note)
    except (UserError, OSError) as error:
        name = context(place.name)
        log.say(f"{note.file} still has the context {name}, its cluster and its user: {told(error)}")
    (place.folder / _MERGED).unlink(missing_ok=True)


def _take_out(place: Place, note: _Merged) -> None:
    files, name, file = _Files(place, Path(note.program)), context(place.name), Path(note.file)
    if not file.exists():
        return
    with _locked(file):
        config = files.read(file)
        if _authority(config, name) != note.authority:
            return  # another cluster of this name, from elsewhere, has been put there since
        for part in _PARTS:
            config[part] = [each for each in config[part] if each["name"] != name]
        if config.get("current-context") == name:
            left = {each["name"] for each in config["contexts"]}
            config["current-context"] = note.previous if note.previous in left else ""
        files.write(file, config)

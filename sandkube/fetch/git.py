"""`git:` sources: one commit of a repository, pinned by commit and tree hash, by GitPython.

Each repository address has a bare repository in the user's cache. Only objects are fetched: no hook, filter or
attribute runs, nothing is checked out; the tree is written by us from its objects. git itself checks each object
that arrives against its name, and the pinned tree's name covers every byte of the source.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import git
from git.objects import Blob, Submodule, Tree

from sandkube import log
from sandkube.digest import sha256_bytes
from sandkube.errors import HashMismatch, UserError
from sandkube.lock import Pin
from sandkube.recipe import Source
from sandkube.run import network_environment


def _environment(folder: Path) -> Mapping[str, str]:
    return network_environment(folder) | {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ASKPASS": "/bin/false",
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": "transfer.fsckObjects",
        "GIT_CONFIG_VALUE_0": "true",
        "GIT_CONFIG_KEY_1": "core.hooksPath",
        "GIT_CONFIG_VALUE_1": os.devnull,
    }


def _repository(source: Source, cache: Path) -> git.Repo:
    folder = cache / "git" / sha256_bytes(source.name.encode())[:32]
    if not (folder / "HEAD").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        git.Repo.init(folder, bare=True)
    repository = git.Repo(folder, odbt=git.GitCmdObjectDB)
    repository.git.update_environment(**_environment(folder))
    return repository


def _has(repository: git.Repo, commit: str) -> bool:
    try:
        repository.git.rev_list("--objects", "--quiet", "--no-walk", commit)
    except git.GitCommandError:
        return False
    return True


def _say(error: git.GitCommandError) -> str:
    lines = str(error.stderr).strip().strip("'").splitlines()
    return " ".join(line.strip() for line in lines[-2:]).removeprefix("stderr: '")


def _bring(name: str, source: Source, cache: Path) -> git.Repo:
    """The repository with the commit in it. Raises UserError."""
    repository = _repository(source, cache)
    commit = source.version
    if _has(repository, commit):
        return repository
    log.step(name, f"fetching {commit[:12]} from {source.name}")
    try:
        # Servers may refuse a commit that no branch names; then all branches are fetched.
        repository.git.fetch("--depth=1", "--no-tags", "--force", "--", source.name, commit)
    except git.GitCommandError:
        try:
            repository.git.fetch("--force", "--tags", "--", source.name, "+refs/*:refs/sandkube/*")
        except git.GitCommandError as error:
            raise UserError(
                f"{name}: git could not fetch {source.name}: {_say(error)}",
                hint="is the address reachable? git's own credentials and proxy settings are honoured",
            ) from None
    if not _has(repository, commit):
        raise UserError(f"{name}: {source.name} has no commit {commit}")
    return repository


def _tree_of(repository: git.Repo, commit: str) -> str:
    return str(repository.git.rev_parse("--verify", f"{commit}^{{tree}}"))


def fetch(name: str, source: Source, pin: Pin, cache: Path) -> None:
    """Bring the pinned commit into the cache. Raises HashMismatch when its tree is not the pinned one."""
    repository = _bring(name, source, cache)
    tree = _tree_of(repository, pin.commit)
    if tree != pin.tree:
        raise HashMismatch(f"{source}", expected=f"tree {pin.tree}", got=f"tree {tree}", origin=source.name)


def resolve(name: str, source: Source, cache: Path) -> tuple[str, str]:
    """The commit and its tree."""
    repository = _bring(name, source, cache)
    return source.version, _tree_of(repository, source.version)


def versions(source: Source, cache: Path) -> list[str]:
    """The commit that the remote's HEAD names."""
    repository = _repository(source, cache)
    try:
        text = str(repository.git.ls_remote("--", source.name, "HEAD"))
    except git.GitCommandError as error:
        raise UserError(f"git could not ask {source.name}: {_say(error)}") from None
    return [text.split()[0]] if text.split() else []


def _entries(tree: Tree) -> Iterator[Tree | Blob | Submodule]:
    yield from tree


def _write(tree: Tree, into: Path, source: Source) -> None:
    for entry in _entries(tree):
        if entry.name in (".", "..", ".git") or "/" in entry.name:
            raise UserError(f"{source}: refuses the file name {entry.path!r}")
        target = into / entry.name
        if isinstance(entry, Submodule):
            raise UserError(f"{source}: {entry.path} is a submodule", hint="make a recipe of its own for it")
        if isinstance(entry, Tree):
            target.mkdir()
            _write(entry, target, source)
        elif entry.mode == 0o120000:
            target.symlink_to(os.fsdecode(entry.data_stream.read()))
        else:
            target.write_bytes(entry.data_stream.read())
            target.chmod(0o755 if entry.mode & 0o100 else 0o644)


def unpack(source: Source, pin: Pin, into: Path, cache: Path) -> None:
    """Write the pinned tree into an empty folder, byte for byte."""
    repository = _repository(source, cache)
    _write(Tree(repository, bytes.fromhex(pin.tree)), into, source)

"""`git:` sources: one commit of a repository, pinned by commit and tree hash.

Each repository address has a bare repository in the user's cache, `git/<hash of the address>`; who writes to it holds
`git/<hash of the address>.lock`, who reads it shares that lock. `git/<hash of the address>.<tree>.read` holds the seal
that the repository had when all of that tree was read last, so that it need not be again. git itself brings the
objects, with the user's own credentials and mirrors; no hook, filter or attribute runs and nothing is checked out. The
tree is written by us from its objects, read by GitPython and hashed again one by one: the pinned tree's name covers
every byte, whatever the cache or the server holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sandkube import log
from sandkube.build.lock import Pin
from sandkube.build.sources.kind import Ask, Source, SourceKind
from sandkube.build.sources.settings import PATIENCE, Patience, client_environment, user_home
from sandkube.digest import sha256_bytes
from sandkube.errors import HashMismatch, UserError
from sandkube.files import locked, write_whole
from sandkube.later import later
from sandkube.run import CommandFailed, run, wait
from sandkube.tree import Refused, link, make_folder, remove_tree, seal_of, write

if TYPE_CHECKING:
    import git
    from git.objects import fun
else:
    git = later("git")
    fun = later("git.objects.fun")

# Servers may refuse a commit that no branch or tag names, or know nothing of shallow histories.
_REFUSED = re.compile(r"unadvertised object|not our ref|shallow|find remote ref")
_HOPELESS = re.compile(
    r"not found|does not exist|not appear to be a git repository|could not read|Authentication failed"
)
_DAMAGE = re.compile(r"bad object|did not send all necessary objects|corrupt|inflate|loose object|packfile .* cannot")
_SETTINGS = (
    *("gc.auto=0", "maintenance.auto=false"),  # either would leave a process behind
    *("transfer.fsckObjects=true", f"core.hooksPath={os.devnull}"),
    "fetch.unpackLimit=1",  # objects arrive as a whole pack or not at all
)
_GITLINK, _SYMLINK, _TREE = 0o160000, 0o120000, 0o040000


class _Failed(Exception):
    """git ended with an error; the text is its last words."""


class _Damaged(Exception):
    """The cached repository lacks an object, or holds other bytes under its name."""


def _git(folder: Path, *words: str, low_speed: float = 0) -> str:
    """Run git on a bare repository; its standard output."""
    env = client_environment(user_home() or folder)  # the user's git settings: credentials, url.*.insteadOf, proxies
    env |= {name: os.environ[name] for name in ("SSH_AUTH_SOCK", "XDG_CONFIG_HOME") if name in os.environ}
    env |= {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
        "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
    }
    settings = [*_SETTINGS]
    if low_speed:
        settings += ["http.lowSpeedLimit=1", f"http.lowSpeedTime={max(1, round(low_speed))}"]
    argv = ["git", "--git-dir", str(folder), *(part for each in settings for part in ("-c", each)), *words]
    with tempfile.TemporaryFile() as sink:
        try:
            return run(argv, env=env, cwd=folder, log=sink, capture=True).stdout.decode(errors="replace").strip()
        except CommandFailed as failure:
            sink.seek(0)
            said = [line.strip() for line in sink.read().decode(errors="replace").splitlines() if line.strip()]
            wanted = [line for line in said if re.match(r"(fatal|error|remote):", line)] or said
            raise _Failed(" ".join(wanted[-2:]) or failure.message) from None


def _folder(source: Source, cache: Path) -> Path:
    return (cache / "git" / sha256_bytes(source.name.encode())[:32]).resolve()


def _make(folder: Path) -> None:
    """Make the bare repository if it is not there; take away what a killed git left."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in (*folder.glob("*.lock"), *folder.glob("refs/**/*.lock"), *folder.glob("objects/pack/tmp_*")):
        stale.unlink()
    if not (folder / "HEAD").is_file():
        _git(folder, "init", "--quiet", "--bare", "--template=", "--object-format=sha1")


@contextlib.contextmanager
def _locked(source: Source, cache: Path, how: int = fcntl.LOCK_EX) -> Iterator[Path]:
    """The repository's folder, kept from other threads and processes; with LOCK_SH, from those that write."""
    if len(source.version) == 64:
        raise UserError(
            f"{source}: is a commit of a SHA-256 repository, which is not supported", hint="use a url: source of it"
        )
    folder = _folder(source, cache)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock"), how):
        if how == fcntl.LOCK_EX:
            _make(folder)
        yield folder


def _note(folder: Path, tree: str) -> Path:
    return folder.with_name(f"{folder.name}.{tree}.read")


def _was_read(source: Source, tree: str, cache: Path) -> bool:
    """Whether the commit has this tree, all of which was read and hashed since the repository changed last."""
    with _locked(source, cache, fcntl.LOCK_SH) as folder, contextlib.suppress(OSError):
        return _note(folder, tree).read_text() == f"{source.version} {seal_of(folder)}"
    return False


def _tree(folder: Path, commit: str) -> str:
    """The name of a commit's tree; "" when the repository does not have this commit."""
    try:
        found = _git(folder, "rev-parse", "--revs-only", f"{commit}^{{commit}}", f"{commit}^{{tree}}").split()
    except _Failed:
        return ""
    return found[1] if found[:1] == [commit] and len(found) == 2 else ""


def _fetch_once(folder: Path, source: Source, low_speed: float) -> None:
    words = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--force")
    commit = source.version
    try:
        refspec = f"{commit}:refs/sandkube/pins/{commit}"
        _git(folder, *words, "--depth=1", "--", source.name, refspec, low_speed=low_speed)
    except _Failed as refusal:
        if not _REFUSED.search(str(refusal)):
            raise
        whole = ["--unshallow"] if (folder / "shallow").is_file() else []
        refspecs = [f"+refs/{each}/*:refs/sandkube/all/{each}/*" for each in ("heads", "tags")]
        _git(folder, *words, "--prune", *whole, "--", source.name, *refspecs, low_speed=low_speed)


def _bring(name: str, folder: Path, source: Source, patience: Patience) -> str:
    """Bring the commit into the repository; the name of its tree. Raises _Damaged, UserError."""
    if tree := _tree(folder, source.version):
        return tree
    log.step(name, f"fetching {source.version[:12]} from {source.name}")
    for attempt in range(patience.attempts):
        try:
            _fetch_once(folder, source, patience.stall)
            break
        except _Failed as error:
            if _DAMAGE.search(str(error)):
                raise _Damaged(str(error)) from None
            if attempt + 1 == patience.attempts or _HOPELESS.search(str(error)):
                raise UserError(
                    f"{name}: git could not fetch {source.name}: {error}",
                    hint="is the address reachable? git's own credentials, insteadOf and proxy settings are honoured",
                ) from None
            log.step(name, f"{source.name}: {error}; trying again")
        wait(patience.pause * 2**attempt)
    if tree := _tree(folder, source.version):
        return tree
    raise UserError(f"{name}: {source.name} has no commit {source.version} in its branches and tags")


def _reader(folder: Path) -> git.Repo:
    repository = git.Repo(folder, odbt=git.GitCmdObjectDB)
    # GitPython's children inherit this process's environment, which may be that of a git hook.
    repository.git.update_environment(
        GIT_DIR=str(folder),
        GIT_OBJECT_DIRECTORY=str(folder / "objects"),
        GIT_ALTERNATE_OBJECT_DIRECTORIES="",
        GIT_CONFIG_NOSYSTEM="1",
        GIT_CONFIG_GLOBAL=os.devnull,
        GIT_NO_REPLACE_OBJECTS="1",
        LC_ALL="C",
    )
    return repository


def _read(repository: git.Repo, name: bytes, kind: str) -> bytes:
    """An object's bytes, which hash to its name."""
    data, fault = b"", ""
    try:
        data = repository.odb.stream(name).read()
    except (git.GitError, ValueError, OSError, AssertionError) as error:
        fault = str(error).strip() or type(error).__name__
    if fault:  # raised here, for the error's frames hold the stream, which wants git when it goes
        raise _Damaged(f"{kind} {name.hex()}: {fault}")
    if hashlib.sha1(f"{kind} {len(data)}\0".encode() + data, usedforsecurity=False).digest() != name:
        raise _Damaged(f"{kind} {name.hex()} has other bytes")
    return data


def _entries(repository: git.Repo, source: Source, tree: bytes, above: str = "") -> Iterator[tuple[str, int, bytes]]:
    """(path, mode, content) of all below a tree, folders before what is in them. Raises _Damaged, UserError."""
    try:
        rows = fun.tree_entries_from_data(_read(repository, tree, "tree"))
    except ValueError as error:
        raise UserError(f"{source}: refuses the folder {above or '/'}: {error}") from None
    for name, mode, base in rows:
        path = f"{above}{base}"
        if base in ("", ".", "..") or base.lower() == ".git" or "/" in base:
            raise UserError(f"{source}: refuses the file name {path!r}")
        if mode == _GITLINK:
            raise UserError(f"{source}: {path} is a submodule", hint="make a recipe of its own for it")
        if mode == _TREE:
            yield path, mode, b""
            yield from _entries(repository, source, name, f"{path}/")
        else:
            yield path, mode, _read(repository, name, "blob")


def _read_all(folder: Path, source: Source, tree: str) -> None:
    """Read everything of a tree. Raises _Damaged, and UserError for what cannot be unpacked."""
    with contextlib.closing(_reader(folder)) as repository:
        for _ in _entries(repository, source, bytes.fromhex(tree)):
            pass


def resolve(name: str, source: Source, cache: Path, patience: Patience = PATIENCE) -> tuple[str, str]:
    """The commit and its tree, all of whose objects are in the cache. Raises UserError."""
    with _locked(source, cache) as folder:
        for again in (False, True):
            try:
                tree = _bring(name, folder, source, patience)
                _read_all(folder, source, tree)
                write_whole(_note(folder, tree), f"{source.version} {seal_of(folder)}", sync=False)
                return source.version, tree
            except _Damaged as damage:
                if again:
                    raise UserError(f"{name}: {source.name} was fetched anew, but {damage}") from None
                log.step(name, f"the cached repository of {source.name} was damaged ({damage}); it is fetched again")
            remove_tree(folder)
            _make(folder)
    raise AssertionError  # the loop ends by return or raise


def fetch(name: str, source: Source, pin: Pin, cache: Path, patience: Patience = PATIENCE) -> None:
    """Bring the pinned commit into the cache. Raises HashMismatch when its tree is not the pinned one."""
    if _was_read(source, pin.tree, cache):
        return
    _, tree = resolve(name, source, cache, patience)
    if tree != pin.tree:
        raise HashMismatch(f"{name}: {source}", expected=f"tree {pin.tree}", got=f"tree {tree}", origin=source.name)


def versions(source: Source, cache: Path) -> list[str]:
    """The commit that the remote's HEAD names."""
    with _locked(source, cache) as folder:
        try:
            text = _git(folder, "ls-remote", "--", source.name, "HEAD", low_speed=PATIENCE.stall)
        except _Failed as error:
            raise UserError(f"git could not ask {source.name}: {error}") from None
    return text.split()[:1]


def _write(into: Path, path: str, mode: int, content: bytes) -> None:
    if mode == _TREE:
        make_folder(into, path)
    elif mode == _SYMLINK:
        link(into, path, os.fsdecode(content))
    else:
        write(into, path, content, executable=bool(mode & 0o100))


def unpack(source: Source, pin: Pin, into: Path, cache: Path) -> None:
    """Write the pinned tree into an empty folder, byte for byte."""
    with _locked(source, cache, fcntl.LOCK_SH) as folder:
        try:
            with contextlib.closing(_reader(folder)) as repository:
                for path, mode, content in _entries(repository, source, bytes.fromhex(pin.tree)):
                    _write(into, path, mode, content)
        except (_Damaged, git.GitError) as damage:
            _note(folder, pin.tree).unlink(missing_ok=True)
            raise UserError(f"{source}: the cached repository is damaged: {damage}", hint="run it again") from None
        except Refused as refusal:
            raise UserError(f"{source}: {refusal.message}") from None


def _resolve(ask: Ask) -> Pin:
    commit, tree = resolve(ask.recipe, ask.source, ask.cache)
    return Pin("", commit=commit, tree=tree)


def _snapshot(ask: Ask, into: Path) -> str:
    unpack(ask.source, ask.pin, into, ask.cache)  # which hashes every object that it writes
    return _identity(ask)


def _identity(ask: Ask) -> str:
    return f"git-tree:{ask.pin.tree}"


def _check(source: Source) -> str:
    if not re.fullmatch(r"[0-9a-f]{40}([0-9a-f]{24})?", source.version):
        return f"a git source is pinned by a full commit hash, got {source.version!r}"
    scheme, _, rest = source.name.partition("://")
    known = not rest or scheme in ("file", "git", "http", "https", "ssh")
    if known and re.fullmatch(r"[^\s-]\S*", source.name) and "::" not in source.name and source.name.isprintable():
        return ""
    return f"{source.name!r} is no address of a git repository, such as https://example.org/name.git"


def _misfit(source: Source, pin: Pin) -> str:
    return "" if pin.commit == source.version else f"its commit is {pin.commit}"


KIND = SourceKind(
    identity=_identity,
    resolve=_resolve,
    fetch=lambda ask: fetch(ask.recipe, ask.source, ask.pin, ask.cache),
    snapshot=_snapshot,
    code=("build/sources/git",),
    versions=lambda ask: versions(ask.source, ask.cache),
    pinned=("commit", "tree"),
    misfit=_misfit,
    check=_check,
)

"""`zig cc`: the C compiler of the builders `c` and `go`, with musl's libc, for static programs of any Linux.

zig keeps two caches. The *global* one holds what it makes of its own sources: libc, start files, compiler_rt, a set
for each level of optimisation, more than a minute of a core each. Their names come from zig's version, target and
level, and each is made under a file lock, so one folder serves every step, several at once. zig (0.17, `checkInputPath`
of std/Build/Cache.zig) takes a source of its own with another inode number for a changed one: copies of the toolchain,
as two clones have, would overwrite each other's libc for ever, so each copy has a folder of its own.

The *local* cache holds objects of the user's sources, under names that come from paths and flags: in two sandboxes the
same path is another file, and zig overwrites what the other is about to link (ziglang/zig#18989). So a step's local
cache is its own /tmp.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sandkube.build.box import IN, TMP, ZIG, Mount

PROGRAM = f"{IN}/zig/ziglang/zig"
TARGET = "x86_64-linux-musl"
LINK = ("-static", "-s", "-Wl,--build-id=none")
ENVIRONMENT: Mapping[str, str] = {"ZIG_GLOBAL_CACHE_DIR": ZIG, "ZIG_LOCAL_CACHE_DIR": TMP}


def shared_cache(zig: Path, cache: Path) -> Mount:
    """The global cache of `zig`, an output, in this user's `cache`."""
    status = zig.stat()
    folder = cache / "zig" / f"{zig.name[:32]}-{status.st_dev:x}-{status.st_ino:x}"
    folder.mkdir(parents=True, exist_ok=True)
    return Mount(folder, ZIG, writable=True)

"""Kinds of values that fields are declared with: strings, numbers and arrays that must look like something.

to: Inside                 a path below a folder that is known where it is used, or that folder itself
tags: Distinct[Word]       an array that holds nothing twice
"""

from __future__ import annotations

import re
from typing import Annotated, TypeVar

from sandkube.decode import Shape, looks_like, shown

X = TypeVar("X")


def matching(wanted: str, pattern: str) -> Shape:
    """The shape of strings that match a regular expression (of ASCII) as a whole."""
    return looks_like(wanted, re.compile(pattern, re.ASCII).fullmatch)


def _is_below(path: str) -> bool:
    return path.isprintable() and all(part not in ("", ".", "..") for part in path.split("/"))


def _is_pattern(path: str) -> bool:
    return _is_below(path) and all("**" not in part or part == "**" for part in path.split("/"))


def _is_line(text: str) -> bool:
    return text.isprintable() and text == text.strip() and 0 < len(text) <= 120


def _twice(items: tuple[object, ...]) -> str:
    doubled = [each for at, each in enumerate(items) if each in items[:at]]
    return f"holds {shown(doubled[0])} twice" if doubled else ""


Text = Annotated[str, looks_like("a text that is not empty", bool)]
Line = Annotated[str, looks_like("one line of at most 120 characters", _is_line)]
Word = Annotated[str, looks_like("a word without blanks", lambda v: v.isprintable() and re.fullmatch(r"[^\s-]\S*", v))]
Identifier = Annotated[str, matching("a name of letters, digits and _", r"[A-Za-z_]\w*")]
Setting = Annotated[str, looks_like("NAME=VALUE", re.compile(r"[A-Za-z_]\w*=", re.ASCII).match)]

Below = Annotated[str, looks_like("a relative path without . and ..", _is_below)]
Inside = Annotated[str, looks_like("a relative path without ..", lambda v: v == "." or _is_below(v))]
Absolute = Annotated[str, looks_like("an absolute path", lambda v: v == "/" or (v[:1] == "/" and _is_below(v[1:])))]
Pattern = Annotated[str, looks_like("a pattern of relative paths without ..", _is_pattern)]
FileName = Annotated[str, looks_like("the name of a file", lambda v: _is_below(v) and "/" not in v)]
Mode = Annotated[str, matching('a mode such as "0755"', "[0-7]{3,4}")]

RecipeName = Annotated[str, matching("a recipe's name, of a-z, 0-9 and inner hyphens", "[a-z0-9]([a-z0-9-]*[a-z0-9])?")]
Sha256 = Annotated[str, matching("a SHA-256 of 64 hexadecimal digits", "[0-9a-f]{64}")]
Sha1 = Annotated[str, matching("a SHA-1 of 40 hexadecimal digits", "[0-9a-f]{40}")]
GitHash = Annotated[str, matching("a git hash of 40 or 64 hexadecimal digits", "[0-9a-f]{40}([0-9a-f]{24})?")]
GoSum = Annotated[str, matching("a sum as in go.sum, h1: and 32 bytes in base 64", "h1:[A-Za-z0-9+/]{43}=")]
Size = Annotated[int, looks_like("a size in bytes", lambda v: v >= 0)]

GO_PATH = r"[\w~-][\w.~-]*(/[\w~-][\w.~-]*)*"
"""A module's path (golang.org/x/mod/module), which is a path on disk as well."""
GO_VERSION = r"v\d+\.\d+\.\d+([.+-][\w.+-]*)?"
GoPath = Annotated[str, matching("the path of a Go module", GO_PATH)]
GoModule = Annotated[str, matching("MODULE@VERSION of a Go module", f"{GO_PATH}@{GO_VERSION}")]

Distinct = Annotated[tuple[X, ...], Shape(_twice)]
Some = Annotated[tuple[X, ...], looks_like("at least one item", bool), Shape(_twice)]

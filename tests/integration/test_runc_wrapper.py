"""runc-wrapper takes cgroup namespaces out of a bundle and changes nothing else."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.sanitized import program

CGROUP = {"type": "cgroup"}
RUNC = """#!/bin/sh
printf '%s\\n' "$0" "$@" >"$SAID"
case "$STATUS" in TERM) kill -TERM $$ ;; esac
exit "$STATUS"
"""


@pytest.fixture(scope="module")
def wrapper() -> Path:
    return program("runc-wrapper")


def run(wrapper: Path, folder: Path, *words: str, status: str = "0") -> subprocess.CompletedProcess[str]:
    runc = folder / "runc"
    runc.write_text(RUNC)
    runc.chmod(0o755)
    env = {"RUNC_WRAPPER_RUNC": str(runc), "SAID": str(folder / "said"), "STATUS": status}
    return subprocess.run([str(wrapper), *words], env=env, cwd=folder, capture_output=True, text=True)


def edited(wrapper: Path, folder: Path, text: str) -> str:
    (folder / "config.json").write_bytes(text.encode())
    done = run(wrapper, folder, "create", "--bundle", str(folder), "id")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "runc", "said"], "no temporary file"
    return (folder / "config.json").read_bytes().decode()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"linux":{"namespaces":[{"type":"cgroup"}]}}', '{"linux":{"namespaces":[]}}'),
        (
            '{"linux":{"namespaces":[{"type":"cgroup"},{"type":"pid"}]}}',
            '{"linux":{"namespaces":[{"type":"pid"}]}}',
        ),
        (
            '{ "linux" : { "namespaces" : [ {"type":"pid"} , { "path":"/x" , "type" : "cgroup" } ] } }\n',
            '{ "linux" : { "namespaces" : [ {"type":"pid"} ] } }\n',
        ),
        (
            '{"l\\u0069nux":{"namesp\\u0061ces":[{"t\\u0079pe":"cgr\\u006fup"},{"type":"a"},{"type":"cgroup"}]}}',
            '{"l\\u0069nux":{"namesp\\u0061ces":[{"type":"a"}]}}',
        ),
        ('{"linux":{"namespaces":[{"type":"cgroup","type":"pid"}]}}', None),
        ('{"linux":{"namespaces":[{"type":"pid","type":"cgroup"},1]}}', '{"linux":{"namespaces":[1]}}'),
        ('{"mounts":[{"type":"cgroup"}],"linux":{"namespaces":[{"type":"pid"}]}}', None),
        ('{"linux":{"x":{"namespaces":[{"type":"cgroup"}]}},"namespaces":[{"type":"cgroup"}]}', None),
        ('{"a":"\\"linux\\":{\\"namespaces\\":[{\\"type\\":\\"cgroup\\"}]}"}', None),
        ('{"linux":{"namespaces":[{"in":{"type":"cgroup"}},"cgroup",["cgroup"],null]}}', None),
        ('{"linux":{"namespaces":[{"type":"cgroup"}]}', None),
        ('{"linux":{"namespaces":[{"type":"cgroup"},]}}', None),
        ('{"linux":{"namespaces":[{"type":"cgroup"}]}} x', None),
        ("[" * 10000, None),
        ("", None),
    ],
)
def test_edits(wrapper: Path, tmp_path: Path, before: str, after: str | None) -> None:
    assert edited(wrapper, tmp_path, before) == (before if after is None else after)


def value(rng: random.Random, depth: int) -> Any:
    kind = rng.randrange(7 if depth else 5)
    if kind == 0:
        return "".join(rng.choice('ab"\\/[]{},: \n\té\U0001f600cgroup') for _ in range(rng.randrange(8)))
    if kind == 1:
        return rng.choice([0, -1, 1.5, 1e30, 10**15])
    if kind == 2:
        return rng.choice([None, True, False])
    if kind == 3:
        return "cgroup"
    if kind == 4:
        return dict(CGROUP)
    if kind == 5:
        return [value(rng, depth - 1) for _ in range(rng.randrange(5))]
    keys = ["type", "linux", "namespaces", "path", "x" * rng.randrange(3)]
    return {rng.choice(keys): value(rng, depth - 1) for _ in range(rng.randrange(5))}


def without(spec: Any) -> Any:
    """What the wrapper is to make of it."""
    if not (isinstance(spec, dict) and isinstance(spec.get("linux"), dict)):
        return spec
    listed = spec["linux"].get("namespaces")
    if not isinstance(listed, list):
        return spec
    kept = [each for each in listed if not (isinstance(each, dict) and each.get("type") == "cgroup")]
    return spec | {"linux": spec["linux"] | {"namespaces": kept}}


def test_any_spec(wrapper: Path, tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", time.time_ns()))
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(300):
        spec = {"linux": {"namespaces": [value(rng, 2) for _ in range(rng.randrange(6))], "x": value(rng, 3)}}
        spec = value(rng, 4) if rng.random() < 0.2 else {"a": value(rng, 3)} | spec | {"mounts": value(rng, 3)}
        indent, ascii_only = rng.choice([None, 1, "\t"]), rng.random() < 0.5
        text = json.dumps(spec, indent=indent, ensure_ascii=ascii_only)
        found = edited(wrapper, tmp_path, text)
        assert json.loads(found) == without(spec), text
        if without(spec) == spec:
            assert found == text


def test_what_is_not_a_namespace_keeps_every_byte(wrapper: Path, tmp_path: Path) -> None:
    before = (
        '{"a" : 1.50e+3,\t"b":"\\u00e9\\/" ,"linux":{"z":[ ],"namespaces":[{"type":"cgroup"}],"y": {}}, "c":"é"}\r\n'
    )
    assert edited(wrapper, tmp_path, before) == before.replace('{"type":"cgroup"}', "")


def test_owner_and_mode_stay(wrapper: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"linux": {"namespaces": [CGROUP]}}))
    config.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(config, 1, 2)
    before = config.stat()
    run(wrapper, tmp_path, "run", "id")
    after = config.stat()
    assert json.loads(config.read_text()) == {"linux": {"namespaces": []}}
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


@pytest.mark.parametrize(
    ("words", "edits"),
    [
        (["create", "--bundle", "B", "id"], True),
        (["create", "-b", "B", "id"], True),
        (["create", "--bundle=B", "id"], True),
        (["--root", "create", "--log=x", "--systemd-cgroup", "run", "-b=B", "id"], True),
        (["--debug", "restore", "--bundle", "B", "id"], True),
        (["delete", "--bundle", "B", "id"], False),
        (["--root", "create", "state", "B"], False),
        ([], False),
    ],
)
def test_command_lines(wrapper: Path, tmp_path: Path, words: list[str], *, edits: bool) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    text = json.dumps({"linux": {"namespaces": [CGROUP]}})
    (bundle / "config.json").write_text(text)
    given = [word.replace("B", str(bundle)) for word in words]
    assert run(wrapper, tmp_path, *given).returncode == 0
    assert (tmp_path / "said").read_text().splitlines()[1:] == given, "arguments are passed on"
    assert ((bundle / "config.json").read_text() != text) is edits


def test_status_and_signal_are_those_of_runc(wrapper: Path, tmp_path: Path) -> None:
    assert run(wrapper, tmp_path, "state", "id", status="7").returncode == 7
    assert run(wrapper, tmp_path, "state", "id", status="TERM").returncode == -signal.SIGTERM


def test_a_missing_runc_is_a_sentence(wrapper: Path) -> None:
    done = subprocess.run([wrapper, "list"], env={"RUNC_WRAPPER_RUNC": "/no/runc"}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (127, "runc-wrapper: /no/runc: No such file or directory\n")

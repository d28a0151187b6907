"""Realising: what runs, why, and what is left alone. Real recipes of kinds that need no toolchain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sandkube import plan
from sandkube.lock import Pin
from sandkube.realise import Places, Realiser
from sandkube.store import Store

ORDER = ("base", "middle", "top")


def project(root: Path) -> Path:
    """base (a local folder) -> middle (takes one of its two files) -> top (takes all of middle)."""
    (root / "recipes").mkdir(parents=True)
    (root / "native/base").mkdir(parents=True)
    (root / "native/base/used").write_text("used\n")
    (root / "native/base/unused").write_text("unused\n")
    (root / "recipes/base.toml").write_text('source = "local:native/base"\n[build]\nkind = "tree"\n')
    rootfs = '[build]\nkind = "rootfs"\n[[build.install]]\nfrom = "%s"\npath = "%s"\nto = "%s"\n'
    (root / "recipes/middle.toml").write_text(rootfs % ("base", "used", "etc/used"))
    (root / "recipes/top.toml").write_text(rootfs % ("middle", ".", "all"))
    return root


def run(root: Path) -> dict[str, str]:
    """Realise everything as doit would; name -> reason of the steps that ran."""
    places = Places(root, root / "outputs", root / "cache")
    one = plan.load(root)
    one = plan.Plan(root, one.recipes, {name: Pin("") for name in one.recipes})
    realiser = Realiser(one, places, Store(places.outputs / "store"))
    ran = {}
    for name in ORDER:
        if not realiser.up_to_date(name):
            ran[name] = realiser.reasons[name]
            realiser.realise(name)
    return ran


def hashes(root: Path) -> dict[str, str]:
    return {name: (root / "outputs/result" / name).resolve().name for name in ORDER}


def test_everything_then_nothing(tmp_path: Path) -> None:
    project(tmp_path)
    assert run(tmp_path) == dict.fromkeys(ORDER, "never built here")
    assert run(tmp_path) == {}
    assert (tmp_path / "outputs/result/top/all/etc/used").read_text() == "used\n"


def test_touching_runs_nothing(tmp_path: Path) -> None:
    project(tmp_path)
    run(tmp_path)
    for path in [*tmp_path.glob("native/**/*"), *tmp_path.glob("recipes/*")]:
        path.touch()
    assert run(tmp_path) == {}


def test_early_cutoff(tmp_path: Path) -> None:
    """A change that does not reach `middle`'s bytes stops there, and says why each step ran."""
    project(tmp_path)
    run(tmp_path)
    (tmp_path / "native/base/unused").write_text("changed\n")
    assert run(tmp_path) == {"base": "the source changed", "middle": "input changed: base"}


def test_change_goes_all_the_way(tmp_path: Path) -> None:
    project(tmp_path)
    run(tmp_path)
    (tmp_path / "native/base/used").write_text("changed\n")
    assert run(tmp_path) == {
        "base": "the source changed",
        "middle": "input changed: base",
        "top": "input changed: middle",
    }


def test_going_back_runs_nothing(tmp_path: Path) -> None:
    project(tmp_path)
    run(tmp_path)
    (tmp_path / "native/base/used").write_text("changed\n")
    run(tmp_path)
    (tmp_path / "native/base/used").write_text("used\n")
    assert run(tmp_path) == {}


def test_same_bytes_in_another_folder(tmp_path: Path) -> None:
    first, second = project(tmp_path / "a"), project(tmp_path / "b/deep/er")
    run(first)
    run(second)
    assert hashes(first) == hashes(second)


def test_damaged_output_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project(tmp_path)
    run(tmp_path)
    before = hashes(tmp_path)
    victim = tmp_path / "outputs/result/base/used"
    victim.chmod(0o644)
    victim.write_text("EVIL\n")
    assert run(tmp_path) == {"base": "what the store held was damaged"}
    assert f"output {before['base']} was damaged" in capsys.readouterr().out
    assert hashes(tmp_path) == before
    assert victim.read_text() == "used\n"


def test_damaged_record_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project(tmp_path)
    run(tmp_path)
    for path in (tmp_path / "outputs/store/records").iterdir():
        value = json.loads(path.read_text())
        if value["name"] == "middle":
            value["output"] = hashes(tmp_path)["top"]
            path.write_text(json.dumps(value))
    assert run(tmp_path) == {"middle": "what the store held was damaged"}
    assert "is damaged" in capsys.readouterr().out


def test_deleted_outputs_are_made_again(tmp_path: Path) -> None:
    project(tmp_path)
    run(tmp_path)
    before = hashes(tmp_path)
    Store(tmp_path / "outputs/store").forget("0" * 64)
    from sandkube.store import remove_tree

    remove_tree(tmp_path / "outputs/store/trees" / before["top"])
    assert run(tmp_path) == {"top": "its output is gone from the store"}
    assert hashes(tmp_path) == before


def test_changed_patch_and_option_are_named(tmp_path: Path) -> None:
    project(tmp_path)
    run(tmp_path)
    recipe = tmp_path / "recipes/top.toml"
    recipe.write_text(recipe.read_text() + '\n[build.links]\n"x" = "y"\n')
    assert run(tmp_path) == {"top": "option changed: links"}

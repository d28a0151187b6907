"""The commands on images, as typed, as far as they get without a node."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from sandkube.app.guard import guarded
from sandkube.app.images import Images
from sandkube.app.load_image import LoadImage
from sandkube.app.remove_image import RemoveImage
from sandkube.app.verb import Verb
from sandkube.cli.building import Checkout
from sandkube.cluster import engines
from sandkube.cluster.place import Place, State, birth, boot_id, place
from sandkube.errors import UserError
from sandkube.images import held
from tests.image_maker import Made, docker, layer, packed

WORD = packed(docker([Made([layer({"etc/word": b"word"})], ["word:1"])]))
ENGINE = """#!/bin/sh
[ "$1 $2 $3" = "image save --output" ] && [ "$5" = -- ] || exit 9
[ "$6" = word:1 ] || { echo "noise" >&2; echo "Error: no such image: $6" >&2; exit 1; }
cat "$WORD" >"$4"
"""


@pytest.fixture
def one(tmp_path: Path) -> Place:
    """A cluster whose supervisor is this process; nothing of it can be run."""
    made = place(tmp_path, "dev")
    made.folder.mkdir(parents=True)
    made.write(State("running", os.getpid(), birth(os.getpid()), boot_id(), "sandkube-1", 1.0, port=1234))
    return made


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for podman, in a folder where programs are looked for."""
    folder = tmp_path / "programs"
    folder.mkdir()
    program = folder / "podman"
    program.write_text(ENGINE)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "word.tar").write_bytes(WORD)
    monkeypatch.setenv("WORD", str(tmp_path / "word.tar"))
    monkeypatch.setattr(engines, "program_path", lambda: str(folder))
    return program


def said(capsys: pytest.CaptureFixture[str], outputs: Path, kind: type[Verb], *words: str) -> str:
    """The sentence that a command ends with."""
    home = Checkout(lambda *_words, **_settings: 0, outputs=outputs)
    assert guarded(lambda: kind(home).parse_execute([*words])) == 1
    text = capsys.readouterr()
    assert text.out == ""
    return text.err


@pytest.mark.parametrize(
    ("kind", "words", "sentence"),
    [
        (LoadImage, [], "error: load-image: which file?\n"),
        (LoadImage, ["--from", "podman"], "error: load-image: which image?\n"),
        (
            LoadImage,
            ["--from", "rkt", "x"],
            "error: load-image: what is 'rkt'?\n  hint: --from takes docker or podman\n",
        ),
        (LoadImage, ["x", "--all", "--name", "a"], "error: load-image: --name and --all exclude each other\n"),
        (LoadImage, ["x", "--name", "other"], "error: cluster other is not running\n"),
        (LoadImage, ["/proc/no-such-file"], "error: /proc/no-such-file: No such file or directory\n"),
        (Images, ["-o", "yaml"], "error: images: there is no output 'yaml'\n"),
        (Images, ["--name", "other"], "error: cluster other is not running\n"),
        (RemoveImage, [], "error: remove-image: which image?\n  hint: ./do images lists them\n"),
        (RemoveImage, ["x", "--name", "other"], "error: cluster other is not running\n"),
    ],
)
def test_refusals(
    one: Place, capsys: pytest.CaptureFixture[str], kind: type[Verb], words: list[str], sentence: str
) -> None:
    if kind is LoadImage and words == ["/proc/no-such-file"]:
        words = [*words, "--name", one.name]
    assert said(capsys, one.folder.parents[1], kind, *words).startswith(sentence)


def test_no_cluster_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in (LoadImage, RemoveImage):
        assert said(capsys, tmp_path, kind, "x", "--all").startswith("error: no cluster runs\n")


def test_a_terminal_is_no_image(
    one: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    text = said(capsys, one.folder.parents[1], LoadImage, "-", "--name", one.name)
    assert text == ("error: standard input is a terminal, no image\n  hint: docker save IMAGE | ./do load-image -\n")


@pytest.mark.usefixtures("engine")
def test_an_engines_image(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with engines.saved("podman", "word:1", scratch) as files:
        assert [each.names for each in held(files, "").images] == [("word:1",)]
    assert list(scratch.iterdir()) == []
    with pytest.raises(UserError) as raised, engines.saved("podman", "other:1", scratch):
        pass
    assert raised.value.message == "podman does not give other:1: Error: no such image: other:1"
    with pytest.raises(UserError, match="^docker is not here\n"), engines.saved("docker", "word:1", scratch):
        pass

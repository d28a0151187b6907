"""Which caches there are: the variable, the file, and a sentence for all that is neither."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandkube.build.cache.folder import Folder
from sandkube.build.cache.http import Http
from sandkube.build.cache.keys import Keys
from sandkube.build.cache.settings import VARIABLE, Setting, folder, settings
from sandkube.build.cache.shared import Shared
from sandkube.errors import UserError
from sandkube.registry.logins import netrc_file


def of(text: str) -> tuple[Setting, ...]:
    return settings({VARIABLE: text})


def test_the_variable() -> None:
    assert of("") == ()
    assert of("  file:///srv/a?write \n https://cache.example.org:8443/x  ") == (
        Setting("file:///srv/a", write=True),
        Setting("https://cache.example.org:8443/x"),
    )
    assert of("http://[::1]:80/") == (Setting("http://[::1]:80/"),)
    assert of("file:///a%20b")[0].open() == Folder(Path("/a b"))
    assert isinstance(of("http://h")[0].open(), Http)


HINT = (
    "addresses look like file:///DIR, https://HOST/PATH and oci://HOST/REPOSITORY; "
    "in SANDKUBE_CACHE one that may be written ends with ?write"
)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("file://", "'file://' names no folder by a whole path"),
        ("file://host/a", "'file://host/a' names no folder by a whole path"),
        ("file:a", "'file:a' names no folder by a whole path"),
        ("file:///a%00b", "'file:///a%00b' is no address"),
        ("/srv/cache", "'/srv/cache' is of no kind that is known (file, http, https, oci)"),
        ("ftp://x/", "'ftp://x/' is of no kind that is known (file, http, https, oci)"),
        ("http://", "'http://' names no host"),
        ("http://a..b/", "'http://a..b/' names no host"),
        (f"http://{'a' * 64}/", f"'http://{'a' * 64}/' names no host"),
        ("http://h:port/", "'http://h:port/' is no address"),
        ("http://h:0/", "'http://h:0/' is no address"),
        ("http://h:65536/", "'http://h:65536/' is no address"),
        ("http://[::1", "'http://[::1' is no address"),
        ("http://h/\x01", "'http://h/\\x01' is no address"),
        ("http://h/#x", "'http://h/#x' ends with something that is no part of it"),
        ("http://h/?writ", "'http://h/?writ' ends with ?writ"),
        ("http://me:secret@h/", "'http://…@h/' holds a credential, which belongs in ~/.netrc"),
        ("http://me:sec/ret@h/", "'http://…@h/' is no address"),
        ("http://:@h/", "'http://…@h/' holds a credential, which belongs in ~/.netrc"),
        ("ftp://me:secret@h/", "'ftp://…@h/' is of no kind that is known (file, http, https, oci)"),
    ],
)
def test_what_is_no_address(word: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        of(f"file:///a {word}")
    assert (caught.value.message, caught.value.hint) == (f"SANDKUBE_CACHE: {said}", HINT)
    (tmp_path / "sandkube").mkdir()
    (tmp_path / "sandkube/config.toml").write_text(f"[[cache]]\naddress = {json.dumps(word)}\n")
    if not word.endswith("writ"):
        with pytest.raises(UserError) as caught:
            settings({"XDG_CONFIG_HOME": str(tmp_path)})
        path = tmp_path / "sandkube/config.toml"
        assert caught.value.message == f"{path}: cache[0].address: {said}"


@given(st.text(max_size=30) | st.text("htps:/.@[]?#%0a-", max_size=20).map("http://".__add__))
def test_any_text_is_settings_or_a_sentence(text: str) -> None:
    try:
        for each in of(text):
            each.open()
    except UserError as error:
        assert error.hint == HINT


def at(home: Path, text: str) -> dict[str, str]:
    (home / "sandkube").mkdir()
    (home / "sandkube/config.toml").write_text(text)
    return {"XDG_CONFIG_HOME": str(home)}


def test_the_file(tmp_path: Path) -> None:
    text = '[[cache]]\naddress = "file:///a"\nwrite = true\ntrust = ["ci"]\nsignatures = 2\n[[cache]]\naddress = "http://h"\n'
    environment = at(tmp_path, text)
    assert settings(environment) == (
        Setting("file:///a", write=True, trust=("ci",), signatures=2),
        Setting("http://h"),
    )
    assert settings({**environment, VARIABLE: ""}) == ()
    assert settings({"XDG_CONFIG_HOME": str(tmp_path / "none")}) == ()


def test_where_the_file_is() -> None:
    assert folder({"XDG_CONFIG_HOME": "/x", "HOME": "/h"}) == Path("/x/sandkube")
    assert folder({"XDG_CONFIG_HOME": "x", "HOME": "/h"}) == folder({"HOME": "/h"}) == Path("/h/.config/sandkube")
    assert settings({}) == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1", ": x: unknown key"),
        ("[cache]", ": cache: expected an array, got a table"),
        ("[[cache]]", ": cache[0].address: missing key"),
        ('[[cache]]\naddress = "file:///a"\nwritable = true', ": cache[0].writable: unknown key (did you mean write?)"),
        (
            '[[cache]]\naddress = "file:///a"\nsignatures = 0',
            ": cache[0].signatures: expected a number from 1 on",
        ),
        ('[[cache]]\naddress = "file:///a"\nwrite = "yes"', ": cache[0].write: expected true or false, got 'yes'"),
        ("[[cache", ": not valid TOML: "),
        ("\udcff", ": not valid TOML: "),
    ],
)
def test_what_is_wrong_in_the_file(tmp_path: Path, text: str, said: str) -> None:
    environment = at(tmp_path, "")
    path = tmp_path / "sandkube/config.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError) as caught:
        settings(environment)
    assert f"{path}{said}" in caught.value.message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    environment = at(tmp_path, "")
    (tmp_path / "sandkube/config.toml").unlink()
    (tmp_path / "sandkube/config.toml").mkdir()
    with pytest.raises(UserError, match=r"config\.toml is a folder; a file is expected"):
        settings(environment)


def test_trust_in_nobody(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    keys.new("ci")
    assert Shared([Setting("file:///a", trust=("ci",))], keys).places[0].trusted == keys.trusted()
    with pytest.raises(UserError, match="file:///a: no key 'cd' is trusted"):
        Shared([Setting("file:///a", trust=("ci", "cd"))], keys)


def test_a_home_that_cannot_be_looked_into() -> None:
    """As one that this user may not read: there are no settings then, and no passwords."""
    environment = {"HOME": "/" + 300 * "x"}
    assert settings(environment) == ()
    assert netrc_file(environment) is None

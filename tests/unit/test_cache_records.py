"""Records of shared caches: who says them, who is believed, and that nothing else can be made of them."""

from __future__ import annotations

import base64
import copy
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandkube.build.cache import statement
from sandkube.build.cache.keys import Keys, PublicKey, parse, sign, signers
from sandkube.build.cache.kind import RECORD_LIMIT, Blob
from sandkube.build.cache.place import Place
from sandkube.build.cache.settings import Setting
from sandkube.build.cache.statement import Index, Signed, Statement, read
from sandkube.build.derivation import key_of
from sandkube.digest import canonical_json
from sandkube.errors import UserError

PREIMAGE: dict[str, Any] = {
    "schema": 1,
    "kind": "tree",
    "inputs": {"base": "0" * 64},
    "patches": [["a", "b"]],
    "options": {"x": True},
}
KEY = key_of(PREIMAGE)
ONE = Statement(KEY, "middle", "1" * 64, 4711, PREIMAGE)
INDEX = Index("2" * 64, 100)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    made = Keys(tmp_path_factory.mktemp("keys") / "keys")
    made.new("ci")
    return made


def signed(ours: Keys) -> Signed:
    return Signed(ONE, INDEX, sign(ONE, ours.own()))


def believed(data: bytes, ours: Keys) -> Statement | None:
    """What is made of the bytes of a record by a reader who trusts `ours`."""
    try:
        found = read(data, KEY)
    except UserError as error:
        assert "\n" not in error.message
        return None
    return found.record if signers(found, ours.trusted()) else None


def test_it_round_trips(ours: Keys) -> None:
    one = signed(ours)
    assert read(one.encode(), KEY) == one
    assert believed(one.encode(), ours) == ONE
    assert signers(one, ours.trusted()) == ("ci",)


@given(data=st.data())
def test_changed_bytes_mean_the_same_or_nothing(ours: Keys, data: st.DataObject) -> None:
    sound = signed(ours).encode()
    at = data.draw(st.integers(0, len(sound) - 1))
    other = sound[:at] + data.draw(st.binary(max_size=3)) + sound[at + data.draw(st.integers(0, 3)) :]
    assert believed(other, ours) in (ONE, None)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a document."""
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


ODD: Sequence[Any] = (
    *(None, True, False, 0, 1, -1, 1.0, 2**70, "", "1" * 64, "3" * 64, [], {}, ["a"], {"a": "b"}, "\0", "middle"),
    *("\ud800", {"\ud800": 1}, float("1e300"), "../x", [[[[]]]]),
)


@given(data=st.data())
def test_changed_documents_mean_the_same_or_nothing(ours: Keys, data: st.DataObject) -> None:
    value = json.loads(signed(ours).encode())
    path = data.draw(st.sampled_from(list(places(value))[1:]))
    inside: Any = value
    for each in path[:-1]:
        inside = inside[each]
    match data.draw(st.integers(0, 2)):
        case 0:
            inside[path[-1]] = copy.deepcopy(data.draw(st.sampled_from(ODD)))
        case 1 if isinstance(inside, dict):
            inside[data.draw(st.sampled_from(["x", "key", "", "\ud800"]))] = inside.pop(path[-1])
        case _:
            del inside[path[-1]]
    assert believed(json.dumps(value).encode(), ours) in (ONE, None)


@pytest.mark.parametrize("preimage", ["1e400", '{"a":1e400}', '{"a":"\\ud800"}', "[" * 900 + "]" * 900, "[" * 100_000])
def test_preimages_that_have_no_key(ours: Keys, preimage: str) -> None:
    text = signed(ours).encode().decode()
    other = text.replace(canonical_json(PREIMAGE).decode(), preimage)
    assert other != text
    with pytest.raises(UserError, match="no sound record|the record of another key"):
        read(other.encode(), KEY)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no sound record: not valid JSON: "),
        (b"\xff", "no sound record: not valid JSON: "),
        (b"{}", "no sound record: record: index: missing key"),
        (b"[]", "no sound record: record: expected a table, got an array"),
        (b" " * (RECORD_LIMIT + 1), "a record that is too large"),
        (replace(Signed(ONE, INDEX, {}), index=Index("2" * 64, 1 << 40)).encode(), "index.size: expected the size of"),
        (Signed(replace(ONE, size=0), INDEX, {}).encode(), "index: expected null, for the record says no size"),
        (Signed(ONE, INDEX, {"x": "y"}).encode(), "expected a public key, base64, got 'x'"),
        (Signed(replace(ONE, key="4" * 64), INDEX, {}).encode(), "the record of another key"),
        (Signed(replace(ONE, preimage={}), INDEX, {}).encode(), "the record of another key"),
    ],
)
def test_what_is_no_record(data: bytes, said: str) -> None:
    with pytest.raises(UserError) as caught:
        read(data, KEY)
    assert said in caught.value.message


def test_one_form_of_base64() -> None:
    """The last character of 32 bytes has two bits that mean nothing: another one would be another name of a key."""
    text = base64.b64encode(bytes(32)).decode()
    assert statement.unbase64(text, 32) == bytes(32)
    assert statement.unbase64(text[:-2] + "B=", 32) is None
    with pytest.raises(UserError, match="is no public key"):
        parse(f"x:{text[:-2]}B=")


class Held:
    """A cache in memory that has one record."""

    def __init__(self, data: bytes | None) -> None:
        self.data = data

    def record(self, _key: str) -> bytes | None:
        return self.data

    def blob(self, _one: Blob) -> bytes | None:
        return None

    def missing(self, blobs: Sequence[Blob]) -> list[Blob]:
        return list(blobs)

    def put(self, _one: Blob, _data: bytes) -> None: ...

    def publish(self, _key: str, record: bytes, _blobs: Sequence[Blob]) -> None:
        self.data = record


def refused(one: Signed, trusted: Sequence[PublicKey], wanted: int = 1) -> str:
    """Why a place does not use a record; "" if it does."""
    place = Place(Setting("file:///x", signatures=wanted), Held(one.encode()), tuple(trusted))
    found = place.asked("middle", KEY)
    assert (found is None) == bool(place.refused)
    said = place.refused.get("middle", "")
    assert "\n" not in said
    assert list(place.report()) == ([f"cache file:///x: not used, {said}: middle"] if said else [])
    return said


@pytest.fixture
def people(tmp_path: Path) -> Callable[[str], Keys]:
    return lambda name: Keys(tmp_path / name)


def test_whose_records_are_used(people: Callable[[str], Keys]) -> None:
    ours, theirs, reader = people("ours"), people("theirs"), people("reader")
    ci, other = ours.new("ci"), theirs.new("ci")
    reader.trust(ci)
    by_ours, by_theirs = sign(ONE, ours.own()), sign(ONE, theirs.own())
    nobody = "signed by nobody who is trusted, or wrongly"
    assert refused(Signed(ONE, INDEX, by_ours), reader.trusted()) == ""
    assert refused(Signed(ONE, INDEX, {}), reader.trusted()) == "not signed"
    assert refused(Signed(ONE, INDEX, by_theirs), reader.trusted()) == nobody
    assert refused(Signed(ONE, INDEX, {ci.public: by_theirs[other.public]}), reader.trusted()) == nobody
    assert refused(Signed(replace(ONE, output="9" * 64), INDEX, by_ours), reader.trusted()) == nobody
    assert refused(Signed(ONE, INDEX, {**by_ours, **by_theirs}), reader.trusted(), 2) == (
        "signed by ci; 2 signatures are wanted"
    )
    reader.trust(replace(other, name="else"))
    assert refused(Signed(ONE, INDEX, {**by_ours, **by_theirs}), reader.trusted(), 2) == ""
    reader.revoke("ci")
    assert refused(Signed(ONE, INDEX, by_ours), reader.trusted()) == nobody
    with pytest.raises(UserError, match="that key was revoked here"):
        reader.trust(replace(ci, name="again"))


def test_a_key_with_two_names_counts_once(people: Callable[[str], Keys]) -> None:
    ours, reader = people("ours"), people("reader")
    ci = ours.new("ci")
    reader.trust(ci)
    reader.trust(replace(ci, name="second"))
    one = Signed(ONE, INDEX, sign(ONE, ours.own()))
    assert refused(one, reader.trusted(), 2) == "signed by ci; 2 signatures are wanted"
    reader.revoke("second")
    assert reader.trusted() == ()


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/a", ".a", "-a", "a b", "a:b", "a\0", "ä", "x" * 65])
def test_names_of_keys(people: Callable[[str], Keys], name: str, tmp_path: Path) -> None:
    one = people("one")
    with pytest.raises(UserError, match="is no name for a key"):
        one.new(name)
    with pytest.raises(UserError, match="is no name for a key|is no public key"):
        one.trust(PublicKey(name, base64.b64encode(bytes(32)).decode()))
    with pytest.raises(UserError, match="is trusted"):
        one.revoke(name)
    assert list(tmp_path.iterdir()) == []


def test_a_private_key_is_its_owners(people: Callable[[str], Keys]) -> None:
    one = people("one")
    one.new("ci")
    assert (one.folder / "ci.key").stat().st_mode & 0o777 == 0o600
    assert one.folder.stat().st_mode & 0o777 == 0o700
    for name in ("ci",):
        with pytest.raises(UserError, match="there is a key 'ci' already"):
            one.new(name)
    one.revoke("ci")
    assert (one.own(), one.trusted()) == ({}, ())
    with pytest.raises(UserError, match="there is a key 'ci' already"):
        one.new("ci")


@pytest.mark.parametrize(("suffix", "method"), [("pub", "trusted"), ("revoked", "trusted"), ("key", "own")])
def test_files_that_are_no_keys_are_named(people: Callable[[str], Keys], suffix: str, method: str) -> None:
    one = people("one")
    one.new("ci")
    path = one.folder / f"odd.{suffix}"
    some = random.Random(1)
    for content in (b"", b"odd", b"odd:x", some.randbytes(200)):
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            getattr(one, method)()
        assert str(path) in caught.value.message
        assert "\n" not in caught.value.message
        assert caught.value.hint


def test_a_key_of_another_kind(people: Callable[[str], Keys]) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import x25519

    one = people("one")
    one.new("ci")
    other = x25519.X25519PrivateKey.generate()
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (one.folder / "odd.key").write_bytes(other.private_bytes(*form))
    with pytest.raises(UserError, match=r"odd\.key is no ed25519 key"):
        one.own()

"""Builds with shared caches: records before trees, what is fetched, what is built, and what a dry run says of it."""

from __future__ import annotations

import dataclasses
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sandkube import tree
from sandkube.build import builders, plan
from sandkube.build.builders import rootfs
from sandkube.build.cache import chunks
from sandkube.build.cache.keys import Keys
from sandkube.build.cache.push import Pusher
from sandkube.build.cache.shared import Shared
from sandkube.build.cache.statement import read
from sandkube.build.decide import Decision, State, decide_all, decide_build
from sandkube.build.lock import Pin
from sandkube.build.places import Places
from sandkube.build.realise import Realiser
from sandkube.build.store import Record, Store
from sandkube.build.weights import FETCH
from sandkube.cli.main import Main
from sandkube.errors import UserError
from sandkube.tree import remove_tree
from tests.caches import Person, index_of, made
from tests.small import RECIPES, ROOT, Said, Small, small


@dataclass(slots=True)
class Seen(Realiser):
    """A run that notes which steps it builds."""

    built: list[str] = field(default_factory=list)

    def _build(self, decision: Decision) -> Record:
        self.built.append(decision.name)
        return Realiser._build(self, decision)


@dataclass(frozen=True)
class Checkout:
    """Recipes and a store, used in process."""

    root: Path

    @classmethod
    def at(cls, root: Path, recipes: Mapping[str, str] = RECIPES) -> Checkout:
        (root / "native/base").mkdir(parents=True)
        (root / "native/base/used").write_text("used\n")
        (root / "recipes").mkdir()
        for name, text in recipes.items():
            (root / "recipes" / f"{name}.toml").write_text(text)
        return cls(root)

    @property
    def store(self) -> Store:
        return Store(self.root / "outputs/store")

    def run(self, shared: Shared | None = None) -> Seen:
        """A new run, nothing done yet."""
        loaded = plan.load(self.root)
        loaded = dataclasses.replace(loaded, lock={name: Pin("") for name in loaded.recipes})
        places = Places(self.root, self.root / "outputs", self.root / "cache")
        return Seen(
            loaded, places, self.store, shared=shared, pusher=Pusher(shared, self.store.signed) if shared else None
        )

    def build(self, *names: str, shared: Shared | None = None) -> Seen:
        """Realise these as doit would; a dry run has said before what is built and fetched, and did nothing."""
        one = self.run(shared)
        said = decide_build(one.plan, one.store, names, shared=shared)
        one.want(names)
        for name in one.plan.in_order(names):
            if not one.up_to_date(name):
                one.realise(name)
        one.drain()
        assert {each.name for each in said if each.state is State.MUST_RUN} <= {*one.built}
        assert {*one.built} <= {each.name for each in said if each.state not in (State.UP_TO_DATE, State.ELSEWHERE)}
        fetched = {each.name for each in said if each.state is State.ELSEWHERE}
        assert fetched <= {*one.pulled} <= fetched | {each.name for each in said if each.state is State.WAITS}
        return one

    def trees(self) -> set[str]:
        """Outputs whose trees are there, by name."""
        there = {each.name for each in (self.root / "outputs/store/trees").glob("*")}
        return {name for name in plan.load(self.root).recipes if self.output(name) in there}

    def output(self, name: str) -> str:
        """The output that a recipe had last."""
        previous = self.store.previous(name)
        return previous.output if previous else ""


@pytest.fixture
def ci(tmp_path: Path) -> Person:
    return Person.at(tmp_path / "ci")


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"file://{tmp_path}/cache"


@pytest.fixture
def first(tmp_path: Path, ci: Person, address: str) -> Checkout:
    """A checkout that has built and pushed all."""
    one = Checkout.at(tmp_path / "first")
    assert one.build("top", shared=ci.caches(f"{address}?write")).built == ["base", "middle", "top"]
    return one


@pytest.fixture
def second(tmp_path: Path) -> Checkout:
    return Checkout.at(tmp_path / "second")


def lose(cache: Path, key: str) -> None:
    """Take the chunks of a tree out of a cache."""
    index = cache / "cas" / index_of((cache / "ac" / key).read_bytes(), key)
    for each in chunks.decode(index.read_bytes()):
        (cache / "cas" / each.blob.sha256).unlink(missing_ok=True)
    index.unlink()


def key(one: Checkout, name: str) -> str:
    return (one.root / "outputs/store/last" / name).read_text()


def test_only_what_is_wanted_is_fetched(first: Checkout, second: Checkout, ci: Person, address: str) -> None:
    run = second.build("top", shared=ci.caches(address))
    assert (run.built, {*run.pulled}) == ([], {"top"})
    assert [each.name for each in (second.root / "outputs/store/trees").iterdir()] == [first.output("top")]
    again = second.build("top", shared=ci.caches(address))
    assert (again.built, again.pulled) == ([], {})
    alone = second.build("top")
    assert (alone.built, alone.pulled) == ([], {})


def test_what_was_fetched_is_pushed_with_the_word_of_who_built_it(
    first: Checkout, second: Checkout, ci: Person, address: str, tmp_path: Path
) -> None:
    me = Person.at(tmp_path / "me", ci)
    names = dict(zip(("ci", "me"), (each.public for each in me.keys.trusted()), strict=True))
    assert second.build("top", shared=me.caches(address)).built == []
    assert second.output("top") == first.output("top")
    one = me.caches(f"file://{tmp_path}/third?write")
    pusher = Pusher(one, second.store.signed)
    record = second.store.record(key(second, "top"))
    assert record is not None
    pusher.push(record, second.store.tree(record.output))
    assert [*one.report()][0].endswith("MB pushed")
    path = tmp_path / "third/ac" / record.key
    assert {*read(path.read_bytes(), record.key).signatures} == {names["ci"]}


def test_a_tree_that_the_cache_lost_is_built(first: Checkout, second: Checkout, ci: Person, address: str) -> None:
    """From what it needs, which is fetched; nothing else is."""
    lose(first.root.parent / "cache", key(first, "top"))
    run = second.build("top", shared=ci.caches(f"{address}?write"))
    assert (run.built, {*run.pulled}) == (["top"], {"middle"})
    remove_tree(second.root / "outputs")
    assert second.build("top", shared=ci.caches(address)).built == []  # it was pushed again


def test_trees_all_lost_are_built_from_the_start(first: Checkout, second: Checkout, ci: Person, address: str) -> None:
    for name in RECIPES:
        lose(first.root.parent / "cache", key(first, name))
    run = second.build("top", shared=ci.caches(address))
    assert (sorted(run.built), run.pulled) == (["base", "middle", "top"], {})


def test_a_chunk_that_is_gone_is_found_on_the_way(first: Checkout, second: Checkout, ci: Person, address: str) -> None:
    """A dry run cannot know: it asks for indexes only."""
    cache = first.root.parent / "cache"
    kept = index_of((cache / "ac" / key(first, "top")).read_bytes(), key(first, "top"))
    index = (cache / "cas" / kept).read_bytes()
    lose(cache, key(first, "top"))
    (cache / "cas" / kept).write_bytes(index)
    one = second.run(ci.caches(address))
    one.want(["top"])
    for name in one.plan.in_order(["top"]):
        one.up_to_date(name) or one.realise(name)
    assert (one.built, {*one.pulled}) == (["top"], {"middle"})


def test_what_nobody_wants_is_not_made_again(first: Checkout, ci: Person, address: str) -> None:
    remove_tree(first.store.tree(first.output("middle")))
    assert first.build("top").built == []
    assert first.trees() == {"base", "top"}
    assert first.build("middle").built == ["middle"]
    remove_tree(first.store.tree(first.output("middle")))
    run = first.build("middle", shared=ci.caches(address))
    assert (run.built, {*run.pulled}) == ([], {"middle"})


def test_a_damaged_tree_comes_from_the_cache(first: Checkout, ci: Person, address: str) -> None:
    victim = first.store.tree(first.output("top")) / "all/etc/used"
    victim.parent.chmod(0o755)
    victim.unlink()
    victim.write_text("EVIL\n")
    run = first.build("top", shared=ci.caches(address))
    assert (run.built, {*run.pulled}) == ([], {"top"})
    assert victim.read_text() == "used\n"
    victim.parent.chmod(0o755)
    victim.unlink()
    one = first.run(ci.caches(address))
    one.want(["top"])
    assert [one.up_to_date(name) or one.fetch(name) for name in ("base", "middle", "top")] == [True, True, True]


def test_records_that_disagree_are_built(
    first: Checkout, second: Checkout, ci: Person, address: str, tmp_path: Path
) -> None:
    other = Person.at(tmp_path / "other", ci)
    elsewhere = Checkout.at(tmp_path / "elsewhere")
    elsewhere.build("base")
    record = elsewhere.store.previous("base")
    assert record is not None
    wrong = tmp_path / "wrong"
    (wrong / "x").mkdir(parents=True)
    lie = made(wrong, {"used": b"lies\n"})
    Pusher(other.caches(f"{address}-2?write")).push(dataclasses.replace(record, output=lie.record.output), lie.tree)
    shared = other.caches(address, f"{address}-2")
    run = second.build("top", shared=shared)
    assert (run.built, {*run.pulled}) == (["base"], {"top"})
    assert second.output("base") == first.output("base")
    (said,) = (line for line in shared.report() if line.startswith("warning"))
    assert said.startswith("warning: caches disagree on base, so none is used: ")


@pytest.mark.parametrize("lost", ["", "after"])
def test_what_an_output_refers_to_comes_along(
    ci: Person, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """Also where another step is built from that output."""
    refers = dataclasses.replace(rootfs.KIND, refers=True)
    monkeypatch.setitem(builders.KINDS, "refers", refers)
    recipes = {**RECIPES, "middle": RECIPES["middle"].replace("rootfs", "refers"), "after": RECIPES["top"]}
    one, two = Checkout.at(tmp_path / "one", recipes), Checkout.at(tmp_path / "two", recipes)
    one.build("after", shared=ci.caches(f"{address}?write"))
    if lost:
        lose(tmp_path / "cache", key(one, "after"))
        run = two.build("after", shared=ci.caches(address))
        assert (run.built, {*run.pulled}) == (["after"], {"middle", "base"})
    else:
        run = two.build("middle", shared=ci.caches(address))
        assert (run.built, {*run.pulled}) == ([], {"middle", "base"})


def test_recipes_of_one_key_are_told_apart(ci: Person, address: str, tmp_path: Path) -> None:
    recipes = {**RECIPES, "same": RECIPES["base"]}
    one, two = Checkout.at(tmp_path / "one", recipes), Checkout.at(tmp_path / "two", recipes)
    one.build("same", shared=ci.caches(f"{address}?write"))
    assert {*two.build("base", shared=ci.caches(address)).pulled} == {"base"}
    assert two.build("same", shared=ci.caches(address)).built == []


def test_a_need_of_many_is_fetched_once(ci: Person, address: str, tmp_path: Path) -> None:
    """Eight steps at once need `middle`, whose tree nobody wanted until then."""
    names = [f"top-{number}" for number in range(8)]
    recipes = {**RECIPES, **{name: RECIPES["top"].replace('"all"', f'"{name}"') for name in names}}
    one, two = Checkout.at(tmp_path / "one", recipes), Checkout.at(tmp_path / "two", recipes)
    one.build("middle", shared=ci.caches(f"{address}?write"))
    run = two.run(ci.caches(address))
    run.want(names)
    assert all(run.up_to_date(name) for name in ("base", "middle"))
    gate, faults = threading.Barrier(8), []

    def realise(name: str) -> None:
        gate.wait()
        try:
            run.realise(name)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=realise, args=(name,)) for name in names]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert faults == []
    assert (sorted(run.built), {*run.pulled}) == (names, {"middle"})
    assert run.shared is not None
    assert run.shared.places[0].trees == 1


def test_what_another_command_builds_is_not_taken_from_a_cache(
    first: Checkout, second: Checkout, ci: Person, address: str
) -> None:
    """It would replace what that one makes, as the word of others."""
    run = second.run(ci.caches(address))
    run.store.prepare()
    with run.store.lock(key(first, "base")):
        assert not run.up_to_date("base")
        assert run.store.record(key(first, "base")) is None
    assert run.up_to_date("base")


def test_as_many_trees_at_once_as_there_are_places_to_fetch(
    first: Checkout, second: Checkout, ci: Person, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step holds a place of that lane while its tree comes, as it does when it fetches sources."""
    run, held, pull = second.run(ci.caches(address)), [], Shared.pull

    def pulls(*words: Any) -> Any:
        held.append(run.weights._running[FETCH])
        return pull(*words)

    monkeypatch.setattr(Shared, "pull", pulls)
    run.want(["top"])
    assert [run.up_to_date(name) for name in ("base", "middle", "top")] == [True, True, False]
    run.realise("top")
    assert (run.built, held, run.weights._running[FETCH]) == ([], [1], 0)
    assert run.records["top"].output == first.output("top")


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> tuple[Small, str, str]:
    """A checkout that has pushed all it has, the cache's address, and its key."""
    base = tmp_path_factory.mktemp("cached")
    address = f"file://{base}/cache"
    one = small(base / "one")
    one = dataclasses.replace(one, env={**one.env, "SANDKUBE_CACHE": f"{address}?write"})
    key = one.do("key", "new", "ci").out
    assert one.do("build").status == 0
    return one, address, key.strip()


@pytest.fixture
def reader(cached: tuple[Small, str, str], tmp_path: Path) -> Small:
    """A checkout that reads from there."""
    one = small(tmp_path / "reader")
    one = dataclasses.replace(one, env={**one.env, "SANDKUBE_CACHE": cached[1]})
    assert one.do("key", "trust", cached[2]).status == 0
    return one


def test_a_dry_run_asks_caches_and_writes_nothing(reader: Small) -> None:
    said = reader.do("build", "top", "--dry-run")
    assert (said.status, said.out, said.err) == (
        0,
        "top: would be fetched from a cache\n",
        "none of 3 steps would run\n",
    )
    assert not (reader.folder / "outputs").exists()
    said = reader.do("build", "top")
    assert (said.status, said.steps()) == (0, {})
    assert re.search(r"top: fetched in .* from file://", said.err)
    assert reader.do("build", "top", "--dry-run").err == "nothing to do: 3 steps are up to date\n"


def test_pulling_by_hand(cached: tuple[Small, str, str], reader: Small) -> None:
    """Of an empty checkout, all steps: each one's key needs the records of its inputs."""
    said = reader.do("cache", "pull")
    assert (said.status, said.out) == (0, "")
    assert said.err.splitlines()[-1] == f"cache {cached[1]}: 3 trees fetched (0.0 MB)"
    assert sorted(each.name for each in (reader.folder / "outputs/result").iterdir()) == ["base", "middle", "top"]
    (reader.folder / "native/base/used").write_text("else\n")
    said = reader.do("cache", "pull")
    assert (said.status, said.err) == (
        1,
        "error: cache pull: in no cache: base, middle, top\n  hint: ./do build makes them\n",
    )
    assert reader.do("cache", "status").out == f"{cached[1]}: read; it has 0 of 3 steps\n"


def test_who_is_given_a_tree_can_decide_on_it(cached: tuple[Small, str, str], reader: Small, tmp_path: Path) -> None:
    """Of needs whose trees are not here their records are pushed, without which nobody finds the step."""
    one = dataclasses.replace(cached[0], env={**cached[0].env, "SANDKUBE_CACHE": f"file://{tmp_path}/new?write"})
    for name in ("base", "middle"):
        remove_tree((one.folder / "outputs/result" / name).resolve())
    assert words(one.do("cache", "push", "top"))[0] == 0
    assert words(cached[0].do("build"))[0] == 0  # as others find it
    other = dataclasses.replace(reader, env={**reader.env, "SANDKUBE_CACHE": f"file://{tmp_path}/new"})
    said = other.do("build", "top")
    assert (said.status, said.steps()) == (0, {})
    assert "top: fetched in " in said.err


def words(said: Said) -> tuple[int, str]:
    assert "Traceback" not in said.err
    return said.status, said.err


def test_words_of_cache(cached: tuple[Small, str, str], reader: Small) -> None:
    one, address, _ = cached
    assert one.do("cache", "status").out == f"{address}: read and write; it has 3 of 3 steps\n"
    assert words(one.do("cache", "push", "top")) == (0, "3 of 3 steps were there to be pushed\n")
    assert words(reader.do("cache")) == (1, "error: cache: do what?\n  hint: ./do help cache\n")
    assert words(reader.do("cache", "fetch")) == (1, "error: cache: what is 'fetch'?\n  hint: ./do help cache\n")
    assert words(reader.do("cache", "push")) == (
        1,
        "error: cache push: no cache may be written, or there is no key to sign with\n"
        "  hint: ./do help cache; ./do key new NAME makes a key\n",
    )
    status, err = words(reader.do("cache", "pull", "topp"))
    assert (status, err.splitlines()[0]) == (1, "error: no recipe 'topp' (did you mean top?)")
    nothing = dataclasses.replace(reader, env={**reader.env, "SANDKUBE_CACHE": ""})
    assert words(nothing.do("cache", "status"))[1].startswith("error: no cache is named\n")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("key", "key: do what?"),
        ("key new", "key: what is 'new'?"),
        ("key new a b", "key: what is 'new a b'?"),
        ("key new ../x", "'../x' is no name for a key"),
        ("key trust ../x:AAAA", "'../x:AAAA' is no public key"),
        ("key trust ci", "'ci' is no public key"),
        ("key revoke ../x", "no key '../x' is trusted"),
        ("key new ci", "there is a key 'ci' already"),
        ("key list x", "key: what is 'list x'?"),
    ],
)
def test_words_of_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, said: str) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)
    Keys(tmp_path / "sandkube/keys").new("ci")
    with pytest.raises(UserError) as caught:
        Main(config_filenames=("pyproject.toml",)).run(line.split())
    assert (caught.value.message, bool(caught.value.hint)) == (said, True)


def test_a_need_with_other_bytes_is_seen_by_all_that_use_it(tmp_path: Path) -> None:
    """A record whose tree is nowhere, of a step that makes other bytes now: nothing of the old ones stays in use."""
    both = (
        'description = "x"\n[build]\nkind = "rootfs"\n'
        'install = [{from = "base", path = "used", to = "b"}, {from = "middle", path = "etc/used", to = "m"}]\n'
    )
    other = Checkout.at(tmp_path / "other", {**RECIPES, "both": both})
    (other.root / "native/base/used").write_text("old\n")
    other.build("both")
    one = Checkout.at(tmp_path / "one", {**RECIPES, "both": both})
    run = one.run()
    one.store.prepare()
    derived = plan.derivation_of(run.plan, "base", str)
    one.store.adopt(Record(derived.key(), other.output("base"), "base", derived.preimage()), None)
    derived = plan.derivation_of(run.plan, "middle", {"base": other.output("base")}.__getitem__)
    middle = Record(derived.key(), other.output("middle"), "middle", derived.preimage())
    one.store.adopt(middle, None)
    with one.store.staging() as staging:
        tree.copy(other.store.tree(middle.output), ".", staging, "made")
        tree.normalise(staging / "made")
        one.store.take(middle, staging / "made")
    run.want(["both"])
    for _ in range(3):
        run.unsettled = False
        for name in run.plan.in_order(["both"]):
            run.up_to_date(name) or run.realise(name)
        if not run.unsettled:
            break
    made = run.output("both")
    assert (made / "b").read_text() == (made / "m").read_text() == "used\n"
    assert one.build("both").built == []


def test_a_damaged_record_is_had_from_a_cache(first: Checkout, ci: Person, address: str) -> None:
    path = first.root / f"outputs/store/records/{key(first, 'middle')}.json"
    path.chmod(0o644)
    path.write_text("{")
    run = first.build("top", shared=ci.caches(address))
    assert (run.built, run.pulled) == ([], {})
    assert first.store.record(path.stem) is not None


def test_links_lead_to_what_is_there(first: Checkout, second: Checkout, ci: Person, address: str) -> None:
    """A step whose tree did not come has no link: the one to what it made before is not its output any more."""
    result = second.root / "outputs/result"
    second.build("top", "middle", shared=ci.caches(address)).settle()
    assert sorted(link.name for link in result.iterdir()) == ["middle", "top"]
    for one in (first, second):
        (one.root / "native/base/used").write_text("other\n")
    first.build("top", shared=ci.caches(f"{address}?write"))
    second.build("top", shared=ci.caches(address)).settle()
    assert [link.name for link in result.iterdir()] == ["top"]
    assert (result / "top/all/etc/used").read_text() == "other\n"


@pytest.mark.usefixtures("first")
def test_what_is_not_here_but_known_is_told_so(second: Checkout, ci: Person, address: str) -> None:
    second.build("top", shared=ci.caches(address))
    run = second.run()
    states = {each.name: each.state.value for each in decide_all(run.plan, run.store, ["top"])}
    assert states == {"base": "not here", "middle": "not here", "top": "up to date"}

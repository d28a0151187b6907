"""The pages are true: commands, options, paths, links, variables, versions and tables that they name are there."""

from __future__ import annotations

import ast
import fnmatch
import functools
import getopt
import itertools
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sandkube.build import builders, recipe, sources
from sandkube.build.derivation import EPOCH
from sandkube.cli.main import GROUPS, Main, own_tasks
from sandkube.cluster.progress import OWED
from tests.clones import files
from tests.unit.test_layers import FLOORS, OWNERS

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "HACKING.md", "ARCHITECTURE.md")
MADE: Mapping[str, tuple[str, str]] = {
    "outputs/store": ("sandkube/cli/checkout.py", '"store"'),
    "outputs/result": ("sandkube/build/results.py", '"result"'),
    "outputs/cache": ("sandkube/build/places.py", 'outputs / "cache"'),
    "outputs/code.json": ("sandkube/cli/checkout.py", "code.json"),
    "outputs/durations.json": ("sandkube/build/realise.py", "durations.json"),
    "outputs/failed": ("sandkube/build/realise.py", '"failed"'),
    "call.json": ("sandkube/build/failed.py", '"call.json"'),
    "outputs/logs": ("sandkube/build/realise.py", '"logs"'),
    "outputs/clusters": ("sandkube/cluster/place.py", '"clusters"'),
    "outputs/bin/kubectl": ("sandkube/cluster/start.py", '"bin/kubectl"'),
    ".venv": ("do", "-m venv .venv"),
    "~/.config/sandkube": ("sandkube/build/cache/settings.py", "config.toml"),
    "outputs/ci": ("sandkube/cli/ci.py", 'OUTPUTS / "ci"'),
    "outputs/conformance": ("sandkube/cli/conformance.py", 'NAME = "conformance"'),
    "outputs/engines": ("tests/engines.py", 'environment("engines")'),
    "outputs/clients": ("tests/cluster/clients/test_python.py", 'environment("clients")'),
    "~/.netrc": ("sandkube/registry/logins.py", '".netrc"'),
    "~/.config/containers/auth.json": ("sandkube/registry/logins.py", '"containers/auth.json"'),
    "~/.docker/config.json": ("sandkube/registry/logins.py", '".docker"'),
    "~/.cache/sandkube": ("sandkube/build/places.py", '"sandkube"'),
    "~/.kube/config": ("sandkube/cluster/kubeconfig.py", '".kube/config"'),
    "~/.local/state/sandkube": ("sandkube/app/installed.py", '".local/state"'),
    "gomod": ("sandkube/build/sources/go.py", '"gomod"'),
    "settings.json": ("sandkube/cluster/in_place.py", '"settings.json"'),
    "config.json": ("sandkube/build/builders/bundle.py", '"config.json"'),
    "/sandkube/": ("sandkube/build/box.py", '"/sandkube/'),
    "/data": ("native/node/boot/kept.go", '"/data"'),
    "/mnt": ("native/node/boot/kept.go", '"/mnt"'),
    "/srv": ("native/node/boot/kept.go", '"/srv"'),
    "/tmp": ("sandkube/build/box.py", '"/tmp"'),
    "/usr/bin/sandkube-node": ("recipes/rootfs.toml", '"usr/bin/sandkube-node"'),
}
"""Paths that are no file of this repository: where they are made, by which words."""


tracked = functools.cache(files)


@functools.cache
def text(page: str) -> str:
    return (ROOT / page).read_text()


def code(page: str) -> list[str]:
    """What a page shows as code: spans, and lines of indented blocks."""
    spans = re.findall(r"`([^`\n]+)`", text(page))
    return spans + [line.strip() for line in text(page).splitlines() if line.startswith("    ")]


def shown_commands(page: str) -> list[str]:
    """Each `./do WORDS`, without a comment after it; words of one line that stand apart are commands of their own."""
    found = []
    for each in code(page):
        for part in re.split(r" {2,}", each):
            if match := re.match(r"(?:\$ )?\./do\b(.*)", part):
                found.append(match.group(1).strip())
    return sorted(set(found))


def ways(synopsis: str) -> Iterator[list[str]]:
    """Every command line that a synopsis such as `[--name N \\| --all]` stands for, with all that is optional."""
    flat = re.sub(r"(?<=\w)\[([^]]*)]", r"\1", synopsis)  # NAME[@VERSION]
    parts = re.findall(r"\[[^]]*]|[^\[\]]+", flat)
    choices = [re.split(r"\s*\\?\|\s*", part.strip("[]")) for part in parts]
    for chosen in itertools.product(*choices):
        yield " ".join(chosen).split()


@pytest.fixture(scope="module")
def doit() -> Main:
    return Main(config_filenames=(), extra_config={"COMMAND": own_commands()})


def own_commands() -> dict[str, str]:
    commands: dict[str, str] = tomllib.loads(text("pyproject.toml"))["tool"]["doit"]["plugins"]["command"]
    return commands


def parser(doit: Main, name: str) -> Any:
    return doit.verb(name, doit.get_cmds()).words_of_options()


def fault_of(doit: Main, words: list[str]) -> str:
    """What is wrong with the words of a command; empty if nothing."""
    name, *rest = words
    if name == "help":
        return ""
    if task := own_tasks().get(name):
        return "" if rest == [] or "pos_arg" in task() else "this task takes no words"
    if name not in doit.get_cmds():
        return "there is no such command"
    known = parser(doit, name)
    try:
        getopt.gnu_getopt(rest, *known)
    except getopt.GetoptError as error:
        return str(error)
    return ""


def test_shown_commands_parse(doit: Main) -> None:
    faults = []
    for page in PAGES:
        for shown in shown_commands(page):
            told = [fault_of(doit, words) for words in ways(shown) if words]  # prose names `./do` alone
            faults += [f"{page}: ./do {shown}: {fault}" for fault in told if fault]
    assert faults == []


def test_pages_show_commands() -> None:
    """That the test above sees something."""
    assert {len(shown_commands(page)) > 5 for page in ("README.md", "HACKING.md")} == {True}
    assert list(ways(r"stop-cluster [--name N \| --all]")) == [
        ["stop-cluster", "--name", "N"],
        ["stop-cluster", "--all"],
    ]


def test_every_command_and_task_is_on_a_page() -> None:
    shown = {words[0] for page in PAGES for each in shown_commands(page) for words in ways(each) if words}
    assert {*own_commands(), *own_tasks()} - shown == set()


def test_the_table_shows_every_option_of_our_commands(doit: Main) -> None:
    for name in own_commands():
        shown = " ".join(each for each in shown_commands("README.md") if re.match(rf"{name}( |$)", each))
        options = {each.rstrip("=") for each in parser(doit, name)[1]}
        missing = {each for each in options if f"--{each}" not in shown}
        if name == "logs":
            missing -= {"lines"}  # a convenience
        assert missing == set(), name


def test_the_table_of_help_holds_every_command_once() -> None:
    shown = [name for names in GROUPS.values() for name in names]
    assert sorted(shown) == sorted([*own_commands(), *own_tasks()])


def tops() -> set[str]:
    return {each.split("/")[0] for each in tracked() if "/" in each}


def shown_paths(page: str) -> set[str]:
    found = set()
    for word in re.findall(r"(?<![\w/:@.-])[~\w.<][\w./<>{},~-]*", text(page)):
        if word.rstrip("/").split("/")[0] in tops() | {"outputs"} and "/" in word:
            found.add(word.rstrip(".,/"))
    for each in code(page):
        for word in re.findall(r"(?<![\w/:@.%-])/?[~\w.<-][\w./<>{},~-]*", each):
            if re.search(r"\w\.(py|toml|json|md|patch)$", word) or word.startswith((".venv", "~/", "/")):
                found.add(word.rstrip(",/"))
    return found - {"//"}


def spread(path: str) -> Iterator[str]:
    """The paths that a pattern with `{a,b}`, `<name>` or `NNNN` stands for, as a pattern for files."""
    if match := re.search(r"{([^}]*)}", path):
        for each in match.group(1).split(","):
            yield from spread(path[: match.start()] + each + path[match.end() :])
    else:
        yield re.sub(r"<\w+>|(?:NNNN|\d{4})-(?:subject|other)|\bNAME\b", "*", path)


def is_there(pattern: str) -> bool:
    """Whether this repository has a file, or a folder, of that path."""
    whole = pattern if "/" in pattern else f"*/{pattern}"
    return (ROOT / pattern).exists() or any(
        fnmatch.fnmatch(name, whole) or name.startswith(f"{pattern}/") for name in tracked()
    )


def test_shown_paths_exist_or_are_made() -> None:
    faults = []
    for page in PAGES:
        for shown in sorted(shown_paths(page)):
            for each in spread(shown):
                made = next((MADE[start] for start in MADE if each.startswith(start)), None)
                if made and made[1] not in text(made[0]):
                    faults.append(f"{page}: {shown}: {made[0]} does not make it")
                elif not made and not is_there(each):
                    faults.append(f"{page}: there is no {shown}")
    assert faults == []


def test_pages_show_paths() -> None:
    assert {"recipes/<name>.toml", "patches/<recipe>/NNNN-subject.patch"} <= shown_paths("HACKING.md")
    assert {"native/node", "dodo.py", "outputs/store"} <= shown_paths("ARCHITECTURE.md")
    assert "outputs/clusters/default/kubeconfig" in shown_paths("README.md")


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings have where it is shown: lower case, hyphens, no punctuation."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


def test_links_resolve() -> None:
    """Those that lead elsewhere apart: tests have no network."""
    faults = []
    links = [(page, link) for page in PAGES for link in re.findall(r"]\(([^)\s]+)\)", text(page))]
    for page, link in links:
        path, _, anchor = link.partition("#")
        target = ROOT / (path or page)
        if not re.match(r"https://[\w.-]+(/|$)", link) and not (
            target.is_file() and (not anchor or anchor in anchors(target))
        ):
            faults.append(f"{page}: {link}")
    assert ("README.md", "HACKING.md") in links
    assert faults == []


def test_mentioned_headings_exist() -> None:
    """Messages of the engine send people to HACKING.md by the words of a heading."""
    found = 0
    for path in (ROOT / "sandkube").rglob("*.py"):
        for page, words in re.findall(r"\((\w+\.md), ([^)]*)\)", path.read_text()):
            assert words in {each.replace("-", " ") for each in anchors(ROOT / page)}, f"{path.name}: {page}, {words}"
            found += 1
    assert found


@functools.cache
def strings() -> set[str]:
    """Every text that stands in the engine's code as a value, docstrings and messages in f-strings apart."""
    found = set()
    for path in (ROOT / "sandkube").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def shown_variables(page: str) -> set[str]:
    words = {word for each in code(page) for word in re.findall(r"(?<![\w/])([A-Z][A-Z0-9_]+)(?![\w-])", each)}
    return {word for word in words if "_" in word} | words & {"GOPROXY", "NETRC", "KUBECONFIG"}


OTHERS = {"USE_EXISTING_CLUSTER"}
"""Variables that other programs read."""


def test_shown_variables_are_read_or_set() -> None:
    exported = {match[1] for each in strings() if (match := re.match(r"export (\w+)=", each))}
    known = {*OTHERS, *strings(), *exported, *(each for each in vars(recipe) if each.isupper())}
    assert {page: shown_variables(page) - known for page in PAGES} == dict.fromkeys(PAGES, set())


def test_pages_show_variables() -> None:
    assert {"PIP_INDEX_URL", "GOPROXY", "NETRC", "SANDKUBE_DEB_MIRROR"} <= shown_variables("README.md")
    assert f"SOURCE_DATE_EPOCH={EPOCH}" in code("ARCHITECTURE.md")


def shown_floors() -> Iterator[set[str]]:
    """The floors of ARCHITECTURE.md's drawing: a line each, below the room that it is indented under."""
    drawing = text("ARCHITECTURE.md").partition("    sandkube/\n")[2].partition("\n\n")[0]
    room = ""
    for line in drawing.splitlines():
        names = re.split(r" {2,}", line.strip())[0].split()
        if line.startswith(" " * 8):
            yield {f"{room}.{each.rstrip('/')}" for each in names}
        elif line.split()[0] in ("app/", "build/", "cli/"):
            room = line.split()[0].rstrip("/")
        else:
            yield {each.rstrip("/") for each in names}


def test_the_drawing_of_the_house_is_the_one_that_is_tested() -> None:
    assert [*map(sorted, shown_floors())] == [*map(sorted, FLOORS)]


def test_the_sentence_on_doit_is_the_one_that_is_tested() -> None:
    assert "Only `cli/`, `__main__` and `dodo.py` import doit;" in text("ARCHITECTURE.md")
    assert OWNERS["doit"] == {"cli", "__main__"}


def test_kinds_on_pages_are_all_kinds() -> None:
    for kind in sources.KINDS:
        assert f"`{kind}:" in text("ARCHITECTURE.md"), kind
        assert f"`{kind}:" in text("HACKING.md"), kind
    for kind in builders.KINDS:
        assert f"`{kind}`" in text("HACKING.md"), kind


def test_versions_on_the_page_are_those_of_the_recipes() -> None:
    recipes = recipe.load(ROOT)
    pause, containerd, runc = (recipes[name].source for name in ("pause", "containerd", "runc"))
    assert pause and containerd and runc
    page = text("README.md")
    assert f"Kubernetes {pause.version.lstrip('v')} " in page
    assert f"containerd {containerd.version.lstrip('v')}," in page
    assert re.search(rf"runc\s+{re.escape(runc.version.lstrip('v'))} with", page)


def test_stages_on_the_page_are_stages_of_the_node() -> None:
    shown = re.findall(r"^ +\d+\.\d\ds  (\S+) +\d+\.\d\ds in the sandbox$", text("README.md"), re.MULTILINE)
    assert {*shown} == {*OWED} - {"access", "egress", "nodes"}, "what the boot of one node prints"


def test_the_table_of_fixes_is_the_nodes() -> None:
    source = text("native/node/fixes/fixes.go")
    constants = dict(re.findall(r'^\t(\w+) += "([\w -]+)"$', source, re.MULTILINE))
    names = [constants[word] for word in re.findall(r"^\t\tname: (\w+),", source, re.MULTILINE)]
    _, _, after = text("ARCHITECTURE.md").partition("| fix | need |")
    rows = [line.split("|") for line in after.partition("\n\n")[0].splitlines() if line.startswith("| `")]
    assert [row[1].strip(" `") for row in rows] == names


def test_the_packages_that_the_page_calls_tested_have_tests() -> None:
    (names,) = re.findall(r"packages without Kubernetes \(([\w, ]+)\) have tests", text("HACKING.md"))
    for name in names.split(", "):
        assert list((ROOT / "native/node" / name).glob("*_test.go")), name
    outside = {path.parent.name for path in (ROOT / "native/node").glob("*/*_test.go")} - {
        *names.split(", "),
        *("components", "dns", "loadbalancer", "policy", "services"),
    }
    assert outside == set()


HOSTS = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("proxy", "golang", "org"),
        ("sum", "golang", "org"),
        ("goproxy", "io"),
        ("goproxy", "cn"),
        ("deb", "debian", "org"),
        ("ftp", "debian", "org"),
        ("security", "debian", "org"),
        ("snapshot", "debian", "org"),
        ("archive", "ubuntu", "com"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("yarnpkg", "com"),
        ("crates", "io"),
        ("rubygems", "org"),
        ("maven", "org"),
        ("anaconda", "org"),
        ("registry-1", "docker", "io"),
        ("hub", "docker", "com"),
        ("registry", "k8s", "io"),
        ("ghcr", "io"),
        ("quay", "io"),
        ("gcr", "io"),
    )
)
"""Hosts of registries, in parts: the ordinary clients know them, and this repository names none."""


NAMED = re.compile(rb"(?<![\w-])(" + b"|".join(re.escape(host.encode()) for host in HOSTS) + rb")(?![\w-])")


def test_no_file_names_a_registry_host() -> None:
    found = {}
    for name in tracked():
        path = ROOT / name
        data = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        found[name] = {each.decode() for each in NAMED.findall(data)}
    assert len(found) > 100
    assert {name: hosts for name, hosts in found.items() if hosts} == {}


def test_a_named_host_would_be_found() -> None:
    for host in HOSTS:
        assert NAMED.findall(f"https://{host}/x, {host}-x".encode()) == [host.encode()]


def test_each_limit_has_a_test_that_is_there() -> None:
    """In test_limits.py, but where the row names another file, or a folder of Go tests, before it."""
    page = (ROOT / "README.md").read_text()
    (table,) = re.findall(r"^## Limits\n.*?^\| --- \| --- \| --- \|\n((?:\|[^\n]*\n)+)", page, re.MULTILINE | re.DOTALL)
    for row in table.splitlines():
        files = [ROOT / "tests/cluster/test_limits.py"]
        shown = 0
        for word in re.findall(r"`([^`]+)`", row):
            if re.fullmatch(r"test_\w+\.py", word):
                files = [*(ROOT / "tests/cluster").rglob(word)]
            elif word.startswith("native/"):
                files = [*(ROOT / word).glob("*_test.go")]
            elif re.fullmatch(r"(test_|Test)\w+", word):
                shown += 1
                assert any(re.search(rf"^(def|func) {word}\(", each.read_text(), re.MULTILINE) for each in files), word
        assert shown, row

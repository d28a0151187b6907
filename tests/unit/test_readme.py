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
from doit.cmd_base import ModuleTaskLoader

import dodo
from sandkube import recipe
from sandkube.__main__ import Main
from sandkube.derivation import EPOCH
from tests.clones import files
from tests.unit.test_layers import LAYERS, OWNERS

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "HACKING.md", "ARCHITECTURE.md")
MADE: Mapping[str, tuple[str, str]] = {
    "outputs/store": ("sandkube/tasks.py", '"store"'),
    "outputs/result": ("sandkube/realise.py", '"result"'),
    "outputs/logs": ("sandkube/realise.py", '"logs"'),
    "outputs/clusters": ("sandkube/cluster/place.py", '"clusters"'),
    "outputs/bin/kubectl": ("sandkube/cluster/start.py", '"bin/kubectl"'),
    ".venv": ("do", "-m venv .venv"),
    "~/.cache/sandkube": ("sandkube/realise.py", '"sandkube"'),
    "gomod": ("sandkube/fetch/go.py", '"gomod"'),
    "config.json": ("sandkube/builders/bundle.py", '"config.json"'),
    "/sandkube/": ("sandkube/buildbox.py", '"/sandkube/'),
    "/tmp": ("sandkube/buildbox.py", '"--tmpfs", "/tmp"'),
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


@functools.cache
def tasks() -> set[str]:
    """Names of the tasks of dodo.py, without the steps."""
    found = set()
    for name, function in vars(dodo).items():
        if name.startswith("task_") and name != "task_step":
            made = function()
            found |= {name.removeprefix("task_")} if isinstance(made, dict) else {each["basename"] for each in made}
    return found


@pytest.fixture(scope="module")
def doit() -> Main:
    return Main(config_filenames=(), extra_config={"COMMAND": own_commands()})


def own_commands() -> dict[str, str]:
    commands: dict[str, str] = tomllib.loads(text("pyproject.toml"))["tool"]["doit"]["plugins"]["command"]
    return commands


def parser(doit: Main, name: str) -> Any:
    known = doit.get_cmds()
    return known.get_plugin(name)(config=doit.config, cmds=known, task_loader=ModuleTaskLoader(dodo)).cmdparser


@pytest.mark.parametrize(("page", "shown"), [(page, each) for page in PAGES for each in shown_commands(page)])
def test_a_shown_command_parses(doit: Main, page: str, shown: str) -> None:
    for words in ways(shown):
        if not words:
            continue  # `./do` alone is named in prose
        name, *rest = words
        if name in tasks():
            assert rest == [], f"{page}: the task {name} takes no words"
            continue
        assert name in doit.get_cmds(), f"{page}: there is no ./do {name}"
        known = parser(doit, name)
        try:
            getopt.gnu_getopt(rest, known.get_short(), known.get_long())
        except getopt.GetoptError as error:
            pytest.fail(f"{page}: ./do {shown}: {error}")


def test_pages_show_commands() -> None:
    """That the test above sees something."""
    assert {len(shown_commands(page)) > 5 for page in ("README.md", "HACKING.md")} == {True}
    assert list(ways(r"stop-cluster [--name N \| --all]")) == [
        ["stop-cluster", "--name", "N"],
        ["stop-cluster", "--all"],
    ]


def test_every_command_and_task_is_on_a_page() -> None:
    shown = {words[0] for page in PAGES for each in shown_commands(page) for words in ways(each) if words}
    assert {*own_commands(), *tasks()} - shown == set()


@pytest.mark.parametrize("page", ["README.md"])
def test_the_table_shows_every_option_of_our_commands(doit: Main, page: str) -> None:
    """The commands that build take doit's own options too; those are doit's to tell."""
    doits = set(parser(doit, "run").get_long())
    for name in own_commands():
        shown = " ".join(each for each in shown_commands(page) if re.match(rf"{name}( |$)", each))
        options = {each.rstrip("=") for each in parser(doit, name).get_long() if each not in doits}
        missing = {each for each in options if f"--{each}" not in shown}
        if name == "logs":
            missing -= {"lines"}  # a convenience
        if name not in ("build", "status"):
            assert missing == set(), name


def tops() -> set[str]:
    return {each.split("/")[0] for each in tracked() if "/" in each}


def shown_paths(page: str) -> set[str]:
    found = set()
    for word in re.findall(r"(?<![\w/:@.-])[~\w.<][\w./<>{},~-]*", text(page)):
        if word.rstrip("/").split("/")[0] in tops() | {"outputs"} and "/" in word:
            found.add(word.rstrip(".,/"))
    for each in code(page):
        for word in re.findall(r"(?<![\w/:@.-])/?[~\w.<-][\w./<>{},~-]*", each):
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


@pytest.mark.parametrize(("page", "shown"), [(page, each) for page in PAGES for each in sorted(shown_paths(page))])
def test_a_shown_path_exists_or_is_made(page: str, shown: str) -> None:
    known = tracked()
    for each in spread(shown):
        if made := next((MADE[start] for start in MADE if each.startswith(start)), None):
            assert made[1] in text(made[0]), f"{page}: {shown}: {made[0]} does not make it"
        else:
            there = [
                name
                for name in known
                if fnmatch.fnmatch(name, each if "/" in each else f"*/{each}") or name.startswith(f"{each}/")
            ]
            assert there or (ROOT / each).exists(), f"{page}: there is no {shown}"


def test_pages_show_paths() -> None:
    assert {"recipes/<name>.toml", "patches/<recipe>/NNNN-subject.patch"} <= shown_paths("HACKING.md")
    assert {"native/node", "dodo.py", "outputs/store"} <= shown_paths("ARCHITECTURE.md")
    assert "outputs/clusters/default/kubeconfig" in shown_paths("README.md")


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings have where it is shown: lower case, hyphens, no punctuation."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize(
    ("page", "link"), [(page, link) for page in PAGES for link in re.findall(r"]\(([^)\s]+)\)", text(page))]
)
def test_a_link_resolves(page: str, link: str) -> None:
    if re.match(r"https://[\w.-]+(/|$)", link):
        return  # elsewhere: tests have no network
    path, _, anchor = link.partition("#")
    target = ROOT / (path or page)
    assert target.is_file(), f"{page}: there is no {path}"
    assert not anchor or anchor in anchors(target), f"{page}: {path} has no heading for #{anchor}"


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


@pytest.mark.parametrize(("page", "name"), [(page, each) for page in PAGES for each in sorted(shown_variables(page))])
def test_a_shown_variable_is_read_or_set(page: str, name: str) -> None:
    constants = {each for each in vars(recipe) if each.isupper()}
    assert name in strings() | constants or any(each.startswith(f"export {name}=") for each in strings()), (
        f"{page}: nothing reads {name}"
    )


def test_pages_show_variables() -> None:
    assert {"PIP_INDEX_URL", "GOPROXY", "NETRC", "SANDKUBE_DEB_MIRROR"} <= shown_variables("README.md")
    assert f"SOURCE_DATE_EPOCH={EPOCH}" in code("ARCHITECTURE.md")


def shown_layers() -> list[set[str]]:
    """The table of layers: names, a comma between two layers of one line, two spaces, words."""
    _, _, after = text("ARCHITECTURE.md").partition("Engine modules in layers")
    block = re.search(r"\n((?:    .*\n)+)", after)
    assert block is not None
    lines = [re.split(r" {2,}", line.strip())[0] for line in block.group(1).splitlines()]
    return [{name.rstrip("/") for name in layer.split()} for line in lines for layer in line.split(",")]


def test_the_table_of_layers_is_the_one_that_is_tested() -> None:
    assert [*map(sorted, shown_layers())] == [*map(sorted, LAYERS)]
    modules = {each.split("/")[1].removesuffix(".py") for each in tracked() if each.startswith("sandkube/")}
    assert set().union(*LAYERS) == modules - {"__init__"}


def test_the_sentence_on_doit_is_the_one_that_is_tested() -> None:
    assert "Only these and `dodo.py` import doit;" in text("ARCHITECTURE.md")
    first = next(at for at, layer in enumerate(LAYERS) if "report" in layer)
    assert set().union(*LAYERS[first:]) == OWNERS["doit"] - {"dodo"}, "these: the last lines of the table"


def test_kinds_on_pages_are_all_kinds() -> None:
    for kind in recipe.SOURCE_KINDS:
        assert f"`{kind}:" in text("ARCHITECTURE.md"), kind
        assert f"`{kind}:" in text("HACKING.md"), kind
    for kind in recipe.BUILD_KINDS:
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
    source = "\n".join(path.read_text() for path in (ROOT / "native/node").glob("*.go"))
    known = set(re.findall(r'[rR]eached\("([\w-]+)"', source)) | set(re.findall(r'^\t\t{"([\w-]+)",', source, re.M))
    shown = re.findall(r"^ +\d+\.\d\ds  (\S+) +\d+\.\d\ds in the sandbox$", text("README.md"), re.MULTILINE)
    assert len(shown) > 10
    assert set(shown) - known == set()


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
        "services",
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


@pytest.mark.parametrize("name", tracked())
def test_no_file_names_a_registry_host(name: str) -> None:
    path = ROOT / name
    data = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
    found = [host for host in HOSTS if re.search(rb"(?<![\w-])" + re.escape(host.encode()) + rb"(?![\w-])", data)]
    assert found == []


def test_a_named_host_would_be_found() -> None:
    assert "deb." + "debian.org" in HOSTS
    assert all("." in host for host in HOSTS)

"""./do completion: what a shell must know to complete commands, options and names, as a script for it.

The script is made of the commands' own tables. Names of clusters and recipes are looked up in their folders by the
shell itself when a key is pressed: no Python is started for that, and nothing of a name is evaluated.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from sandkube import log
from sandkube.app.options import CLUSTERS, FILES, RECIPES, Option, Values
from sandkube.app.verb import Verb
from sandkube.errors import UserError

_PLACES = {CLUSTERS: ("clusters", ""), RECIPES: ("recipes", ".toml")}
"""The folder, and how the names in it end, of what is looked up."""


def _function(program: str) -> str:
    return f"_{PurePosixPath(program).name}_sandkube" if "/" in program else f"_{program}"


def _places(program: str, command: str) -> Mapping[str, str]:
    """Folders of clusters and recipes, for a shell in which `command` is the word that the program was called by."""
    if "/" in program:
        return {CLUSTERS: f"{command}/outputs/clusters", RECIPES: f"{command}/recipes"}
    return {CLUSTERS: "$base/sandkube/clusters"}


def _words_of(one: Verb) -> list[str]:
    return [word for each in one.options for word in ([f"-{each.short}"] if each.short else []) + [f"--{each.name}"]]


def _bash_values(own: str, values: Values) -> str:
    """Commands that find what may stand somewhere."""
    if values == FILES:
        return "compopt -o default 2>/dev/null"
    return f"{own}_{values}" if isinstance(values, str) else f"words+=({shlex.join(values)})"


_BASH = r"""# Completion of {program} for bash; to load it: eval "$({program} completion bash)"
{own}_names() {{ # what is in a folder, without what is hidden
    local each
    for each in "$1"/*"$2"; do [[ -e $each ]] && each=${{each##*/}} && words+=("${{each%"$2"}}"); done
}}
{functions}
{own}() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}} each words=()
    if [[ $cur == = ]]; then cur=; elif [[ $prev == = ]]; then prev=${{COMP_WORDS[COMP_CWORD - 2]}}; fi
    COMPREPLY=()
    for each in "${{COMP_WORDS[@]:2:COMP_CWORD - 2}}"; do
        [[ $each != -- ]] || {{ compopt -o default 2>/dev/null; return; }} # what follows is another program's
    done
    if ((COMP_CWORD == 1)); then words=({verbs}); else case "${{COMP_WORDS[1]}} $prev" in
{values}
    *) case ${{COMP_WORDS[1]}} in
{options}
        esac ;;
    esac fi
    for each in "${{words[@]}}"; do [[ $each != "$cur"* ]] || COMPREPLY+=("$each"); done
}}
complete -F {own} {command}
"""


def _bash(program: str, verbs: Sequence[Verb]) -> str:
    own, command = _function(program), "${COMP_WORDS[0]%/*}"
    functions, values, options = [], [], []
    for kind, folder in _places(program, "$at").items():
        at = f"at={command}; at=${{at/#\\~/$HOME}}"
        base = "base=${XDG_STATE_HOME-}; [[ $base == /* ]] || base=$HOME/.local/state"
        body = f"local {at}" if "/" in program else f"local {base}"
        functions.append(f'{own}_{kind}() {{ {body}; {own}_names "{folder}" "{_PLACES[kind][1]}"; }}')
    for one in verbs:
        for each in one.options:
            if not each.flag:
                names = [f"'{one.name} --{each.name}'", *([f"'{one.name} -{each.short}'"] if each.short else [])]
                values.append(f"    {' | '.join(names)}) {_bash_values(own, each.values) if each.values else ':'} ;;")
        found = [f"words=({' '.join(_words_of(one))})", *([_bash_values(own, one.values)] if one.values else [])]
        options.append(f"        {one.name}) {'; '.join(found)} ;;")
    return _BASH.format(
        program=program,
        own=own,
        command=PurePosixPath(program).name,
        functions="\n".join(functions),
        verbs=" ".join(["help", *(one.name for one in verbs)]),
        values="\n".join(values),
        options="\n".join(options),
    )


_ZSH = r"""#compdef {command}
# Completion of {program} for zsh; to load it, after compinit: source <({program} completion zsh)
{functions}
{own}() {{
    local at=${{words[1]:h}} base=${{XDG_STATE_HOME-}} verb=${{words[2]}}
    at=${{at/#\~/$HOME}}
    [[ $base == /* ]] || base=$HOME/.local/state
    if (( CURRENT == 2 )); then
        local -a verbs=(
{verbs}
        )
        _describe command verbs
        return
    fi
    shift words
    (( CURRENT-- ))
    case $verb in
{options}
    esac
}}
if [[ ${{funcstack[1]}} == {own} ]]; then {own} "$@"; else compdef {own} {command}; fi
"""


def _quoted(text: str, *special: str) -> str:
    """In single quotes of zsh and bash, some characters with a backslash before them."""
    for each in ("\\", *special):
        text = text.replace(each, f"\\{each}")
    return shlex.quote(text)


def _zsh_values(own: str, values: Values) -> str:
    if values == FILES:
        return "_files"
    return f"{own}_{values}" if isinstance(values, str) else f"({' '.join(values)})"


def _zsh_option(own: str, one: Option) -> Iterator[str]:
    """What _arguments takes, for each of the option's names."""
    names = [f"--{one.name}", *([f"-{one.short}"] if one.short else [])]
    again = "*" if isinstance(one.default, list) else f"({' '.join(names)})" if one.short else ""
    for name in names:
        taken = "" if one.flag else f":{one.name}:{_zsh_values(own, one.values) if one.values else ' '}"
        text = one.text.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")
        value = "" if one.flag else "=" if name.startswith("--") else "+"
        yield shlex.quote(f"{again}{name}{value}[{text}]{taken}")


def _zsh(program: str, verbs: Sequence[Verb]) -> str:
    own = _function(program)
    functions = []
    for kind, folder in _places(program, "$at").items():
        end = _PLACES[kind][1]
        found = f"{folder}/*{end}(N:t{':r' if end else ''})"
        functions.append(f"{own}_{kind}() {{ local -a found=({found}); compadd -- $found }}")
    options = []
    for one in verbs:
        words = [each for option in one.options for each in _zsh_option(own, option)]
        rest = _zsh_values(own, one.values) if one.values else "_files" if one.takes_words else ""
        words += [shlex.quote(f"*:word:{rest}")] if rest else []
        options.append(f"    {one.name}) _arguments -S : {' '.join(words)} ;;")
    return _ZSH.format(
        program=program,
        own=own,
        command=PurePosixPath(program).name,
        functions="\n".join(functions),
        verbs="\n".join(f"            {_quoted(f'{one.name}:{one.doc_purpose}')}" for one in verbs),
        options="\n".join(options),
    )


_FISH = r"""# Completion of {program} for fish; to load it: {program} completion fish | source
function {own}_verb
    set -l words (commandline -opc)
    test (count $words) -ge 2; and test $words[2] = $argv[1]; and not contains -- -- $words
end
function {own}_first
    test (count (commandline -opc)) -eq 1
end
{functions}
complete -c {command} -n {own}_first -f -a help -d 'tell about a command'
{verbs}
"""


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _fish_values(own: str, values: Values) -> str:
    return f"({own}_{values})" if isinstance(values, str) else " ".join(values)


def _fish_lines(own: str, command: str, one: Verb) -> Iterator[str]:
    yield f"complete -c {command} -n {own}_first -f -a {one.name} -d {_fish_text(one.doc_purpose)}"
    head = f"complete -c {command} -n '{own}_verb {one.name}'"
    if one.values and one.values != FILES:
        yield f"{head} -f -a {_fish_text(_fish_values(own, one.values))}"
    elif not one.takes_words:
        yield f"{head} -f"
    for each in one.options:
        names = f"-l {each.name}" + (f" -s {each.short}" if each.short else "")
        value = "" if each.flag else " -r" if each.values == FILES else " -x"
        if each.values and each.values != FILES:
            value += f" -a {_fish_text(_fish_values(own, each.values))}"
        yield f"{head} {names}{value} -d {_fish_text(each.text)}"


def _fish(program: str, verbs: Sequence[Verb]) -> str:
    own, command = f"_{_function(program)}", PurePosixPath(program).name
    functions = []
    for kind, folder in _places(program, "$at").items():
        end = _PLACES[kind][1]
        functions += [
            f"function {own}_{kind}",
            "    set -l at (string replace -r '/[^/]*$' '' -- (commandline -opc)[1] | string replace -r '^~' $HOME)",
            "    set -l base $XDG_STATE_HOME",
            "    string match -q '/*' -- $base; or set base $HOME/.local/state",
            f"    set -l found {folder}/*{end}",
            "    string replace -r '.*/' '' -- $found" + (f" | string replace {end} ''" if end else ""),
            "end",
        ]
    lines = [line for one in verbs for line in _fish_lines(own, command, one)]
    return _FISH.format(
        program=program, own=own, command=command, functions="\n".join(functions), verbs="\n".join(lines)
    )


SHELLS: Mapping[str, Callable[[str, Sequence[Verb]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}


class Completion(Verb):
    """./do completion"""

    name = "completion"
    doc_purpose = "print a script that has a shell complete commands, options and names"
    doc_usage = f"{' | '.join(SHELLS)}"
    doc_description = "Its first lines say how it is loaded."
    takes_words = True
    values = tuple(SHELLS)
    others: Callable[[], Sequence[Verb]] = list
    """All commands that there are."""

    def execute(self, _params: Any, words: list[str]) -> int:
        """Print it."""
        if len(words) != 1 or words[0] not in SHELLS:
            what = f"what is {' '.join(words)!r}?" if words else "for which shell?"
            raise UserError(f"completion: {what}", hint=f"there are: {', '.join(SHELLS)}")
        log.result(SHELLS[words[0]](self.home.program, self.others()).rstrip("\n"))
        return 0

#!/bin/sh
# Launcher: makes .venv from the hash-pinned requirements on first use, then hands over to doit.
set -eu
here=$(cd "$(dirname "$0")" && pwd -P)
cd "$here"
fail() { printf 'do: %s\n' "$1" >&2; exit 1; }

install() { # $1: requirements file; its copy inside .venv is the stamp, written last
    cmp -s "$1" ".venv/$1" && return
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
        --require-hashes --only-binary :all: --requirement "$1" >&2 ||
        fail "could not install the packages of $1; is a package index reachable (PIP_INDEX_URL, proxy)? Run the command again."
    cp "$1" ".venv/$1"
}

make_venv() { # an environment knows its own folder: one that was moved or copied is made anew
    python=
    for each in python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v "$each" >/dev/null &&
            "$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            python=$each
            break
        fi
    done
    [ -n "$python" ] || fail "CPython 3.11 or later is needed; no such python3 on PATH"
    command -v git >/dev/null || fail "git is needed; it is not on PATH"
    printf 'setting up .venv (once)\n' >&2
    rm -rf .venv
    "$python" -m venv .venv >&2 || fail "$python -m venv failed; on Debian: apt install python3-venv"
    for each in .venv/lib/python3*/site-packages; do printf '%s\n' "$here" >"$each/sandkube.pth"; done
    install requirements.txt
    printf '%s\n' "$here" >.venv/place
}

place=
[ -r .venv/place ] && read -r place <.venv/place
[ "$place" = "$here" ] && cmp -s requirements.txt .venv/requirements.txt && [ -x .venv/bin/python ] || make_venv
case "${1-}" in test | test-fast | golden) install requirements-test.txt ;; esac
exec .venv/bin/python -m sandkube "$@"

#!/bin/sh
# Launcher: makes .venv from the hash-pinned requirements on first use, then hands over to Python.
set -eu
fail() { printf 'do: %s\n' "$1" >&2; exit 1; }
self=$(readlink -f -- "$0" && echo .) && self=${self%??} # the dot keeps what a path may end in
here=${self%/*}
cd -- "$here/" || fail "$here cannot be entered"
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONUSERBASE PYTHONEXECUTABLE PYTHONPLATLIBDIR

# .venv/place, written last, says for which folder and with which Python it was made; it is there, empty, from the start.
ready() {
    place= made_with=
    [ -r .venv/place ] && { IFS= read -r place && IFS= read -r made_with; } <.venv/place || return 1
    [ "$place" = "$here" ] && [ "$made_with" = "$(readlink -f .venv/bin/python)" ] && [ -x .venv/bin/python ] &&
        cmp -s requirements.txt .venv/requirements.txt &&
        case "$1" in ci | test | test-fast | golden) cmp -s requirements-test.txt .venv/requirements-test.txt ;; esac
}

remote_ready() { [ -z "$remote" ] || cmp -s requirements-remote.txt .venv/requirements-remote.txt; }

install() { # $@: requirements files; their copies inside .venv are the stamps, written last
    lacking= requirements=
    for each; do
        cmp -s "$each" ".venv/$each" || lacking="$lacking $each" requirements="$requirements --requirement $each"
    done
    [ -n "$lacking" ] || return 0
    (
        case "${SANDKUBE_OFFLINE-}" in '' | 0) ;; *) export PIP_NO_INDEX=1 ;; esac
        for each in $(env | sed -n 's/^\(PIP_[A-Z0-9_]*\)=.*/\1/p'); do
            case "$each" in # where packages come from is the user's to say; what becomes of them here is not
            PIP_CERT | PIP_CLIENT_CERT | PIP_CONFIG_FILE | PIP_*INDEX_URL | PIP_NO_INDEX | PIP_FIND_LINKS | PIP_PROXY) ;;
            PIP_TRUSTED_HOST | PIP_KEYRING_PROVIDER | PIP_*TIMEOUT | PIP_RETRIES | PIP_*CACHE_DIR) ;;
            *) unset "$each" ;;
            esac
        done
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-user \
            --require-hashes --only-binary :all: $requirements >&2
    ) || fail "could not install the packages of$lacking; is a package index reachable (PIP_INDEX_URL, proxy)? Run the command again."
    for each in $lacking; do cp -- "$each" ".venv/$each"; done
}

find_python() {
    for each in python3 python3.14 python3.13 python3.12 python3.11; do
        command -v "$each" >/dev/null && "$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        python=$each
        return
    done
    fail "CPython 3.11 or later is needed; no such python3 on PATH"
}

# The folder is locked meanwhile: flock(2) belongs to what descriptor 9 is, so it is this shell's once Python has taken it.
LOCK='import fcntl, sys
try: fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("waiting for another command that sets up .venv", file=sys.stderr)
    fcntl.flock(9, fcntl.LOCK_EX)'

make_venv() { # an environment knows its own folder: one that was moved or copied is made anew
    printf 'setting up .venv (once)\n' >&2
    rm -rf .venv 2>/dev/null || fail "$here/.venv is stale and cannot be removed; does it belong to another user?"
    mkdir .venv && : >.venv/place
    "$python" -m venv .venv >&2 || fail "$python -m venv failed; on Debian: apt install python3-venv"
    for each in .venv/lib/python3*/site-packages; do printf '%s\n' "$here" >"$each/sandkube.pth"; done
}

set_up() {
    case "$here" in *:*) fail "$here has a colon in its name, which Python's venv refuses; clone into another folder" ;; esac
    command -v git >/dev/null || fail "git is needed; it is not on PATH"
    [ -w . ] || fail "$here cannot be written, and .venv is made in it; clone into a folder of your own"
    find_python
    exec 9<.
    "$python" -c "$LOCK"
    if ! { ready "$1" && remote_ready; }; then
        [ ! -e .venv ] || [ -e .venv/place ] || fail "$here/.venv is not one that ./do made; move it away"
        ready build || make_venv
        case "$1" in ci | test | test-fast | golden) tests=requirements-test.txt ;; *) tests= ;; esac
        install requirements.txt ${remote:+requirements-remote.txt} $tests
        printf '%s\n' "$here" "$(readlink -f .venv/bin/python)" >.venv/place
    fi
    exec 9<&-
}

remote=${SANDKUBE_REMOTE-} # what is not empty has it installed
case " $* " in *" --remote "* | *" --remote="*) remote=yes ;; esac
case "${1-}" in ci | test | test-fast | golden) remote=yes ;; esac
case " $* " in *" --offline "*) export SANDKUBE_OFFLINE=1 ;; esac
{ ready "${1-}" && remote_ready; } || set_up "${1-}"
exec .venv/bin/python -m sandkube "$@"

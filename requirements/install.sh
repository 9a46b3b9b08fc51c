#!/bin/sh
# Make .venv hold exactly what requirements/<set>.txt pins, and Falaj itself, editable.
# Quick when nothing changed. Usage: requirements/install.sh dev|demo
set -eu
kind=$1
cd "$(dirname "$0")/.."
unset PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME VIRTUAL_ENV || true
if [ -z "${HOME:-}" ] || [ ! -d "$HOME" ]; then
    HOME=$PWD/build/home
    mkdir -p "$HOME"
    export HOME
fi
host=${PYTHON:-python3}
py=.venv/bin/python

wanted() { cat requirements/uv.txt requirements/sdist.txt "requirements/$1.txt" requirements/install.sh pyproject.toml | cksum; }
fresh() { [ -x $py ] && [ -f ".venv/falaj-$1" ] && [ "$(cat ".venv/falaj-$1")" = "$(wanted "$1")" ]; }
say() { printf '%s\n' "$*" >&2; }

# What developers have holds what the demo needs.
if fresh dev || fresh "$kind"; then exit 0; fi

if ! command -v "$host" >/dev/null; then
    say "There is no $host. On Debian: apt-get install -y python3 python3-venv"
    exit 1
fi
if ! "$host" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    say "Falaj needs Python 3.11 or newer; $host is $("$host" --version). Say PYTHON=python3.12 make ..."
    exit 1
fi

# Ask for pip, never for the folder: Debian without python3-venv leaves a half-made one.
if ! $py -m pip --version >/dev/null 2>&1; then
    rm -rf .venv
    if ! "$host" -c 'import ensurepip, venv' 2>/dev/null; then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            say "Installing python3-venv ..."
            apt-get -q update >&2
            DEBIAN_FRONTEND=noninteractive apt-get -qy install python3-venv >&2
        else
            say "Python's venv is not installed. On Debian: sudo apt-get install -y python3-venv"
            exit 1
        fi
    fi
    say "Making .venv ..."
    "$host" -m venv .venv || { rm -rf .venv; say "python3 -m venv failed, see above"; exit 1; }
fi

rm -f .venv/falaj-*
say "Installing requirements/$kind.txt, every file checked against its hash ..."
quiet_pip() { $py -m pip --quiet --disable-pip-version-check install "$@"; }
# A hash that does not hold ends it here; pip is for machines where uv itself is not to be had.
if quiet_pip --require-hashes -r requirements/uv.txt && .venv/bin/uv --version >/dev/null; then
    # The system's certificates: many houses have an authority of their own.
    UV_BUILD_CONSTRAINT=requirements/sdist.txt UV_SYSTEM_CERTS=true .venv/bin/uv --quiet pip sync \
        --python $py --require-hashes --compile-bytecode "requirements/$kind.txt"
    .venv/bin/uv --quiet pip install --python $py --offline --no-build-isolation --no-deps --editable .
else
    say "uv is not to be had; going on with pip, which is slower."
    quiet_pip --use-pep517 --require-hashes -r "requirements/$kind.txt"
    quiet_pip --no-build-isolation --no-deps --editable .
fi
$py -m compileall -q src
wanted "$kind" >".venv/falaj-$kind"

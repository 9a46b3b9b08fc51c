#!/bin/sh
# Make build/parts/NAME hold what requirements/parts/NAME.txt pins, and Falaj itself, editable:
# the environment of a heavy outside system, which tests start as a process of its own.
# Usage: requirements/part.sh mlflow. Needs .venv (requirements/install.sh dev).
set -eu
name=$1
cd "$(dirname "$0")/.."
unset PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME VIRTUAL_ENV || true
lock=requirements/parts/$name.txt
home=build/parts/$name
[ -f "$lock" ] || {
    echo "there is no part $name; there are: $(cd requirements/parts && ls ./*.txt | sed 's|^./||;s|\.txt$||' | tr '\n' ' ')" >&2
    exit 1
}
wanted() { cat "$lock" requirements/part.sh pyproject.toml | cksum; }
[ -f "$home/falaj" ] && [ "$(cat "$home/falaj")" = "$(wanted)" ] && exit 0
rm -f "$home/falaj"
[ -x "$home/bin/pip" ] || { rm -rf "$home"; mkdir -p build/parts; .venv/bin/python -m venv "$home"; }
echo "Installing requirements/parts/$name.txt into $home ..." >&2
UV_BUILD_CONSTRAINT=requirements/sdist.txt UV_SYSTEM_CERTS=true .venv/bin/uv --quiet pip sync \
    --python "$home/bin/python" --require-hashes --compile-bytecode "$lock"
.venv/bin/uv --quiet pip install --python "$home/bin/python" --offline --no-build-isolation --no-deps --editable .
wanted >"$home/falaj"

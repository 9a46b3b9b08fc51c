#!/bin/sh
# Fetch the small servers of others that tests run against into build/servers: signatures checked by
# apt, unpacked, never installed, so that nothing starts on this machine and no root is needed.
# What cannot be fetched is absent: its tests are skipped, counted and listed at the end of a run.
set -eu
cd "$(dirname "$0")/.."
wanted="docker-registry prometheus"
home=$PWD/build/servers
missing=
for name in $wanted; do
    [ -x "$home/usr/bin/$name" ] || command -v "$name" >/dev/null 2>&1 || missing="$missing $name"
done
[ -n "$missing" ] || exit 0
command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1 || {
    echo "no apt-get here; put$missing into PATH to run their tests" >&2
    exit 0
}
mkdir -p "$home/apt/lists/partial" "$home/apt/archives/partial"
cat >"$home/apt.conf" <<C
Dir::State "$home/apt"; Dir::Cache "$home/apt"; Dir::State::status "/var/lib/dpkg/status";
APT::Sandbox::User ""; Debug::NoLocking "true"; Acquire::Retries "2";
C
echo "Fetching$missing into build/servers ..." >&2
(
    APT_CONFIG=$home/apt.conf
    export APT_CONFIG
    cd "$home/apt/archives"
    # shellcheck disable=SC2086
    apt-get -q update >"$home/log" 2>&1 && apt-get -q download $missing >>"$home/log" 2>&1
) || {
    echo "they cannot be fetched (build/servers/log); put$missing into PATH to run their tests" >&2
    exit 0
}
for deb in "$home"/apt/archives/*.deb; do dpkg-deb -x "$deb" "$home"; done
rm -rf "$home/apt"

"""A network of its own for programs that like to talk: loopback only, and every attempt to leave is counted.

The kernel refuses and counts: there is no route to anywhere, so a swallowed attempt shows as well,
whichever child made it. No root and no tools but util-linux; the end of it ends every child, also
those in sessions of their own. Inside one is uid 1000, whoever called.
"""

from __future__ import annotations

import fcntl
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

SPACES = ("--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
PERSON = ("unshare", "--user", "--map-user=1000", "--map-group=1000")


class Done(NamedTuple):
    """outside: attempts to reach anything but loopback, IPv4 and IPv6."""

    code: int
    text: str
    outside: int


def forbidden():
    """Why this machine has no closed networks; empty when it has."""
    if shutil.which("unshare") is None:
        return "there is no unshare (util-linux)"
    words = ["unshare", *SPACES, *PERSON, "true"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


def run(words, *, count_in: Path, within_s=600, **more):
    """Run a program in a closed network of its own. count_in: a folder for the count."""
    leash = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    count, said = count_in / "outside", count_in / "said"
    inside = [sys.executable, __file__, str(count), *map(str, words)]
    try:
        with said.open("wb") as out:
            done = subprocess.run(
                [*leash, "unshare", *SPACES, *inside], stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, timeout=within_s, check=False, **more,
            )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise AssertionError(f"after {within_s} s: {text_of(said)[-4000:]}") from None
    assert count.exists(), text_of(said)[-4000:]
    return Done(done.returncode, text_of(said), int(count.read_text()))


def text_of(file):
    return file.read_text(errors="replace")


def loopback_up():
    flags = struct.pack("16sh14x", b"lo", 0x1 | 0x40)  # up, running
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, flags)  # SIOCSIFFLAGS


def without_route():
    """Attempts of this network that had nowhere to go."""
    names, values = [
        line.split()
        for line in Path("/proc/net/snmp").read_text().splitlines()
        if line.startswith("Ip:")
    ]
    four = int(dict(zip(names, values, strict=True))["OutNoRoutes"])
    six = [line.split() for line in Path("/proc/net/snmp6").read_text().splitlines()]
    return four + sum(int(value) for name, value in six if name == "Ip6OutNoRoutes")


def inside(count, *words):
    loopback_up()
    code = subprocess.run([*PERSON, *words], check=False).returncode
    Path(count).write_text(str(without_route()))
    return code


if __name__ == "__main__":
    sys.exit(inside(*sys.argv[1:]))

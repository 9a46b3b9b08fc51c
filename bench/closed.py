"""A network of its own for the servers of a bench: some of them listen beyond loopback, and talk."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys

INSIDE = "FALAJ_BENCH_CLOSED"

__all__ = ["is_closed", "run_closed"]


def is_closed() -> bool:
    return os.environ.get(INSIDE) == "1"


def run_closed(module: str, *, quick: bool) -> int:
    """Run `module` again where there is nothing but loopback; its environments are made before."""
    if shutil.which("unshare") is None:
        raise SystemExit("a network of its own is needed: install util-linux")
    words = [
        *("unshare", "--user", "--map-root-user", "--net"),
        *(sys.executable, "-m", module, *(["--quick"] if quick else [])),
    ]
    return subprocess.run(words, env={**os.environ, INSIDE: "1"}, check=False).returncode


def loopback_up() -> None:
    flags = struct.pack("16sh14x", b"lo", 0x1 | 0x40)  # up, running
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, flags)  # SIOCSIFFLAGS

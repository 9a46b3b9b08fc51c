"""A Ray cluster of two nodes on one machine, with a token. Only ever inside a closed network:
Ray listens on the addresses of its host."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

QUIET = {
    "LANG": "C.UTF-8",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    # It would end steps of ours when other programs of the machine take its memory.
    "RAY_memory_monitor_refresh_ms": "0",
}


class Cluster:
    """head has two cores, so that a step can ask for two; each further node one."""

    def __init__(self, folder: Path) -> None:
        assert not outside_is_near(), "Ray is started in a closed network only"
        self.folder = folder
        self.token_file = folder / "token"
        self.token_file.write_text(secrets.token_hex(32))
        self.token_file.chmod(0o600)
        with socket.socket() as free:  # the network is ours: nobody takes it meanwhile
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.seconds = {}

    def environment(self, **more):
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {
            **QUIET, "HOME": str(self.folder), "PATH": path,
            "RAY_AUTH_TOKEN_PATH": str(self.token_file), **more,
        }  # fmt: skip

    def start(self, name, cores, *, before=(), **more):
        """One node. before: words in front of its command."""
        port = self.address.rpartition(":")[2]
        place = [
            "--head",
            f"--port={port}",
            "--include-dashboard=false",
            f"--temp-dir={self.folder}/r",
        ]
        if name != "head":
            place = [f"--address={self.address}"]
        begun = time.monotonic()
        done = subprocess.run(
            [
                *before, Path(sys.executable).with_name("ray"), "start", *place,
                "--node-ip-address=127.0.0.1", f"--node-name={name}", f"--num-cpus={cores}",
                "--object-store-memory=100000000", "--disable-usage-stats",
            ],
            env=self.environment(**more), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False, timeout=120,
        )  # fmt: skip
        self.seconds[name] = time.monotonic() - begun
        return done

    def raylet(self, name):
        """The process that is the node, by the name that it was started with."""
        for folder in Path("/proc").glob("[0-9]*"):
            words = words_of(folder)
            if words and words[0].endswith("raylet") and f"--node-name={name}" in words:
                return int(folder.name)
        return None

    def kill(self, name):
        os.kill(self.raylet(name), signal.SIGKILL)

    def behead(self):
        """The process that every node and driver knows the others by."""
        for folder in self._ours():
            if words_of(folder)[0].endswith("gcs_server"):
                os.kill(int(folder.name), signal.SIGKILL)

    def end(self):
        """Every process of every node names this folder; those after us want the memory now."""
        for folder in self._ours():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(folder.name), signal.SIGKILL)

    def _ours(self):
        for folder in Path("/proc").glob("[0-9]*"):
            ours = any(f"{self.folder}/" in word for word in words_of(folder))
            if ours and int(folder.name) != os.getpid():
                yield folder


def words_of(folder):
    try:
        return folder.joinpath("cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def outside_is_near():
    """Whether this network has any device but loopback."""
    return any(name != "lo" for _, name in socket.if_nameindex())

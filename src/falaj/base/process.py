"""Names of running processes, so that work held by a dead one can be taken over at once."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Final

from falaj.base import ids

__all__ = ["is_gone", "owner_here"]

OWNER: Final = re.compile(r"(?P<host>[^/]+)/(?P<pid>\d+)/(?P<start>\d+)/.+")


def owner_here() -> str:
    """Name of this process for claims: `host/pid/start/ulid`, so that its end can be seen."""
    return f"{_host()}/{os.getpid()}/{_started(os.getpid())}/{ids.new()}"


def is_gone(owner: str) -> bool:
    """True when `owner` was a process of this machine and no longer runs.

    Without this a killed run would make the next one wait until the claim expires.
    """
    named = OWNER.fullmatch(owner)
    if named is None or named["host"] != _host() or not Path("/proc/self/stat").exists():
        return False
    return _started(int(named["pid"])) != int(named["start"])


@lru_cache(maxsize=1)
def _host() -> str:
    """Name this boot and pid namespace: a number from another container says nothing here."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return "unknown"
    return f"{boot}-{space}"


def _started(pid: int) -> int:
    """Start time of a process in clock ticks since boot; 0 when it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" else int(fields[19])

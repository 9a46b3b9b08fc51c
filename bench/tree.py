"""CPU and memory of a process with all that it started, by its session, from Linux's own books."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")

__all__ = ["cpu_s", "members", "pss_mb"]


def members(leader: int) -> list[int]:
    """Living processes of the session that `leader` began, and children that have left it."""
    parents: dict[int, int] = {}
    found: set[int] = set()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] == "Z":
            continue
        pid = int(folder.name)
        parents[pid] = int(fields[1])
        if int(fields[3]) == leader or pid == leader:
            found.add(pid)
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return sorted(found)
        found |= more


def cpu_s(pids: Iterable[int]) -> float:
    """User + system of each, of itself alone."""
    ticks = 0
    for pid in pids:
        try:
            fields = (
                Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            )
        except OSError:
            continue
        ticks += sum(int(fields[at]) for at in (11, 12))
    return ticks / TICK


def pss_mb(pids: Iterable[int]) -> float:
    kib = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        kib += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kib * 1024 / 1e6

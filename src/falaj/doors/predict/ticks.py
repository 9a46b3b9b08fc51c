"""Which process a number means."""

from __future__ import annotations

from pathlib import Path

__all__ = ["start_ticks"]


def start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since the machine did; 0 where nobody knows.

    With it a process id names one process, also after the number was given to another.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        return int(text.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0

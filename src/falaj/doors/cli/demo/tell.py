"""How the demo tells its story: headings, commands as one would type them, numbers that decided."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

__all__ = ["Story"]

TICKS: Final = os.sysconf("SC_CLK_TCK")


class Story:
    """machine: one JSON line a stage instead of prose."""

    def __init__(self, *, machine: bool) -> None:
        self.machine = machine
        self.began = time.monotonic()
        self.others: set[int] = set()  # pids of the worker and the servers
        self.live = sys.stderr.isatty() and not machine
        self._shown = False

    @contextmanager
    def stage(self, name: str, title: str) -> Iterator[None]:
        self.heading(title)
        wall, cpu = time.monotonic(), self.cpu()
        yield
        self.clear()
        if self.machine:
            record = {
                "stage": name,
                "wall_s": round(time.monotonic() - wall, 3),
                "cpu_s": round(self.cpu() - cpu, 3),
            }
            click.echo(json.dumps(record))

    def cpu(self) -> float:
        """CPU seconds of this process, its ended children, the worker and the servers."""
        mine = resource.getrusage(resource.RUSAGE_SELF)
        done = resource.getrusage(resource.RUSAGE_CHILDREN)
        total = mine.ru_utime + mine.ru_stime + done.ru_utime + done.ru_stime
        return total + sum(ticks(pid) for pid in self.others) / TICKS

    def heading(self, title: str) -> None:
        if not self.machine:
            at = time.monotonic() - self.began
            click.echo("\n" + click.style(f"[{at:5.1f} s] {title}", bold=self.colours()))

    def command(self, line: str) -> None:
        if not self.machine:
            self.clear()
            click.echo(click.style(f"  $ {line}", dim=self.colours()))

    def say(self, line: str) -> None:
        if not self.machine:
            self.clear()
            click.echo(f"  {line}")

    def progress(self, line: str) -> None:
        """On a terminal one line that moves; elsewhere nothing, the results are said anyway."""
        if self.live:
            click.echo(f"\r\033[2K  {line[:96]}", nl=False, err=True)
            self._shown = True

    def clear(self) -> None:
        if self._shown:
            click.echo("\r\033[2K", nl=False, err=True)
            self._shown = False

    def colours(self) -> bool:
        return sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def document(self, record: dict[str, Any]) -> None:
        if self.machine:
            click.echo(json.dumps(record))


def ticks(pid: int) -> int:
    """User and system ticks of a process and of its children that ended; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:  # noqa: PTH123 no Path on /proc
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(int(field) for field in fields[11:15])

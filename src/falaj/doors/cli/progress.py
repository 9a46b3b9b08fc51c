"""What a run is doing, on stderr: alive on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import click

__all__ = ["OnStep", "line", "telling", "watching"]

OnStep = Callable[[str, str, float], None]
EVERY_S: Final = 2.0
COLOURS: Final = {"executed": "green", "cached": "dim", "failed": "red", "retried": "yellow"}


def line(step: str, status: str, seconds: float) -> str:
    return f"  {status:<8}  {step}" + (f"  {seconds:.1f} s" if seconds else "")


QUIET: Final = ("planned", "running")  # not worth a line of their own


@contextmanager
def telling() -> Iterator[Callable[[str], None]]:
    """Yield who hears how far a long walk is: one line that changes, or at most one in 2 s."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.text import Text

        with Console(stderr=True).status("looking") as status_line:
            yield lambda words: status_line.update(Text(words))
        return
    last = -EVERY_S

    def plain(words: str) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY_S:
            last = time.monotonic()
            click.echo(f"  {words}", err=True)

    yield plain


@contextmanager
def watching() -> Iterator[OnStep]:
    """Yield who hears of steps: a bar on a terminal, lines elsewhere. stdout stays for the answer."""
    if not sys.stderr.isatty():

        def plain(step: str, status: str, seconds: float) -> None:
            if status not in QUIET:
                click.echo(line(step, status, seconds), err=True)

        yield plain
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.text import Text

    console = Console(stderr=True)
    words = TextColumn("{task.description}")
    columns = (SpinnerColumn(), MofNCompleteColumn(), BarColumn(24), TimeElapsedColumn(), words)
    planned: set[str] = set()
    ended: set[str] = set()
    running: dict[str, None] = {}

    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("planning", total=None)

        def alive(step: str, status: str, seconds: float) -> None:
            if ":" in step:  # elements of a mapped step are known when it begins
                planned.discard(step.partition(":")[0])
            planned.add(step)
            if status in ("running", "retried"):
                running[step] = None
            elif status != "planned":
                running.pop(step, None)
                ended.add(step)
            if status not in QUIET:
                console.print(Text(line(step, status, seconds), style=COLOURS.get(status, "")))
            doing = "running " + ", ".join(running) if running else "recording"
            bar.update(task, total=len(planned), completed=len(ended), description=doing)

        yield alive

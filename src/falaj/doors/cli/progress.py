"""What a run is doing, on stderr: alive on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import click

__all__ = ["OnStep", "line", "watching"]

OnStep = Callable[[str, str, float], None]
COLOURS: Final = {"executed": "green", "cached": "dim", "failed": "red", "retried": "yellow"}


def line(step: str, status: str, seconds: float) -> str:
    return f"  {status:<8}  {step}" + (f"  {seconds:.1f} s" if seconds else "")


@contextmanager
def watching() -> Iterator[OnStep]:
    """Yield who hears of steps. stdout stays for the answer."""
    if not sys.stderr.isatty():

        def plain(step: str, status: str, seconds: float) -> None:
            if status != "running":
                click.echo(line(step, status, seconds), err=True)

        yield plain
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    since: dict[str, float] = {}
    with console.status("planning") as status_line:

        def alive(step: str, status: str, seconds: float) -> None:
            if status in ("running", "retried"):
                since[step] = time.monotonic()
            else:
                since.pop(step, None)
            if status != "running":
                console.print(Text(line(step, status, seconds), style=COLOURS.get(status, "")))
            status_line.update(Text("running " + ", ".join(since) if since else "recording"))

        yield alive

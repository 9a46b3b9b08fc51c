"""How facts are printed: one document for machines, plain lines for people."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click

__all__ = ["MARKS", "ago", "as_json", "json_option", "mark", "short", "stamp", "table"]

MARKS: Final = {
    "pass": ("✓", "green"),
    "fail": ("✕", "red"),
    "inconclusive": ("~", "yellow"),
    "error": ("!", "yellow"),
    "skipped": ("○", "bright_black"),
    "warning": ("▲", "yellow"),
    "note": ("○", "bright_black"),
    "better": ("✓", "green"),
    "worse": ("✕", "red"),
    "no difference yet": ("~", "bright_black"),
    "no data": ("○", "bright_black"),
}
Function = Callable[..., Any]


def json_option(function: Function) -> Function:
    """`--json`: stdout holds exactly one document, prose goes to stderr."""
    return click.option("--json", "machine", is_flag=True, help="Print one JSON document.")(
        function
    )


def as_json(schema: str, data: Any) -> None:
    import json

    document = {
        "schema": f"falaj.{schema}/1",
        "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "data": data,
        "next": None,
    }
    click.echo(json.dumps(document, ensure_ascii=False))


def coloured() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def mark(verdict: str) -> str:
    """A mark and its word, coloured where colours are wanted; never colour alone."""
    sign, colour = MARKS.get(verdict, ("·", "white"))
    text = f"{sign} {verdict}"
    return click.style(text, fg=colour) if coloured() else text


def short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def stamp() -> str:
    return datetime.now(UTC).strftime("%H:%M:%S")


def ago(then: str, *, now: datetime | None = None) -> str:
    """A time for people, from RFC 3339."""
    seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(then)).total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"


def table(rows: Sequence[Sequence[str]], head: Sequence[str] = ()) -> None:
    """Columns as wide as their longest cell; the last one runs free."""
    everything = [list(head), *map(list, rows)] if head else [list(row) for row in rows]
    if not everything:
        return
    widths = [
        max(len(click.unstyle(row[i])) for row in everything) for i in range(len(everything[0]))
    ]
    for index, row in enumerate(everything):
        cells = [
            cell + " " * (width - len(click.unstyle(cell)))
            for cell, width in zip(row[:-1], widths, strict=False)
        ]
        line = "  ".join([*cells, row[-1]]).rstrip()
        click.echo(click.style(line, dim=True) if head and index == 0 and coloured() else line)

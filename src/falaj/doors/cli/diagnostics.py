"""A FalajError for people: place, excerpt, caret, why, fix. For machines: base/problems."""

from __future__ import annotations

import textwrap
from typing import Final

from falaj.base.errors import FalajError, Place, Problem

__all__ = ["render"]

LEAST_WIDTH: Final = 40


def render(error: FalajError, *, width: int = 100) -> str:
    """Plain text, a block for each problem, no line break at the end. width: columns."""
    width = max(width, LEAST_WIDTH)
    return "\n\n".join(_block(problem, width) for problem in error.problems)


def _block(problem: Problem, width: int) -> str:
    place = problem.place
    gutter = max((len(str(n)) for n, _ in place.excerpt), default=1) if place else 1
    lines = _wrap(f"error[{problem.code}]: ", clean(problem.message), width, hang="  ")
    if place is not None:
        lines.append(f"{' ' * gutter}--> {clean(str(place))}")
        lines += _excerpt(place, gutter, width)
    margin = " " * (gutter + 1)
    lines += _wrap(f"{margin}= why: ", clean(problem.why), width) if problem.why else []
    lines += _wrap(f"{margin}= fix: ", clean(problem.fix), width) if problem.fix else []
    lines.append(f"{margin}= more: falaj explain {problem.code}")
    return "\n".join(lines)


def _excerpt(place: Place, gutter: int, width: int) -> list[str]:
    if not place.excerpt:
        return []
    room = width - gutter - 3
    shift = max(0, place.column - 1 - room * 2 // 3) if place.column > room else 0
    lines = [f"{' ' * gutter} |"]
    for number, text in place.excerpt:
        lines.append(f"{number:>{gutter}} | {_cut(clean(text), shift, room)}".rstrip())
        if number == place.line:
            before = _width(clean(text)[shift : place.column - 1])
            lines.append(f"{' ' * gutter} | {' ' * before}^ {clean(place.note)}".rstrip())
    return lines


def _cut(text: str, shift: int, room: int) -> str:
    text = text[shift:]
    return text if _width(text) <= room else text[: room - 3] + "..."


def _width(text: str) -> int:
    """Columns that a terminal gives the text: wide signs take two, combining ones none."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def _wrap(head: str, text: str, width: int, *, hang: str = "") -> list[str]:
    return textwrap.wrap(
        head + text,
        width,
        subsequent_indent=hang or " " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )


def clean(text: str) -> str:
    """Text that cannot steer a terminal: control and direction signs are shown as their number.

    Names in messages come from files and requests of others.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else " " if c in "\t\n" else f"<U+{ord(c):04X}>" for c in text
    )

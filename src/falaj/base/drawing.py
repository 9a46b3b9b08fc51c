"""Small tables as SVG: a line, points or bars. Text is escaped; nothing is loaded, nothing runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

__all__ = ["plot_svg", "ticks"]

WIDTH: Final = 420
HEIGHT: Final = 240
LEFT: Final = 56
BOTTOM: Final = 36
TOP: Final = 24
RIGHT: Final = 12


def ticks(low: float, high: float, *, about: int = 4) -> list[float]:
    """Round numbers from at most `low` to at least `high`."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
    step, unit = (high - low) / about, 1.0
    while unit > step:
        unit /= 10
    while unit * 10 <= step:
        unit *= 10
    step = next((unit * k for k in (1, 2, 5) if unit * k >= step * 0.999), unit * 10)
    first = int(low // step)
    found = [first * step]
    while found[-1] < high - step * 1e-9 and len(found) < 20:
        found.append((first + len(found)) * step)
    return found


def plot_svg(plot: Mapping[str, Any]) -> str:
    """plot: the builtins of a `Plot` fact."""
    across: Sequence[Any] = plot["columns"][plot["x"]]
    up: Sequence[float] = [float(v) for v in plot["columns"][plot["y"]]]
    words = any(isinstance(value, str) for value in across)
    bars = plot["mark"] == "bars"
    xs = list(range(len(across))) if words or bars else [float(v) for v in across]
    rows = ticks(min([*up, 0.0] if bars else up), max([*up, 0.0] if bars else up))
    if words or bars:
        low, high = -0.5, len(xs) - 0.5
        marks = [(float(i), str(across[i])) for i in spread(len(across), 6)]
    else:
        columns = ticks(min(xs), max(xs))
        low, high = columns[0], columns[-1]
        marks = [(value, short(value)) for value in columns]

    def x(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        room = HEIGHT - TOP - BOTTOM
        return TOP + (rows[-1] - value) / (rows[-1] - rows[0]) * room

    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    font = 'font-family="sans-serif" font-size="11"'
    parts = [
        f'<svg {size} role="img" aria-label="{escape(plot["name"])}" {font}>',
        f'<text x="{LEFT}" y="14" font-weight="bold">{escape(plot["name"])}</text>',
    ]
    parts += [
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" '
        f'stroke="#ddd"/><text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">'
        f"{short(value)}</text>"
        for value in rows
    ]
    for value, label in marks:
        cut = label if len(label) <= 12 else label[:11] + "…"
        parts.append(
            f'<text x="{x(value):.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">'
            f"{escape(cut)}</text>"
        )
    parts.append(
        f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle" fill="#555">'
        f"{escape(plot['x'])} → {escape(plot['y'])}</text>"
    )
    if bars:
        wide = max((WIDTH - LEFT - RIGHT) / len(xs) * 0.7, 0.5)
        for at, value in zip(xs, up, strict=True):
            top, foot = sorted((y(value), y(0.0)))
            parts.append(
                f'<rect x="{x(at) - wide / 2:.1f}" y="{top:.1f}" width="{wide:.1f}" '
                f'height="{max(foot - top, 0.5):.1f}" fill="#2a6f97"/>'
            )
    elif plot["mark"] == "points":
        parts += [
            f'<circle cx="{x(at):.1f}" cy="{y(value):.1f}" r="2" fill="#2a6f97"/>'
            for at, value in zip(xs, up, strict=True)
        ]
    else:
        line = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in zip(xs, up, strict=True))
        parts.append(f'<polyline points="{line}" fill="none" stroke="#2a6f97" stroke-width="1.5"/>')
    return "".join([*parts, "</svg>"])


def spread(count: int, most: int) -> list[int]:
    return list(range(0, count, max(-(-count // most), 1)))


def short(value: float) -> str:
    return f"{value:.6g}"

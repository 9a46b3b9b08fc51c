"""Charts as SVG whose text does not shrink on a phone: lines lie in an inner box, words beside it.

No style of their own: they take the classes of `sheets`. Each says its newest values in words and
holds its numbers as a table. Nothing is loaded, nothing runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple, TypeVar

from falaj.base.drawing import ticks
from falaj.base.sheets import Html, h, table

__all__ = ["Band", "Line", "bars", "chart", "interval", "short"]

T = TypeVar("T")
LEFT, WIDE, TOP, TALL = 13.0, 84.0, 5.0, 80.0  # percent of the picture
HEIGHT: Final = 240
MOST: Final = 240  # points of a line


class Line(NamedTuple):
    """kind: `a` or `b` for what is compared, `ref` for what would be perfect, `thin` for one row."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    kind: str = "a"
    dots: bool = False


class Band(NamedTuple):
    name: str
    x: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def short(value: float | None) -> str:
    return "" if value is None else f"{value + 0.0:.4g}"  # no -0


def chart(
    title: str,
    lines: Sequence[Line],
    *,
    across: str,
    up: str,
    bands: Sequence[Band] = (),
    rug: Sequence[float] = (),
    limit: float | None = None,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    numbers: str = "Numbers",
) -> Html:
    """Lines over one axis. rug: ticks on it, where the rows are. limit: a line across."""
    shown = [line for line in lines if len(line.x)]
    if not shown:
        return Html("")
    xs = [v for line in shown for v in line.x]
    ys = [v for line in shown for v in line.y]
    ys += [v for band in bands for v in (*band.low, *band.high)]
    ys += [limit] if limit is not None else []
    columns = ticks(*(x_range or (min(xs), max(xs))))
    rows = ticks(*(y_range or (min(ys), max(ys))))
    box = Box(columns[0], columns[-1], rows[0], rows[-1])
    inner = [
        polygon([*zip(b.x, b.high, strict=True), *reversed([*zip(b.x, b.low, strict=True)])], box)
        for b in bands
    ]
    inner += [polyline(line, box) for line in shown]
    outer = [grid(box, columns, rows)]
    outer += [
        f'<circle class="dot{line.kind}" r="3.5" cx="{box.x(x):.2f}%" cy="{box.y(y):.2f}%"/>'
        for line in shown
        if line.dots or len(line.x) == 1
        for x, y in zip(line.x, line.y, strict=True)
    ]
    outer += [
        f'<line class="rug" x1="{box.x(v):.2f}%" x2="{box.x(v):.2f}%" y1="{TOP + TALL}%" '
        f'y2="{TOP + TALL - 3}%"/>'
        for v in rug
        if box.low <= v <= box.high
    ]
    if limit is not None:
        at = f"{box.y(limit):.2f}%"
        outer.append(f'<line class="limit" x1="{LEFT}%" x2="{LEFT + WIDE}%" y1="{at}" y2="{at}"/>')
    told = [line for line in shown if line.kind in ("a", "b")]
    label = f"{title}: " + "; ".join(
        f"{line.name} {short(line.y[-1])} at {short(line.x[-1])}" for line in told
    )
    twin = table(
        (across, *(line.name or up for line in told)),
        (
            (short(x), *(near(line, x) for line in told))
            for x in sorted({x for line in told for x in thinned(line.x, 21)})
        ),
        "n" * (1 + len(told)),
    )
    return figure(title, label, inner, outer, told, f"{across} · {up}", twin, numbers)


def bars(
    title: str,
    edges: Sequence[float],
    shares: Sequence[tuple[str, Sequence[float]]],
    *,
    across: str,
    up: str,
    numbers: str = "Numbers",
) -> Html:
    """Two distributions on the same edges, as areas: the first in `a`, the second in `b`."""
    if not shares or len(edges) < 2:
        return Html("")
    columns = ticks(edges[0], edges[-1])
    rows = ticks(0.0, max(max(share) for _, share in shares))
    box = Box(columns[0], columns[-1], rows[0], rows[-1])
    inner, told = [], []
    for kind, (name, share) in zip("ab", shares, strict=False):
        corners = [(edges[0], 0.0)]
        for place, value in enumerate(share):
            corners += [(edges[place], value), (edges[place + 1], value)]
        corners.append((edges[-1], 0.0))
        inner.append(polygon(corners, box, f"area{kind}"))
        line = Line(name, [x for x, _ in corners], [y for _, y in corners], kind)
        inner.append(polyline(line, box))
        told.append(line)
    label = f"{title}: " + "; ".join(
        f"{name}, most at {short(edges[max(range(len(s)), key=s.__getitem__)])}"
        for name, s in shares
    )
    twin = table(
        (across, *(name for name, _ in shares)),
        (
            (f"{short(edges[i])} - {short(edges[i + 1])}", *(short(s[i]) for _, s in shares))
            for i in range(len(edges) - 1)
        ),
        "n" * (1 + len(shares)),
    )
    words = f"{across} · {up}"
    return figure(title, label, inner, [grid(box, columns, rows)], told, words, twin, numbers)


def interval(
    value: float | None,
    low: float | None,
    high: float | None,
    span: tuple[float, float],
    *,
    limit: float | None = None,
    kind: str = "a",
) -> Html:
    """One row of a forest: a value between its bounds, with the limit; an open side runs out."""
    first, last = span
    width = (last - first) or 1.0

    def x(at: float) -> str:
        return f"{2 + 96 * min(max((at - first) / width, 0), 1):.2f}%"

    words = f"{short(value)} [{short(low)}, {short(high)}]" + (
        f", limit {short(limit)}" if limit is not None else ""
    )
    parts = [f'<svg width="100%" height="20" role="img" aria-label="{escape(words)}">']
    if limit is not None:
        parts.append(f'<line class="limit" x1="{x(limit)}" x2="{x(limit)}" y1="1" y2="19"/>')
    if low is not None or high is not None:
        a, b = x(first if low is None else low), x(last if high is None else high)
        parts.append(
            f'<line class="{kind}" stroke-dasharray="none" x1="{a}" x2="{b}" y1="10" y2="10"/>'
        )
        parts += [
            f'<line class="{kind}" stroke-dasharray="none" x1="{x(end)}" x2="{x(end)}" y1="6" y2="14"/>'
            for end in (low, high)
            if end is not None
        ]
    if value is not None:
        parts.append(f'<circle class="dot{kind}" r="4" cx="{x(value)}" cy="10"/>')
    return Html("".join([*parts, "</svg>"]))


# --- parts ---


class Box(NamedTuple):
    low: float
    high: float
    bottom: float
    top: float

    def x(self, value: float) -> float:
        return LEFT + WIDE * (value - self.low) / (self.high - self.low)

    def y(self, value: float) -> float:
        return TOP + TALL * (self.top - value) / (self.top - self.bottom)

    def inside(self, x: float, y: float) -> str:
        """In the inner box of 1000 x 1000."""
        return (
            f"{1000 * (x - self.low) / (self.high - self.low):.0f},"
            f"{1000 * (self.top - y) / (self.top - self.bottom):.0f}"
        )


def grid(box: Box, columns: Sequence[float], rows: Sequence[float]) -> str:
    parts = [
        f'<line class="grid" x1="{LEFT}%" x2="{LEFT + WIDE}%" y1="{box.y(v):.2f}%" '
        f'y2="{box.y(v):.2f}%"/><text x="{LEFT - 1.5}%" y="{box.y(v):.2f}%" dy="4" '
        f'text-anchor="end">{short(v)}</text>'
        for v in rows
    ]
    parts += [
        f'<text x="{box.x(v):.2f}%" y="{TOP + TALL}%" dy="16" '
        f'text-anchor="middle">{short(v)}</text>'
        for v in columns
    ]
    return "".join(parts)


def polyline(line: Line, box: Box) -> str:
    pairs = thinned([*zip(line.x, line.y, strict=True)], MOST)
    points = " ".join(box.inside(x, y) for x, y in pairs)
    return f'<polyline class="{line.kind}" points="{points}"/>'


def polygon(corners: Sequence[tuple[float, float]], box: Box, kind: str = "band") -> str:
    points = " ".join(box.inside(x, y) for x, y in corners)
    return f'<polygon class="{kind}" points="{points}"/>'


def figure(
    title: str,
    label: str,
    inner: Sequence[str],
    outer: Sequence[str],
    told: Sequence[Line],
    axes: str,
    twin: Html,
    numbers: str,
) -> Html:
    keys = "".join(
        f'<span><svg class="key"><line class="{line.kind}" x1="0" x2="26" y1="5" y2="5"/></svg>'
        f"{escape(line.name)}</span>"
        for line in told
        if len(told) > 1 and line.name
    )
    legend = f'<div class="legend">{keys}</div>' if keys else ""
    return Html(
        f"<figure><figcaption>{escape(title)}</figcaption>{legend}"
        f'<svg width="100%" height="{HEIGHT}" role="img" aria-label="{escape(label)}">'
        + "".join(outer[:1])
        + f'<svg x="{LEFT}%" y="{TOP}%" width="{WIDE}%" height="{TALL}%" viewBox="0 0 1000 1000" '
        f'preserveAspectRatio="none">{"".join(inner)}</svg>'
        + "".join(outer[1:])
        + f'</svg><div class="axis">{escape(axes)}</div>'
        f"<details><summary>{escape(numbers)}</summary>{h(twin)}</details></figure>"
    )


def near(line: Line, x: float) -> str:
    """The line's own value there, or nothing."""
    return next((short(y) for at, y in zip(line.x, line.y, strict=True) if at == x), "")


def thinned(values: Sequence[T], most: int) -> list[T]:
    """The first, the last, and evenly between."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]

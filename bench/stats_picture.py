"""False rollbacks as a picture: one panel a scenario, one bar a rule. Plain SVG."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

WIDTH, COLUMNS, MARGIN = 960, 2, 24
TITLE, HEAD, BAR, GAP, AFTER, HEAD_OF_PANEL = 64, 30, 16, 6, 26, 24
LABEL, VALUE = 150, 64
INK, PALE, PAPER = "#1f2933", "#52606d", "#ffffff"
GOOD, BAD, TRACK, LINE = "#0b7285", "#c2410c", "#eef1f4", "#1f2933"

Shares = Mapping[str, Mapping[str, float]]


def picture(shares: Shares, alpha: float, runs: int, kayenta: int) -> str:
    """shares: scenario -> rule -> share of days rolled back although nothing was wrong."""
    rules = list(next(iter(shares.values())))
    panel = HEAD_OF_PANEL + len(rules) * (BAR + GAP) + AFTER
    lines = -(-(len(shares) + 1) // COLUMNS)
    height = TITLE + HEAD + lines * panel
    wide = (WIDTH - MARGIN * (COLUMNS + 1)) / COLUMNS
    told = "; ".join(
        f"{name}: " + ", ".join(f"{rule} {percent(by[rule])}" for rule in rules)
        for name, by in shares.items()
    )
    out = [
        (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" font-family="system-ui, sans-serif" '
        f'aria-label="{escape(f"False rollbacks by rule and scenario. {told}")}">'),
        f'<rect width="{WIDTH}" height="{height}" fill="{PAPER}"/>',
        text(MARGIN, 36, "Good releases that are rolled back, % of days", 20, weight=600),
        text(MARGIN, 60, f"Nothing is wrong with the canary. {runs:,} days a scenario, a look each "
             f"minute; allowed: {100 * alpha:g} %.", 13, PALE),
    ]  # fmt: skip
    for number, (name, by) in enumerate(shares.items()):
        x = MARGIN + number % COLUMNS * (wide + MARGIN)
        y = TITLE + HEAD + number // COLUMNS * panel
        out += _panel(x, y, wide, name, {rule: by[rule] for rule in rules}, alpha)
    last = len(shares)
    x = MARGIN + last % COLUMNS * (wide + MARGIN)
    y = TITLE + HEAD + last // COLUMNS * panel
    out += _legend(x, y, kayenta)
    return "\n".join([*out, "</svg>", ""])


def _panel(
    x: float, y: float, wide: float, name: str, by: Mapping[str, float], alpha: float
) -> list[str]:
    out = [text(x, y + 14, name[0].upper() + name[1:], 14, weight=600)]
    left, room = x + LABEL, wide - LABEL - VALUE
    top = y + HEAD_OF_PANEL
    for number, (rule, share) in enumerate(by.items()):
        at = top + number * (BAR + GAP)
        own = number == 0
        size = max(share * room, 2.0 if share else 0.0)
        out += [
            text(left - 8, at + 12, rule, 12, anchor="end", weight=600 if own else 400),
            rect(left, at, room, BAR, TRACK),
            rect(left, at, size, BAR, GOOD if own else BAD),
            text(left + room + 8, at + 12, percent(share), 12, weight=600 if own else 400),
        ]
    edge = left + alpha * room
    bottom = top + len(by) * (BAR + GAP)
    out.append(
        f'<line x1="{edge:.1f}" y1="{top - 4}" x2="{edge:.1f}" y2="{bottom}" stroke="{LINE}" '
        f'stroke-width="1" stroke-dasharray="3 2"/>'
    )
    return out


def _legend(x: float, y: float, kayenta: int) -> list[str]:
    words = (
        "Falaj: e-process on 2x2 tables by minute, weight and zone",
        "Others: re-implemented from their published rules,",
        f"not the programs themselves (Kayenta-like: {kayenta:,} days)",
        "Dashed line: what was allowed, 1 %",
    )
    out = [text(x, y + 14, "How to read it", 14, weight=600)]
    for number, line in enumerate(words):
        at = y + HEAD_OF_PANEL + number * (BAR + GAP)
        colour = {0: GOOD, 1: BAD}.get(number)
        if colour:
            out.append(rect(x, at, BAR, BAR, colour))
        if number == 3:
            out.append(
                f'<line x1="{x + 8}" y1="{at - 2}" x2="{x + 8}" y2="{at + 18}" stroke="{LINE}" '
                f'stroke-dasharray="3 2"/>'
            )
        out.append(text(x + BAR + 8, at + 12, line, 12))
    return out


def percent(share: float) -> str:
    value = 100 * share
    return f"{value:.0f} %" if value in (0, 100) else f"{value:.1f} %"


def text(
    x: float, y: float, words: str, size: int, colour: str = INK, *, anchor: str = "start",
    weight: int = 400,
) -> str:  # fmt: skip
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{escape(words)}</text>'
    )


def rect(x: float, y: float, wide: float, high: float, colour: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}" rx="2" '
        f'fill="{colour}"/>'
    )

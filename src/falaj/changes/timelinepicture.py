"""The timeline as one SVG: a lane an environment, a bar a release, marks for what happened.

Stands alone: no script, nothing loaded, light and dark by the reader's own setting. Text is escaped;
each mark says in a title what it is, and the whole in a description.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from html import escape
from typing import Final

from falaj.facts.ledger import Happening, Stretch, Timeline

__all__ = ["timeline_svg"]

Place = Callable[[datetime], float]
WIDE: Final = 960
LEFT: Final = 132
RIGHT: Final = 24
TOP: Final = 56
LANE: Final = 64
BAR: Final = 30
FOOT: Final = 68
HUES: Final = 6
MOST_MARKS: Final = 400
MARKS: Final = {"rollback": "back", "alert": "alert", "approval": "seal", "review": "seal"}
STYLE: Final = """
.ground{fill:#ffffff}.ink{fill:#1b1f24}.muted{fill:#57606a}.line{stroke:#d6d9de}
.r0{fill:#0b5cad}.r1{fill:#9a4a00}.r2{fill:#0f6b3a}.r3{fill:#6b3fa0}.r4{fill:#8a2550}.r5{fill:#3d5a66}
.on{fill:#ffffff}.back{fill:#a3151f}.alert{fill:#a35c00}.seal{fill:#57606a}
text{font:12px system-ui,"Segoe UI","Noto Sans",sans-serif}.big{font-size:15px;font-weight:600}
@media (prefers-color-scheme:dark){.ground{fill:#101418}.ink{fill:#e7eaee}.muted{fill:#a2abb6}
.line{stroke:#333b45}.r0{fill:#74b4f5}.r1{fill:#f0a35c}.r2{fill:#6fd79b}.r3{fill:#c3a2f0}
.r4{fill:#f09ac0}.r5{fill:#a9c3cf}.on{fill:#101418}.back{fill:#ff9a9f}.alert{fill:#f2c063}
.seal{fill:#a2abb6}}
"""


def timeline_svg(found: Timeline) -> str:
    """A picture of at least a minute; empty lanes are left out."""
    lanes = list(dict.fromkeys(one.environment for one in found.stretches))
    tall = TOP + LANE * max(len(lanes), 1) + FOOT
    ends = [one.until or found.at for one in found.stretches]
    begins = [one.since for one in found.stretches]
    low = min(begins, default=found.at - timedelta(minutes=1))
    high = max([*ends, low + timedelta(minutes=1)])

    def x(at: datetime) -> float:
        share = (at - low) / (high - low)
        return LEFT + min(max(share, 0.0), 1.0) * (WIDE - LEFT - RIGHT)

    hues = {
        release: number % HUES
        for number, release in enumerate(dict.fromkeys(one.release for one in found.stretches))
    }
    title = f"{found.model}: what answered when"
    told = "; ".join(words_of(one) for one in found.stretches) or "nothing has answered yet"
    parts = [
        svg_of(tall),
        f'<title id="t">{escape(title)}</title><desc id="d">{escape(told)}</desc>',
        f"<style>{STYLE}</style>",
        f'<rect class="ground" width="{WIDE}" height="{tall}"/>',
        f'<text class="ink big" x="16" y="26">{escape(title)}</text>',
        *axis(low, high, tall, x),
    ]
    if not lanes:
        parts.append(
            f'<text class="muted" x="{LEFT}" y="{TOP + 30}">nothing has answered yet</text>'
        )
    for number, lane in enumerate(lanes):
        top = TOP + LANE * number
        parts.append(f'<text class="ink" x="16" y="{top + BAR / 2 + 4:.0f}">{escape(lane)}</text>')
        own = [one for one in found.stretches if one.environment == lane]
        parts += [bar(one, top, x, hues[one.release], found.at) for one in own]
        marks = [one for one in found.happenings if one.environment == lane]
        parts += marks_of(marks, top + BAR + 14, x, low)
    parts += legend(found, hues, tall - 14)
    return "".join([*parts, "</svg>"])


def svg_of(tall: int) -> str:
    size = f'viewBox="0 0 {WIDE} {tall}" width="{WIDE}" height="{tall}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="t d">'


def legend(found: Timeline, hues: dict[str, int], y: float) -> list[str]:
    """Versions and their colours, the newest ones where not all have room."""
    names = {one.release: one.version for one in found.stretches}
    parts, left = [], float(LEFT)
    for release, version in list(names.items())[-HUES:]:
        shown = version if len(version) <= 16 else version[:15] + "…"
        parts.append(
            f'<rect class="r{hues[release]} key" x="{left:.0f}" y="{y - 9:.0f}" width="10" '
            f'height="10"/><text class="muted" x="{left + 15:.0f}" y="{y:.0f}">{escape(shown)}</text>'
        )
        left += 34 + 7 * len(shown)
    return parts


def words_of(one: Stretch) -> str:
    until = f"{one.until:%Y-%m-%d %H:%M:%S}" if one.until else "now"
    return (
        f"{one.environment}: {one.version} {100 * one.share:.4g} % from "
        f"{one.since:%Y-%m-%d %H:%M:%S} to {until} UTC"
    )


def bar(one: Stretch, top: float, x: Place, hue: int, now: datetime) -> str:
    """As high as its share; what answers alone fills the lane, a canary its lower part."""
    left, right = x(one.since), x(one.until or now)
    wide = max(right - left, 1.0)
    high = max(BAR * one.share, 2.0)
    lower = one.share < 0.5
    y = top + (BAR - high if lower else 0.0)
    label = ""
    if wide > 7.5 * len(one.version) + 8 and high > 14:
        label = (
            f'<text class="on" x="{left + wide / 2:.1f}" y="{y + high / 2 + 4:.1f}" '
            f'text-anchor="middle">{escape(one.version)}</text>'
        )
    return (
        f'<g><title>{escape(words_of(one))}</title><rect class="r{hue}" x="{left:.1f}" '
        f'y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}" rx="2"/>{label}</g>'
    )


def marks_of(found: Sequence[Happening], y: float, x: Place, low: datetime) -> list[str]:
    shown = [one for one in found if one.kind in MARKS and one.at >= low][-MOST_MARKS:]
    parts = []
    for one in shown:
        at, kind = x(one.at), MARKS[one.kind]
        shape = {
            "back": f'<path class="back" d="M{at:.1f} {y - 5:.1f}l5 10h-10z"/>',
            "alert": f'<path class="alert" d="M{at:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z"/>',
            "seal": f'<circle class="seal" cx="{at:.1f}" cy="{y:.1f}" r="4"/>',
        }[kind]
        when = f"{one.at:%Y-%m-%d %H:%M:%S} UTC"
        parts.append(f"<g><title>{escape(f'{when} {one.words}')}</title>{shape}</g>")
    return parts


def axis(low: datetime, high: datetime, tall: int, x: Place) -> list[str]:
    step = (high - low) / 6
    form = "%H:%M:%S" if high - low < timedelta(hours=1) else "%d %b %H:%M"
    if high - low > timedelta(days=20):
        form = "%Y-%m-%d"
    parts = []
    for number in range(7):
        at = low + step * number
        left = x(at)
        anchor = "end" if number == 6 else "start" if number == 0 else "middle"
        parts.append(
            f'<line class="line" x1="{left:.1f}" x2="{left:.1f}" y1="{TOP - 12}" '
            f'y2="{tall - FOOT + 8}"/><text class="muted" x="{left:.1f}" y="{tall - FOOT + 26}" '
            f'text-anchor="{anchor}">{at:{form}}</text>'
        )
    note = "UTC · triangle: back · diamond: alert · dot: approval or review"
    return [*parts, f'<text class="muted" x="{LEFT}" y="42">{note}</text>']

"""A page of HTML that stands alone: no script, nothing loaded, light and dark, for phone and paper.

Colours: tokens with their contrast measured on both grounds; never colour alone. Text is escaped
unless it is `Html`, which only this module and `charts` make from escaped parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

__all__ = ["MARKS", "Html", "bdi", "digest", "h", "join", "sheet", "table", "verdict"]

# Control signs and lone surrogates: no page may hold them, and UTF-8 neither.
UNSPEAKABLE: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
MARKS: Final = {
    "pass": "✓",
    "fail": "✕",
    "inconclusive": "~",
    "error": "!",
    "skipped": "○",
    "warning": "▲",
    "note": "○",
    "better": "✓",
    "worse": "✕",
    "no difference yet": "~",
    "no data": "○",
}
GOOD: Final = ("pass", "better")
BAD: Final = ("fail", "worse")

STYLE: Final = """
:root{color-scheme:light dark;--bg:#f7f7f5;--card:#fff;--ink:#1b1f24;--muted:#57606a;--accent:#0b5cad;
--other:#9a4a00;--pass:#0f6b3a;--passbg:#e3f4ea;--warn:#7a4b00;--warnbg:#fff1d6;--fail:#a3151f;
--failbg:#fde7e8;--line:#d6d9de}
@media (prefers-color-scheme:dark){:root{--bg:#101418;--card:#171c22;--ink:#e7eaee;--muted:#a2abb6;
--accent:#74b4f5;--other:#f0a35c;--pass:#6fd79b;--passbg:#12301f;--warn:#f2c063;--warnbg:#35270a;
--fail:#ff9a9f;--failbg:#3c1618;--line:#333b45}}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,"Segoe UI","Noto Sans","Noto Sans Arabic",sans-serif;background:var(--bg);
color:var(--ink);max-width:72rem;margin:0 auto;padding-block:24px;padding-inline:16px}
h1{font-size:26px;line-height:1.25;margin-block:0 8px;overflow-wrap:anywhere}
h2{font-size:17px;margin-block:0 8px}h3{font-size:15px;margin-block:16px 4px}
section{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:16px;
margin-block:16px;min-width:0}
p{margin-block:0 8px}.muted,figcaption small,.axis{color:var(--muted)}
.lead{font-size:17px}code{font-size:13px;overflow-wrap:anywhere}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{text-align:start;padding-block:6px;padding-inline:0 16px;border-block-end:1px solid var(--line);
vertical-align:top;overflow-wrap:break-word}th{font-weight:600;color:var(--muted)}
td.n,th.n{font-variant-numeric:tabular-nums;white-space:nowrap}td.f{min-width:9rem;width:30%}
td.t{min-width:14rem}.v{white-space:nowrap;border-radius:4px;padding-inline:6px;font-weight:600}
.good{color:var(--pass);background:var(--passbg)}.bad{color:var(--fail);background:var(--failbg)}
.doubt{color:var(--warn);background:var(--warnbg)}
.missing{border-inline-start:4px solid var(--warn);padding-inline-start:12px}
.pics{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,21rem),1fr));gap:24px}
figure{margin:0;min-width:0;break-inside:avoid}figcaption{font-weight:600}
svg{display:block;direction:ltr}svg text{font-size:11px;fill:var(--muted)}
.grid{stroke:var(--line)}.a,.b,.thin,.ref,.limit{fill:none;stroke-width:2;vector-effect:non-scaling-stroke}
.a{stroke:var(--accent)}.b{stroke:var(--other);stroke-dasharray:6 3}.ref{stroke:var(--muted);
stroke-width:1;stroke-dasharray:2 3}.thin{stroke:var(--accent);stroke-width:1;opacity:.25}
.band,.areaa{fill:var(--accent);opacity:.18}.areab{fill:var(--other);opacity:.22}
.dota{fill:var(--accent)}.dotb{fill:var(--other)}.limit{stroke:var(--fail);stroke-dasharray:3 2}
.rug{stroke:var(--muted)}.key{display:inline-block;width:26px;height:10px;margin-inline-end:4px}
.legend span{margin-inline-end:16px;white-space:nowrap}details summary{color:var(--muted);cursor:pointer}
a{color:var(--accent)}pre{overflow-x:auto;font-size:13px;background:var(--bg);padding:12px;border-radius:6px}
td>ul{margin:0;padding-inline-start:16px}.wide+p,.wide+details{margin-block-start:10px}
.time{list-style:none;margin:0;padding:0}.time p{margin-block:0 4px}
.time>li{position:relative;border-inline-start:2px solid var(--line);margin-inline-start:7px;
padding-inline-start:20px;padding-block-end:16px;break-inside:avoid}.time>li:last-child{border-color:transparent}
.time>li::before{content:"";position:absolute;inset-inline-start:-8px;inset-block-start:4px;width:14px;
height:14px;border-radius:7px;background:var(--accent);border:2px solid var(--card)}
.time>li.back::before{background:var(--fail);border-radius:2px}.time svg{max-width:32rem;margin-block:4px}
.big{border-block-start:1px solid var(--line);padding-block:12px}
.big>summary{color:var(--ink);font-weight:600}.big>summary .v{font-size:13px}
summary:focus-visible,a:focus-visible{outline:3px solid var(--accent)}
@media (max-width:30rem){section{padding:12px}th,td{padding-inline-end:10px}}
@media print{body{background:#fff;max-width:none;padding:0}section{border:0;padding:0}
details:not([open])>*{display:none}h2,h3{break-after:avoid}tr{break-inside:avoid}}
"""


class Html(str):
    """Markup that is made from escaped parts."""

    __slots__ = ()


def h(text: object) -> Html:
    """The text, escaped unless it is markup already."""
    return text if isinstance(text, Html) else Html(escape(str(text)))


def join(parts: Iterable[object], between: str = "") -> Html:
    return Html(between.join(h(part) for part in parts))


def bdi(text: object) -> Html:
    """Ids, numbers with their unit: their order does not turn in a page from right to left."""
    return Html(f"<bdi>{h(text)}</bdi>")


def digest(text: str) -> Html:
    return Html(f"<bdi><code>{escape(text)}</code></bdi>")


def verdict(word: str, shown: str = "") -> Html:
    """Mark, word and colour. shown: the word in the page's language."""
    kind = "good" if word in GOOD else "bad" if word in BAD else "doubt"
    return Html(f'<span class="v {kind}">{MARKS.get(word, "·")} {escape(shown or word)}</span>')


def table(head: Sequence[object], rows: Iterable[Sequence[object]], kinds: str = "") -> Html:
    """kinds: one sign a column: `n` number, `f` picture, `t` text that wants room, `-` any."""
    cells = dict(enumerate(kinds))

    def cell(tag: str, place: int, value: object) -> str:
        kind = cells.get(place, "-")
        marked = f' class="{kind}"' if kind != "-" else ""
        scope = ' scope="col"' if tag == "th" else ""
        shown = bdi(value) if kind == "n" and tag == "td" else h(value)
        return f"<{tag}{scope}{marked}>{shown}</{tag}>"

    body = "".join(
        "<tr>" + "".join(cell("td", i, value) for i, value in enumerate(row)) + "</tr>"
        for row in rows
    )
    if not body:
        return Html("")
    top = "".join(cell("th", i, name) for i, name in enumerate(head))
    thead = f"<thead><tr>{top}</tr></thead>" if any(head) else ""
    return Html(f'<div class="wide"><table>{thead}<tbody>{body}</tbody></table></div>')


def sheet(
    title: str, parts: Iterable[object], *, language: str = "en", from_right: bool = False
) -> str:
    """The whole page. parts: markup, or text that is escaped."""
    turned = ' dir="rtl"' if from_right else ""
    page = (
        f'<!doctype html>\n<html lang="{escape(language)}"{turned}><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f"{join(parts)}</main></body></html>\n"
    )
    return UNSPEAKABLE.sub("\N{REPLACEMENT CHARACTER}", page)

"""Reports and profiles as one page each: no script, nothing from outside, every text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final

from falaj.base.drawing import plot_svg
from falaj.base.sheets import MARKS
from falaj.facts.checks import CheckResult, shown_word
from falaj.facts.data import ContractReport
from falaj.facts.profiles import ColumnProfile, Profile

__all__ = ["profile_page", "report_page"]

STYLE: Final = (
    "body{font:14px/1.5 sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #ddd;padding:.3em .6em;"
    "text-align:start;vertical-align:top}th{color:#555}.pass{color:#176b2c}.fail{color:#a40e26}"
    ".error,.inconclusive,.warning{color:#8a5a00}.skipped,.note,small{color:#666}code{font-size:.95em}"
    "section{border-top:1px solid #ddd;padding:1em 0}.two{display:flex;flex-wrap:wrap;gap:1em}"
)


def report_page(reports: Sequence[ContractReport]) -> str:
    """Every check of every report, with the rows that break it as they may be shown."""
    parts = []
    for report in reports:
        parts.append(
            f"<section><h2>{escape(report.dataset)}</h2><p>{report.rows:,} rows{_looked(report)}, "
            f"version <code>{escape(report.version)}</code><br>contract {escape(report.contract_id)} "
            f"{escape(report.contract_version)} <code>{escape(report.contract)}</code><br>"
            f"{escape(report.engine)}, {report.seconds:.2f} s</p>"
        )
        parts.append(_table(("check", "verdict", "promise", "why"), map(_check, report.results)))
        parts += [f"<p><small>{escape(note)}</small></p>" for note in report.notes]
        parts.append("</section>")
    return _page("Data checks", "".join(parts))


def _looked(report: ContractReport) -> str:
    """What was not read, and what was not looked at."""
    words = f" ({report.set_aside:,} more are set aside)" if report.set_aside else ""
    if report.sample_pct is not None:
        words += (
            f"; <strong>checks about single rows on a sample of {report.sample_pct:g} %</strong>"
        )
    return words


def _check(result: CheckResult) -> tuple[str, ...]:
    why = escape(result.reason)
    sample = result.details.get("sample") or ()
    if sample:
        rows = "<br>".join(
            f"row {row['row']}: {escape(str(row['value']))}"
            + (f" ({escape(str(row['key']))})" if "key" in row else "")
            for row in sample
        )
        why += f"<details><summary>{len(sample)} rows</summary><code>{rows}</code></details>"
    word = shown_word(result.gate, result.verdict, result.details.get("severity", ""))
    shown = "" if result.gate == "data" else " <small>(told, not counted)</small>"
    if sampled := result.details.get("sampled"):
        shown += f" <small>(sample of {sampled['rows']:,} rows)</small>"
    return (
        escape(result.check),
        f'<span class="{word}">{MARKS[word]} {word}</span>{shown}',
        escape(result.requirement),
        why,
    )


def profile_page(profile: Profile) -> str:
    """Each column with its numbers and its picture."""
    parts = [
        (
            f"<p>{profile.rows:,} rows, {len(profile.columns)} columns, version "
            f"<code>{escape(profile.version)}</code></p>"
        )
    ]
    parts += [_column(column) for column in profile.columns]
    if profile.correlations:
        rows = [
            (escape(one.first), escape(one.second), f"{one.spearman:.3f}", f"{one.pearson:.3f}")
            for one in profile.correlations[:30]
        ]
        parts.append(
            f"<section><h2>Correlations</h2><p>on {profile.sampled:,} rows</p>"
            + _table(("", "", "Spearman", "Pearson"), rows)
            + "</section>"
        )
    if profile.rates:
        parts.append(f"<section><h2>Rates by {escape(profile.by)}</h2>{_rates(profile)}</section>")
    return _page(f"Profile of {profile.dataset}", "".join(parts))


def _column(column: ColumnProfile) -> str:
    facts = [("type", column.type), ("class", str(column.classification))]
    facts += [
        (word, "fewer than 10" if value is None else f"{value:,}")
        for word, value in (("nulls", column.nulls), ("distinct", column.distinct))
        if value is not None or not column.is_open
    ]
    if not column.is_open:
        facts.append(("values", "protected: not shown"))
    if column.nans:
        facts.append(("NaN", f"{column.nans:,}"))
    for word, value in (("least", column.minimum), ("largest", column.maximum)):
        if value is not None:
            facts.append((word, number(value)))
    facts += [
        (word, number(value))
        for word, value in (("mean", column.mean), ("standard deviation", column.deviation))
        if value is not None
    ]
    if column.quantiles:
        told = ", ".join(f"{share}: {number(value)}" for share, value in column.quantiles.items())
        facts.append(("quantiles", told))
    if column.lengths:
        low, mean, high = column.lengths
        facts.append(("characters", f"{low:g} to {high:g}, {mean:.3g} on average"))
    rows = [(escape(word), escape(value)) for word, value in facts]
    pictures = "".join(_pictures(column))
    return (
        f'<section><h2>{escape(column.name)}</h2><div class="two"><div>'
        f"{_table(('', ''), rows)}</div>{pictures}</div></section>"
    )


def _pictures(column: ColumnProfile) -> Iterable[str]:
    if column.histogram and any(column.histogram.counts):
        low, high = column.histogram.low, column.histogram.high
        size = (high - low) / len(column.histogram.counts)
        middles = [number(low + (at + 0.5) * size) for at in range(len(column.histogram.counts))]
        yield _bars(column.name, "value", middles, "rows", column.histogram.counts)
    if column.top and not column.histogram:
        words = [str(one.value) for one in column.top]
        yield _bars(column.name, "value", words, "rows", [one.count for one in column.top])


def _rates(profile: Profile) -> str:
    parts = []
    for name in dict.fromkeys(one.column for one in profile.rates):
        here = [one for one in profile.rates if one.column == name]
        rows = [
            (
                escape(one.group),
                "fewer than 10" if one.n is None else f"{one.n:,}",
                "" if one.rate is None else f"{one.rate:.4f}",
                "" if one.low is None or one.high is None else f"{one.low:.4f} to {one.high:.4f}",
            )
            for one in here
        ]
        known = [(one.group, one.rate) for one in here if one.rate is not None][:40]
        if known:
            groups, rates = zip(*known, strict=True)
            parts.append(_bars(name, profile.by, groups, "rate", rates))
        parts.append(_table((profile.by, "rows", name, "95 % bounds"), rows))
    return "".join(parts)


def _bars(name: str, x: str, across: Sequence[str], y: str, up: Sequence[float]) -> str:
    """One bar a place; equal words would be one place."""
    if x == y:
        x = f"{x} (group)"
    columns = {x: list(across), y: list(up)}
    return plot_svg({"name": name, "mark": "bars", "x": x, "y": y, "columns": columns})


def number(value: Any) -> str:
    return f"{value:,.6g}" if isinstance(value, int | float) else str(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML already; the head is text."""
    top = "".join(f"<th>{escape(word)}</th>" for word in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1>{body}</body></html>\n"
    )

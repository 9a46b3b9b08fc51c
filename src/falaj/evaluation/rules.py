"""Which rules decided, and a report in the words of other tools. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

from falaj.base.errors import FalajError, NotAllowed, NotFound
from falaj.facts.checks import CheckResult, GateReport, Verdict
from falaj.facts.project import GatesTable
from falaj.facts.wire import digest

__all__ = ["Row", "explain", "html", "junit", "markdown", "may_waive", "policy_digest"]

# What XML 1.0 cannot hold, and UTF-8 neither: control signs and lone surrogates in data or errors.
UNSPEAKABLE = re.compile("[^\\t\\n\\r\\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

LONGEST_WAIVER = timedelta(days=365)


def policy_digest(gates: GatesTable, required: Sequence[str]) -> str:
    """Identity of the rules: recorded in every decision that they made."""
    return digest({"gates": gates, "requires": tuple(required)})


def may_waive(
    report: GateReport, check: str, reason: str, life: timedelta, *, is_author: bool
) -> None:
    """Raise unless this waiver may be: only doubt is waived, never harm, and never one's own."""
    found = [result for result in report.results if result.check == check]
    if not found:
        near = ", ".join(r.check for r in report.results if r.verdict is Verdict.INCONCLUSIVE)
        raise NotFound(
            "gate.no-such-check",
            f"the report has no check {check!r}",
            why=f"inconclusive are: {near or 'none'}",
        )
    if any(result.verdict is not Verdict.INCONCLUSIVE for result in found):
        raise NotAllowed(
            "gate.not-waivable",
            f"{check} is {found[0].verdict}",
            why="a waiver lets through what data could not decide; nothing lets through a failure",
            fix="bring a better model, or change the policy by a change of its own",
        )
    if is_author:
        raise NotAllowed(
            "gate.own-waiver",
            f"you made this model, so {check} is for somebody else to waive",
            why="the person who made a model never waives its checks",
            fix="ask another person with the role risk",
        )
    if not reason.strip() or not timedelta(0) < life <= LONGEST_WAIVER:
        raise FalajError(
            "gate.bad-waiver",
            f"a waiver has a reason and lives up to {LONGEST_WAIVER.days} days",
            fix='falaj waive CHECK -m "why" --for 30d',
        )


class Row(NamedTuple):
    """One check for a table: every text on one line and printable."""

    check: str
    verdict: str
    value: str
    interval: str
    requirement: str
    reason: str


def explain(report: GateReport) -> list[Row]:
    """The report for people, one row a check, in the order in which they were made."""
    return [
        Row(
            line(r.check),
            str(r.verdict),
            "" if r.value is None else f"{r.value:.4g} {r.unit}".strip(),
            interval(r),
            line(r.requirement),
            line(r.reason),
        )
        for r in report.results
    ]


def line(text: str) -> str:
    return " ".join(speakable(text).split())


def speakable(text: str) -> str:
    return UNSPEAKABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def junit(report: GateReport) -> str:
    """JUnit XML for CI: only a pass is a pass; inconclusive is a failure that says so."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        (
            f'<testsuite name="falaj gate" tests="{len(report.results)}" '
            f'failures="{sum(bad(r) for r in report.results)}" '
            f'errors="{sum(r.verdict is Verdict.ERROR for r in report.results)}" '
            f'skipped="{sum(r.verdict is Verdict.SKIPPED for r in report.results)}">'
        ),
    ]
    for result in report.results:
        lines.append(
            f"  <testcase classname={quoteattr(result.gate)} "
            f"name={quoteattr(speakable(result.check))}>"
        )
        tag = {Verdict.ERROR: "error", Verdict.SKIPPED: "skipped"}.get(result.verdict, "failure")
        if result.verdict is not Verdict.PASS:
            said = quoteattr(speakable(f"{result.verdict}: {result.reason}"))
            lines.append(
                f"    <{tag} message={said}>{escape(speakable(result.requirement))}</{tag}>"
            )
        lines.append("  </testcase>")
    return "\n".join([*lines, "</testsuite>", ""])


def bad(result: CheckResult) -> bool:
    return result.verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE)


def markdown(report: GateReport) -> str:
    rows = ["| check | verdict | measured | required | why |", "|---|---|---|---|---|"]
    for r in explain(report):
        cells = (r.check, r.verdict, f"{r.value} {r.interval}".strip(), r.requirement, r.reason)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*rows, ""])


STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}th,td{text-align:start;padding:.35rem .6rem;"
    "border-block-end:1px solid #d6d9de;vertical-align:top}.pass{color:#0f6b3a}.fail{color:#a3151f}"
    ".inconclusive,.error,.skipped{color:#7a4b00}"
)
MARKS = {"pass": "✓", "fail": "✕", "inconclusive": "~", "error": "!", "skipped": "○"}


def html(report: GateReport) -> str:
    """One page without script or outside parts; every text is escaped."""
    rows = "".join(
        f'<tr><td>{escape(r.check)}</td><td class="{r.verdict}">{MARKS[r.verdict]} {r.verdict}</td>'
        f"<td>{escape(f'{r.value} {r.interval}'.strip())}</td><td>{escape(r.requirement)}</td><td>{escape(r.reason)}</td></tr>"
        for r in explain(report)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>'
        f"Gate: {report.verdict}</title><style>{STYLE}</style></head><body>"
        f'<h1 class="{report.verdict}">{MARKS[report.verdict]} {report.verdict}</h1>'
        f"<p>Model {escape(report.subject)}<br>Policy {escape(report.policy)}<br>"
        f"Required: {escape(', '.join(report.required))}</p>"
        "<table><thead><tr><th>Check</th><th>Verdict</th><th>Measured</th><th>Required</th>"
        f"<th>Why</th></tr></thead><tbody>{rows}</tbody></table></body></html>\n"
    )


def interval(r: CheckResult) -> str:
    """One-sided 95 % bounds, as far as they are known."""
    if r.low is None and r.high is None:
        return ""
    low = "" if r.low is None else f"{r.low:.4g}"
    high = "" if r.high is None else f"{r.high:.4g}"
    return f"[{low}, {high}]"

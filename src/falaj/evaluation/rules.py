"""Which rules decided, and a report in the words of other tools. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from falaj.facts.checks import CheckResult, GateReport, Verdict
from falaj.facts.project import GatesTable
from falaj.facts.wire import digest

__all__ = ["junit", "markdown", "policy_digest"]


def policy_digest(gates: GatesTable, required: Sequence[str]) -> str:
    """Identity of the rules: recorded in every decision that they made."""
    return digest({"gates": gates, "requires": tuple(required)})


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
            f"  <testcase classname={quoteattr(result.gate)} name={quoteattr(result.check)}>"
        )
        tag = {Verdict.ERROR: "error", Verdict.SKIPPED: "skipped"}.get(result.verdict, "failure")
        if result.verdict is not Verdict.PASS:
            said = quoteattr(f"{result.verdict}: {result.reason}")
            lines.append(f"    <{tag} message={said}>{escape(result.requirement)}</{tag}>")
        lines.append("  </testcase>")
    return "\n".join([*lines, "</testsuite>", ""])


def bad(result: CheckResult) -> bool:
    return result.verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE)


def markdown(report: GateReport) -> str:
    rows = ["| check | verdict | measured | required | why |", "|---|---|---|---|---|"]
    for r in report.results:
        value = "" if r.value is None else f"{r.value:.4g} {r.unit}".strip()
        cells = (r.check, str(r.verdict), value, r.requirement, r.reason)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*rows, ""])

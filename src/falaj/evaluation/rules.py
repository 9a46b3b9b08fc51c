"""Which rules decided, and a report in the words of other tools. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

from falaj.base.errors import FalajError, NotAllowed, NotFound
from falaj.base.sheets import MARKS
from falaj.facts.checks import CheckResult, GateReport, Verdict, shown_word
from falaj.facts.project import GatesTable
from falaj.facts.testing import TestOutcome, TestReport
from falaj.facts.wire import digest

__all__ = [
    "Row",
    "explain",
    "gate_of_tests",
    "html",
    "junit",
    "junit_of_tests",
    "markdown",
    "may_waive",
    "policy_digest",
    "verdict_of_tests",
]

# What XML 1.0 cannot hold, and UTF-8 neither: control signs and lone surrogates in data or errors.
UNSPEAKABLE = re.compile("[^\\t\\n\\r\\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

LONGEST_WAIVER = timedelta(days=365)
MOST_TESTS = 20  # that failed, each told as a check of its own
JUNIT = {"failed": "failure", "error": "error", "skipped": "skipped", "xfailed": "skipped"}


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
            word(r),
            "" if r.value is None else f"{r.value:.4g} {r.unit}".strip(),
            interval(r),
            line(r.requirement),
            line(r.reason),
        )
        for r in report.results
    ]


def word(r: CheckResult) -> str:
    return shown_word(r.gate, r.verdict, r.details.get("severity", ""))


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
            f'errors="{sum(word(r) == Verdict.ERROR for r in report.results)}" '
            f'skipped="{sum(r.verdict is Verdict.SKIPPED for r in report.results)}">'
        ),
    ]
    for result in report.results:
        lines.append(
            f"  <testcase classname={quoteattr(result.gate)} "
            f"name={quoteattr(speakable(result.check))}>"
        )
        tag = {Verdict.ERROR: "error", Verdict.SKIPPED: "skipped"}.get(result.verdict, "failure")
        if word(result) in ("warning", "note"):  # told, not counted: no red test in CI
            said = escape(speakable(f"{word(result)}: {result.reason}"))
            lines.append(f"    <system-out>{said}</system-out>")
        elif result.verdict is not Verdict.PASS:
            said = quoteattr(speakable(f"{result.verdict}: {result.reason}"))
            lines.append(
                f"    <{tag} message={said}>{escape(speakable(result.requirement))}</{tag}>"
            )
        lines.append("  </testcase>")
    return "\n".join([*lines, "</testsuite>", ""])


def bad(result: CheckResult) -> bool:
    return word(result) in (Verdict.FAIL, Verdict.INCONCLUSIVE)


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
    ".inconclusive,.error,.skipped,.warning,.note{color:#7a4b00}"
)


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


# --- the project's own tests ---


def verdict_of_tests(tests: Sequence[TestOutcome], error: str = "") -> Verdict:
    """What a run of tests says.

    1. It could not begin, or a test broke outside itself: error; a failed test goes before.
    2. No test passed: inconclusive, whatever was skipped or expected to fail: silence is no health.
    3. Otherwise: pass.
    """
    outcomes = {test.outcome for test in tests}
    if "failed" in outcomes:
        return Verdict.FAIL
    if error or "error" in outcomes:
        return Verdict.ERROR
    return Verdict.PASS if outcomes & {"passed", "xpassed"} else Verdict.INCONCLUSIVE


def gate_of_tests(
    reports: Sequence[TestReport], *, tree: str, model: str, run: str = ""
) -> list[CheckResult]:
    """The gate `tests` of a model, by the newest report on all tests of its very code.

    reports: newest first. tree: digest of the code that made the model. model: digest of its files.

    1. The run does not say its code, or no report on all tests is about it: inconclusive.
    2. The tests asked another model than this one: inconclusive.
    3. Otherwise the report's verdict, with each test that failed, at most 20.
    """
    whole = [one for one in reports if one.tree == tree and not one.selection] if tree else []
    if not whole:
        why = "no test report for this code: run falaj test"
        if not tree:
            why = "the run does not say which code it was: run the pipeline again, then falaj test"
        return [_of_tests(Verdict.INCONCLUSIVE, why)]
    newest = whole[0]
    told = {
        "report": newest.id,
        "digest": digest(newest),
        "tree": newest.tree,
        "commit": newest.code.commit,
        "lock": newest.environment.lock,
        "junit": newest.junit,
    }
    if newest.models and model not in newest.models:
        option = f" --run {run}" if run else ""
        why = f"the newest tests of this code asked another model: run falaj test{option}"
        return [_of_tests(Verdict.INCONCLUSIVE, why, told)]
    counts = newest.counts()
    words = ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
    why = f"{words or 'no tests were found'} in {newest.seconds:.1f} s"
    if newest.error:
        why = f"the tests could not begin: {newest.error.splitlines()[-1][:200]}"
    bad = [test for test in newest.tests if test.outcome in ("failed", "error")]
    summary = _of_tests(
        newest.verdict,
        why,
        told,
        value=float(len(bad)),
        n=len(newest.tests) - counts.get("skipped", 0),
    )
    return [
        summary,
        *(
            CheckResult(
                check=f"tests.{test.name}",
                gate="tests",
                verdict=Verdict.FAIL if test.outcome == "failed" else Verdict.ERROR,
                reason=line(test.message) or test.outcome,
            )
            for test in bad[:MOST_TESTS]
        ),
    ]


def _of_tests(
    verdict: Verdict,
    reason: str,
    details: dict[str, str] | None = None,
    *,
    value: float | None = None,
    n: int = 0,
) -> CheckResult:
    return CheckResult(
        check="tests.suite",
        gate="tests",
        verdict=verdict,
        reason=reason,
        metric="failed tests",
        value=value,
        limit=0.0,
        requirement="no test fails",
        unit="failed",
        n=n,
        details=dict(details or {}),
    )


def junit_of_tests(tests: Sequence[TestOutcome], seconds: float) -> str:
    """JUnit XML of a run of tests, with the same cut messages as the report."""
    count = {name: sum(test.outcome == name for test in tests) for name in JUNIT}
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        (
            f'<testsuite name="falaj test" tests="{len(tests)}" failures="{count["failed"]}" '
            f'errors="{count["error"]}" skipped="{count["skipped"] + count["xfailed"]}" '
            f'time="{seconds:.3f}">'
        ),
    ]
    for test in tests:
        file, _, name = test.name.partition("::")
        lines.append(
            f"  <testcase classname={quoteattr(speakable(file))} "
            f'name={quoteattr(speakable(name or file))} time="{test.seconds:.3f}">'
        )
        if test.outcome in JUNIT:
            said = quoteattr(line(test.message))
            lines.append(f"    <{JUNIT[test.outcome]} message={said}/>")
        lines.append("  </testcase>")
    return "\n".join([*lines, "</testsuite>", ""])

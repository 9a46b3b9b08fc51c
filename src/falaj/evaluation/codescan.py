"""The gate `code`: what scanners say about the project's own code. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from falaj.evaluation.vulnerabilities import ignored
from falaj.facts.checks import CheckResult, Verdict
from falaj.facts.project import CodeTable
from falaj.facts.scans import CodeFinding
from falaj.ports.scanners import Scanned

__all__ = ["again", "broken", "check_code"]

GATE: Final = "code"
FINDING: Final = "finding"
ORDER: Final = ("critical", "high", "medium", "low", "unrated")
MOST: Final = 200  # findings that are told one by one; the scan holds all


def check_code(
    tools: Mapping[str, Scanned], table: CodeTable, *, tree: str, now: datetime
) -> list[CheckResult]:
    """One summary a tool, and each finding that counts.

    1. A file that a tool could not read is an error: nobody looked at it.
    2. A finding at or above `fail_from` fails; on the ignore list until its end it is inconclusive,
       so that a person with the role risk waives it.
    3. What is below, and places where the code tells a tool to look away, are counted and told.
    """
    results: list[CheckResult] = []
    for tool, scanned in sorted(tools.items()):
        counted = [one for one in scanned.findings if _counts(one, table)]
        below = len(scanned.findings) - len(counted)
        told: dict[str, Any] = {"tool": tool, "version": scanned.version, "tree": tree}
        told |= {"fail_from": table.fail_from, "below": below}
        results += [
            _result(f"{tool}.unread.{number}", Verdict.ERROR, f"not looked at: {file}", told)
            for number, file in enumerate(scanned.unread[:MOST], 1)
        ]
        results += [_judged(one, table, now, told) for one in counted[:MOST]]
        words = [f"{len(counted)} findings that count", f"{below} below {table.fail_from}"]
        if scanned.silenced:
            words.append(f"{scanned.silenced} places tell it to look away")
        verdict = Verdict.FAIL if len(counted) > MOST else Verdict.PASS
        if not counted or verdict is Verdict.FAIL:
            results.append(_result(tool, verdict, ", ".join(words), told))
    return results


def _counts(one: CodeFinding, table: CodeTable) -> bool:
    return ORDER.index(one.severity) <= ORDER.index(table.fail_from)


def _judged(one: CodeFinding, table: CodeTable, now: datetime, told: dict[str, Any]) -> CheckResult:
    where = f"{one.file}:{one.line}"
    why = f"{where}: {one.message} ({one.severity})"
    lasting = ignored((one.rule, f"{one.rule}:{one.file}"), table.ignore, now)
    if lasting is not None:
        why += f". Ignored until {lasting.until}: {lasting.reason}"
    verdict = Verdict.FAIL if lasting is None else Verdict.INCONCLUSIVE
    details = {**told, FINDING: msgspec.to_builtins(one)}
    return _result(f"{one.rule}:{where}", verdict, why, details)


def again(result: CheckResult, table: CodeTable | None, at: datetime) -> list[CheckResult]:
    """A stored result under other rules. What lies below the old limit was counted, not kept."""
    if table is None:
        return []
    details = result.details
    told = {key: value for key, value in details.items() if key != FINDING}
    found: list[CheckResult] = [result]
    if FINDING in details:
        one = msgspec.convert(details[FINDING], CodeFinding)
        found = [_judged(one, table, at, told)] if _counts(one, table) else []
    was = details.get("fail_from", table.fail_from)
    if ORDER.index(table.fail_from) > ORDER.index(was) and details.get("below"):
        tool = str(details["tool"])
        why = f"{details['below']} findings below {was} were not kept: run `falaj gate`"
        found.append(_result(f"{tool}.below", Verdict.INCONCLUSIVE, why, told))
    if not found:
        found = [_result(str(details["tool"]), Verdict.PASS, "no finding that counts", told)]
    return found


def broken(tool: str, why: str) -> CheckResult:
    """The tool is absent or gave no answer."""
    return _result(tool, Verdict.ERROR, why, {"tool": tool})


def _result(name: str, verdict: Verdict, reason: str, told: dict[str, Any]) -> CheckResult:
    return CheckResult(
        check=f"code.{name}",
        gate=GATE,
        verdict=verdict,
        reason=reason,
        requirement="no finding that counts",
        details=told,
    )

"""Results of Pointblank as check results. Nothing of Pointblank is imported; no row is taken over.

Made for `Validate.get_json_report()` of pointblank 1.1: a list of steps.
"""

from __future__ import annotations

import json
from typing import Any

from falaj.base.errors import FalajError
from falaj.facts.checks import CheckResult, Verdict

__all__ = ["results"]


def results(report: str | bytes, *, version: str) -> tuple[CheckResult, ...]:
    """One result a step. Raises FalajError when it is not such a report, or was never run.

    Counts are those of the steps; extracts hold at most 500 rows and are not looked at.
    """
    try:
        steps = json.loads(report)
        if not isinstance(steps, list) or not steps:
            raise ValueError
        return tuple(_made(step, f"pointblank {version}") for step in steps)
    except (ValueError, KeyError, TypeError):
        raise FalajError(
            "data.evidence-unreadable",
            "got no list of steps that were run, expected Pointblank's JSON report",
            fix="call .interrogate() first, then hand in .get_json_report()",
        ) from None


def _made(step: dict[str, Any], engine: str) -> CheckResult:
    column = step["column"]
    names = "+".join(map(str, column)) if isinstance(column, list) else str(column or "table")
    n, failed = step["n"], step["n_failed"]
    told = {"i": str(step["i"]), "kind": str(step["assertion_type"])}
    if step.get("active") is False:
        verdict, why = Verdict.SKIPPED, "the step was not active"
    elif step.get("eval_error"):
        verdict, why = Verdict.ERROR, "the step could not be made"
    elif not isinstance(n, int) or not isinstance(failed, int):
        raise ValueError("not interrogated")
    elif not n:
        verdict, why = Verdict.INCONCLUSIVE, "no rows: nothing was measured"
    elif failed or step["all_passed"] is not True:
        verdict, why = Verdict.FAIL, f"{failed} of {n} test units break it"
    else:
        verdict, why = Verdict.PASS, f"all {n} test units keep it"
    measured = verdict in {Verdict.PASS, Verdict.FAIL}
    return CheckResult(
        check=f"data.pointblank.{told['i']}.{names}.{told['kind']}",
        gate="data",
        verdict=verdict,
        reason=why,
        metric="violations",
        value=float(failed) if measured else None,
        limit=0.0,
        requirement=told["kind"],
        unit="rows",
        n=n if measured else 0,
        details={"engine": engine},
    )

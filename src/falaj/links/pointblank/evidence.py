"""Results of Pointblank as check results. Nothing of Pointblank is imported; no row is taken over.

Made for `Validate.get_json_report()` of pointblank 1.1: a list of steps.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from falaj.base.errors import FalajError
from falaj.facts.checks import CheckResult, Verdict

__all__ = ["PointblankEvidence", "results"]


def results(report: str | bytes, *, version: str) -> tuple[CheckResult, ...]:
    """One result a step. Raises FalajError when it is not such a report, or was never run.

    Counts are those of the steps; extracts hold at most 500 rows and are not looked at.
    """
    try:
        steps = json.loads(report)
        if not isinstance(steps, list) or not steps:
            raise ValueError
        return tuple(_made(step, f"pointblank {version}".strip()) for step in steps)
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


class PointblankEvidence:
    """The port EvidenceReader: a `Validate` that was interrogated."""

    tool = "pointblank"

    def takes(self, result: object) -> bool:
        return type(result).__module__.partition(".")[0] == "pointblank"

    def read(self, result: object, rows: object | None) -> tuple[CheckResult, ...]:  # noqa: ARG002 it holds its own
        found: Any = result
        if not hasattr(found, "get_json_report"):
            raise FalajError(
                "data.evidence-unreadable",
                f"got {type(found).__name__} of Pointblank, expected a Validate",
                fix="hand in the Validate itself, after .interrogate()",
            )
        version = str(getattr(sys.modules.get("pointblank"), "__version__", ""))
        return results(found.get_json_report(), version=version)

    def takes_document(self, document: object) -> bool:
        return (
            isinstance(document, list)
            and bool(document)
            and all(isinstance(one, dict) and "assertion_type" in one for one in document)
        )

    def read_document(self, document: object, rows: int) -> tuple[CheckResult, ...]:  # noqa: ARG002 its steps count
        return results(json.dumps(document), version="")

"""Results of Great Expectations as check results. Nothing of it is imported; no value is taken over.

Made for `ExpectationSuiteValidationResult.to_json_dict()` of great-expectations 1.24.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from falaj.base.errors import FalajError
from falaj.facts.checks import CheckResult, Verdict

__all__ = ["GreatExpectationsEvidence", "results"]


def results(document: Mapping[str, Any]) -> tuple[CheckResult, ...]:
    """One result an expectation, in their order. Raises FalajError for another document.

    Lists of unexpected values are partial, so only counts are read. `mostly` stands in the
    requirement: an expectation may succeed with some rows outside.
    """
    try:
        version = str(document["meta"]["great_expectations_version"])
        found = document["results"]
        if not found:
            raise ValueError
        return tuple(
            _made(one, number, f"great_expectations {version}") for number, one in enumerate(found)
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise FalajError(
            "data.evidence-unreadable",
            "got no results of expectations, expected a validation result of Great Expectations",
            fix="hand in result.to_json_dict() of a suite that was validated",
        ) from None


def _made(one: Mapping[str, Any], number: int, engine: str) -> CheckResult:
    said = one["expectation_config"]
    kind, words = str(said["type"]), said["kwargs"]
    column = words.get("column") or "+".join(words.get("column_list") or ()) or "table"
    measured = one["result"]
    count, rows = measured.get("unexpected_count"), measured.get("element_count")
    mostly = words.get("mostly", 1.0)
    if _raised(one.get("exception_info") or {}):
        # Its own `success: false` would look like bad data.
        verdict, why = Verdict.ERROR, "the expectation could not be computed"
    elif rows == 0:
        verdict, why = Verdict.INCONCLUSIVE, "no rows: nothing was measured"
    elif one["success"] is True:
        verdict, why = Verdict.PASS, f"{count or 0} of {rows} rows are outside"
    elif one["success"] is False:
        verdict, why = Verdict.FAIL, f"{count} of {rows} rows break it"
    else:
        raise ValueError("no verdict")
    if count is None and verdict in {Verdict.PASS, Verdict.FAIL}:
        why = "as expected" if verdict is Verdict.PASS else "not as expected"
    is_counted = said.get("severity", "critical") == "critical"
    return CheckResult(
        check=f"data.great-expectations.{number + 1}.{column}.{kind.removeprefix('expect_')}",
        gate="data" if is_counted else "data-shown",
        verdict=verdict,
        reason=why,
        metric="violations" if count is not None else "",
        value=None if count is None else float(count),
        limit=None if count is None or rows is None else (1 - float(mostly)) * rows,
        requirement=kind + (f", mostly {mostly:g}" if mostly != 1 else ""),
        unit="rows" if count is not None else "",
        n=rows or 0,
        details={"engine": engine},
    )


def _raised(info: Mapping[str, Any]) -> bool:
    """Flat, or one entry a metric."""
    if info.get("raised_exception"):
        return True
    return any(isinstance(one, Mapping) and one.get("raised_exception") for one in info.values())


class GreatExpectationsEvidence:
    """The port EvidenceReader: the result of a suite, or of a checkpoint with several."""

    tool = "great expectations"

    def takes(self, result: object) -> bool:
        return type(result).__module__.partition(".")[0] == "great_expectations"

    def read(self, result: object, rows: object | None) -> tuple[CheckResult, ...]:  # noqa: ARG002 it counts itself
        found: Any = result
        whole = list(getattr(found, "run_results", {}).values()) or [found]
        made: list[CheckResult] = []
        for one in whole:
            if not hasattr(one, "to_json_dict"):
                raise FalajError(
                    "data.evidence-unreadable",
                    f"got {type(one).__name__} of Great Expectations, expected a validation result",
                    fix="hand in what .run() of a validation definition or a checkpoint gives",
                )
            made += results(one.to_json_dict())
        return tuple(made)

    def takes_document(self, document: object) -> bool:
        return (
            isinstance(document, dict)
            and "great_expectations_version" in (document.get("meta") or {})
            and "results" in document
        )

    def read_document(self, document: object, rows: int) -> tuple[CheckResult, ...]:  # noqa: ARG002 it counts itself
        whole: Any = document
        return results(whole)

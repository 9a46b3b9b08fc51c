"""Results of Pandera as check results. Nothing of Pandera is imported; values are never taken over.

Made for what pandera 0.35 gives: `error.failure_cases.to_dicts()` of a `SchemaErrors`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from falaj.base.errors import FalajError
from falaj.facts.checks import CheckResult, Verdict

__all__ = ["PanderaEvidence", "results"]

WHOLE: Final = "SCHEMA_AND_DATA"
LONGEST: Final = 80  # a check's name holds its whole list of allowed values


def results(
    failure_cases: Sequence[Mapping[str, Any]], *, depth: str, rows: int, version: str
) -> tuple[CheckResult, ...]:
    """One result for each check that failed; one pass when none did.

    Args:
        failure_cases: all rows of the table; none when the data was valid.
        depth: the validation depth that was in force, such as `SCHEMA_AND_DATA`.
        rows: of the data.
        version: of Pandera.

    Raises FalajError when only the schema was looked at: on a LazyFrame Pandera passes bad data
    without a word unless PANDERA_VALIDATION_DEPTH=SCHEMA_AND_DATA was set before its import.
    """
    if depth.removeprefix("ValidationDepth.") != WHOLE:
        raise FalajError(
            "data.evidence-unreadable",
            f"Pandera looked at {depth or 'an unknown depth'}, not at the data",
            why="with a LazyFrame it looks at the schema alone, and bad data passes",
            fix=f"set PANDERA_VALIDATION_DEPTH={WHOLE} before pandera is imported",
        )
    counted: Counter[tuple[str, str]] = Counter()
    for case in failure_cases:
        try:
            column = case["column"] if case["column"] is not None else ""
            if case["schema_context"] == "DataFrameSchema" and not column:
                column = "table"
            counted[str(column), str(case["check"])] += 1
        except (KeyError, TypeError):
            raise FalajError(
                "data.evidence-unreadable",
                "got rows without column and check, expected Pandera's failure cases",
                fix="hand in error.failure_cases.to_dicts() of a lazy validation",
            ) from None
    engine = f"pandera {version}".strip()
    if not counted:
        verdict, why = Verdict.PASS, f"Pandera found nothing in {rows} rows"
        if not rows:
            verdict, why = Verdict.INCONCLUSIVE, "the data has no rows: nothing was measured"
        return (_made("table.schema", verdict, why, 0, rows, "the whole schema", engine),)
    return tuple(
        _made(
            f"{column}.{check.partition('(')[0]}",
            Verdict.FAIL,
            f"{number} of {rows} rows break it",
            number,
            rows,
            check if len(check) <= LONGEST else check[: LONGEST - 3] + "...",
            engine,
        )
        for (column, check), number in counted.items()
    )


def _made(
    check: str, verdict: Verdict, why: str, count: int, rows: int, promise: str, engine: str
) -> CheckResult:
    return CheckResult(
        check=f"data.pandera.{check}",
        gate="data",
        verdict=verdict,
        reason=why,
        metric="violations",
        value=float(count),
        limit=0.0,
        requirement=promise,
        unit="rows",
        n=rows,
        details={"engine": engine},
    )


class PanderaEvidence:
    """The port EvidenceReader: a `SchemaErrors`, or a schema with the rows that it shall judge."""

    tool = "pandera"

    def takes(self, result: object) -> bool:
        return type(result).__module__.partition(".")[0] == "pandera"

    def read(self, result: object, rows: object | None) -> tuple[CheckResult, ...]:
        found: Any = result
        if hasattr(found, "failure_cases"):
            return _of_errors(found)
        if not hasattr(found, "validate") or rows is None:
            raise FalajError(
                "data.evidence-unreadable",
                f"got {type(found).__name__}, expected SchemaErrors, or a schema and its rows",
                why="Pandera has no result that says what passed: it gives the rows back",
                fix='falaj.evidence(schema, rows=frame, dataset="flights")',
            )
        try:
            found.validate(rows, lazy=True)
        except sys.modules["pandera.errors"].SchemaErrors as errors:
            return _of_errors(errors)
        return results([], depth=_depth(rows), rows=_length(rows), version=_version())

    def takes_document(self, document: object) -> bool:
        return (
            isinstance(document, list)
            and bool(document)
            and all(isinstance(one, dict) and "failure_case" in one for one in document)
        )

    def read_document(self, document: object, rows: int) -> tuple[CheckResult, ...]:
        """Rows of failure cases; that there were some needs no depth to be believed."""
        cases: Any = document
        return results(cases, depth=WHOLE, rows=rows, version="")


def _of_errors(errors: Any) -> tuple[CheckResult, ...]:
    table, rows = errors.failure_cases, errors.data
    cases = table.to_dicts() if hasattr(table, "to_dicts") else table.to_dict("records")
    return results(cases, depth=_depth(rows), rows=_length(rows), version=_version())


def _depth(rows: Any) -> str:
    """The depth that was in force: what was set, else the schema alone for a LazyFrame."""
    asked = sys.modules["pandera.config"].CONFIG.validation_depth
    if asked is not None:
        return str(asked.value)
    return "SCHEMA_ONLY" if type(rows).__name__ == "LazyFrame" else WHOLE


def _length(rows: Any) -> int:
    if type(rows).__name__ == "LazyFrame":
        return int(rows.select(sys.modules["polars"].len()).collect().item())
    return len(rows)


def _version() -> str:
    return str(getattr(sys.modules.get("pandera"), "__version__", ""))

"""Robustness: inputs that are lost cost little, and never break an answer."""

from __future__ import annotations

from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from falaj.evaluation.sets import EvaluationSet, Scorer
from falaj.evaluation.verdicts import result_of
from falaj.facts.checks import CheckResult, Verdict
from falaj.facts.project import RobustnessTable
from falaj.stats import paired

__all__ = ["check_missing", "check_robustness", "matching", "name_of"]

GATE = "robustness"


def matching(pattern: str, columns: tuple[str, ...]) -> list[int]:
    """Places of the columns that are lost together: `humid|wind_*|precip`."""
    parts = [part.strip() for part in pattern.split("|")]
    return [
        place
        for place, name in enumerate(columns)
        if any(fnmatchcase(name, part) for part in parts)
    ]


def check_robustness(
    rows: EvaluationSet, score: NDArray[np.float64], model: Scorer, table: RobustnessTable
) -> list[CheckResult]:
    """For each pattern: take the columns away (NaN), and bound the loss of AUC on the same rows."""
    return [check_missing(rows, score, model, pattern, table) for pattern in table.missing]


def name_of(pattern: str) -> str:
    return f"{GATE}.missing={pattern}"


def check_missing(
    rows: EvaluationSet,
    score: NDArray[np.float64],
    model: Scorer,
    pattern: str,
    table: RobustnessTable,
) -> CheckResult:
    check = name_of(pattern)
    places = matching(pattern, rows.columns)
    if not places:
        return CheckResult(
            check=check,
            gate=GATE,
            verdict=Verdict.ERROR,
            reason=f"no input matches {pattern!r}; inputs: {', '.join(rows.columns)}",
        )
    lost = rows.x.copy()
    lost[:, places] = np.nan
    without = model(lost)
    broken = int((~np.isfinite(without)).sum())
    if broken:
        return CheckResult(
            check=check,
            gate=GATE,
            verdict=Verdict.FAIL,
            reason=f"{broken} of {len(without)} answers are no number without these inputs",
            n=len(without),
        )
    found = paired.auc_difference_verdict(rows.y, score, without, margin=table.max_drop)
    return result_of(
        check,
        GATE,
        found,
        metric="loss of roc_auc",
        requirement=f"upper bound < {table.max_drop:g}",
        details={"columns": [rows.columns[place] for place in places]},
    )

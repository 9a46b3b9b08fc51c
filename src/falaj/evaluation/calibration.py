"""Calibration: of a hundred answers of 70 %, seventy come true; the error is freed of its bias."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from falaj.evaluation.sets import EvaluationSet
from falaj.evaluation.verdicts import finite
from falaj.facts.checks import CheckResult, Verdict
from falaj.facts.project import CalibrationTable
from falaj.stats import metrics, paired
from falaj.stats.intervals import wilson

__all__ = ["check_calibration"]

GATE: Final = "calibration"
CHECK: Final = f"{GATE}.error"
Floats = NDArray[np.float64]


def check_calibration(
    rows: EvaluationSet, answer: Floats, table: CalibrationTable
) -> list[CheckResult]:
    """The error's upper bound is below the limit; of many classes, of the class that is answered.

    Kept in `details`: the reliability plot, one point a bin.
    """
    if rows.task not in metrics.CLASSES:
        return [told(Verdict.ERROR, f"a {rows.task} gives no probabilities to be calibrated")]
    outside = int(((answer < 0) | (answer > 1)).sum())
    if outside:
        reason = f"{outside} of {answer.size} answers are no probability between 0 and 1"
        return [told(Verdict.FAIL, reason)]
    if answer.ndim == 2:
        hit = (answer.argmax(axis=1) == rows.y).astype(np.int8)
        said = answer.max(axis=1)
    else:
        hit, said = rows.y, answer
    if np.ptp(said) == 0:
        return [told(Verdict.INCONCLUSIVE, f"all {len(said)} answers are {said[0]:g}")]
    found = paired.calibration_verdict(
        hit, said, limit=table.max_error, digest=rows.digest, bins=table.bins
    )
    gap = paired.calibration(hit, said, digest=rows.digest, bins=table.bins).gap
    value, low, high = (root(v) for v in (found.value, found.low, found.high))
    reason = (
        f"error {value:.4g}, at least {low:.4g}, at most {high:.4g} on {found.n:,} rows; on average "
        f"answers are {abs(gap.value):.4g} too {'low' if gap.value > 0 else 'high'}"
    )
    if found.verdict == Verdict.INCONCLUSIVE:
        more = "no sensible number of" if found.n_needed is None else f"about {found.n_needed:,}"
        known = math.isfinite(found.high)
        reason = f"{reason}; {more} rows decide" if known else found.reason
    return [
        CheckResult(
            check=CHECK,
            gate=GATE,
            verdict=Verdict(found.verdict),
            reason=reason,
            metric="calibration error",
            value=finite(value),
            low=finite(low),
            high=finite(high),
            limit=table.max_error,
            requirement=f"upper bound < {table.max_error:g}",
            n=found.n,
            n_needed=found.n_needed,
            details={
                "reliability": reliability(hit, said, table.bins),
                "mean_gap": {"value": gap.value, "low": gap.low, "high": gap.high},
            },
        )
    ]


def root(squared: float) -> float:
    """The debiased square may be below 0, which is no error at all."""
    return math.sqrt(squared) if squared > 0 else 0.0


def reliability(hit: NDArray[Any], said: Floats, bins: int) -> list[dict[str, float]]:
    """Bins of equal mass: mean answer, share that came true with its 95 % interval, rows."""
    found = []
    for part in np.array_split(np.argsort(said, kind="stable"), bins):
        if len(part):
            share = wilson(int(hit[part].sum()), len(part))
            found.append(
                {
                    "said": round(float(said[part].mean()), 6),
                    "true": round(share.value, 6),
                    "low": round(share.low, 6),
                    "high": round(share.high, 6),
                    "rows": len(part),
                }
            )
    return found


def told(verdict: Verdict, reason: str) -> CheckResult:
    return CheckResult(check=CHECK, gate=GATE, verdict=verdict, reason=reason)

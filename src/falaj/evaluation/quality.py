"""Quality: the lower bound of the metric, and no real loss against the live model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from falaj.evaluation.verdicts import result_of
from falaj.facts.checks import CheckResult, Verdict
from falaj.facts.project import QualityTable
from falaj.stats import paired
from falaj.stats.intervals import wilson

__all__ = ["JUDGED", "check_against_champion", "check_quality"]

GATE = "quality"
JUDGED = "candidates_judged_before"
Floats = NDArray[np.float64]


def check_quality(
    y: NDArray[np.int8], score: Floats, threshold: float, table: QualityTable, *, reuse: int
) -> CheckResult:
    """The metric's one-sided 95 % lower bound reaches the requirement.

    reuse: how many candidates these rows have judged before; a set that judged too many is worn
    out, and its verdict is inconclusive at best.
    """
    if table.metric == "roc_auc":
        found = paired.auc_verdict(y, score, at_least=table.at_least)
    else:
        right = int(((score > threshold) == (y == 1)).sum())
        bounds = wilson(right, len(y), tail=0.05)
        found = paired.verdict_at_least(bounds, table.at_least, len(y), what="accuracy")
    return result_of(
        f"{GATE}.{table.metric}",
        GATE,
        worn(found, reuse, table),
        metric=table.metric,
        requirement=f"lower bound >= {table.at_least:g}",
        details={JUDGED: reuse},
    )


def worn(found: paired.Verdict, reuse: int, table: QualityTable) -> paired.Verdict:
    """Trying again on the same rows flatters, so a failure stays one: only doubt can be waived."""
    if found.verdict == Verdict.FAIL:
        return found
    return paired.reuse_verdict(found, reuse, most=table.max_reuse)


def check_against_champion(
    y: NDArray[np.int8],
    score: Floats,
    champion: Floats,
    threshold: float,
    table: QualityTable,
    *,
    reuse: int,
) -> CheckResult:
    """Non-inferior to the live model on the same rows: the loss's upper bound is below the margin.

    Not "better": an equal model may pass, and with few rows a good one may be inconclusive.
    """
    check = f"{GATE}.against_champion"
    broken = int((~np.isfinite(champion)).sum())
    if broken:
        # A live model without answers would count as "no" and make any candidate look better.
        return CheckResult(
            check=check,
            gate=GATE,
            verdict=Verdict.ERROR,
            reason=f"{broken} of {len(y)} scores of the live model are no number",
            n=len(y),
        )
    if table.metric == "roc_auc":
        found = paired.auc_difference_verdict(y, champion, score, margin=table.margin_to_champion)
    else:
        mine, live = (score > threshold) == (y == 1), (champion > threshold) == (y == 1)
        b, c = int((live & ~mine).sum()), int((mine & ~live).sum())
        found = paired.error_difference_verdict(b, c, len(y), margin=table.margin_to_champion)
    return result_of(
        check,
        GATE,
        worn(found, reuse, table),
        metric=f"loss of {table.metric}",
        requirement=f"upper bound < {table.margin_to_champion:g}",
        details={JUDGED: reuse},
    )

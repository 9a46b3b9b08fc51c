"""Quality: the bound of the metric, and no real loss against the live model."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from falaj.evaluation.verdicts import result_of
from falaj.facts.checks import CheckResult, Verdict
from falaj.facts.project import QualityTable
from falaj.stats import metrics, paired
from falaj.stats.metrics import METRICS, Sample

__all__ = ["JUDGED", "check_against_champion", "check_quality"]

GATE = "quality"
JUDGED = "candidates_judged_before"
SEED: Final = "sha256:0"  # of the bootstrap, where the rows have no digest
Floats = NDArray[np.float64]


def check_quality(
    y: NDArray[Any],
    score: Floats,
    threshold: float,
    table: QualityTable,
    *,
    reuse: int,
    sample: Sample | None = None,
    digest: str = SEED,
) -> CheckResult:
    """The metric's one-sided 95 % bound reaches the requirement.

    reuse: how many candidates these rows have judged before; a set that judged too many is worn
    out, and its verdict is inconclusive at best. sample: y with its task, where it is not binary.
    """
    rows = sample or Sample(y, threshold=threshold)
    found = metrics.alone(
        table.metric, rows, score, at_least=table.at_least, at_most=table.at_most, digest=digest
    )
    words = (
        f"lower bound >= {table.at_least:g}"
        if table.at_least is not None
        else f"upper bound < {table.at_most:g}"
    )
    return result_of(
        f"{GATE}.{table.metric}",
        GATE,
        worn(found, reuse, table),
        metric=table.metric,
        requirement=words,
        details={JUDGED: reuse},
    )


def worn(found: paired.Verdict, reuse: int, table: QualityTable) -> paired.Verdict:
    """Trying again on the same rows flatters, so a failure stays one: only doubt can be waived."""
    if found.verdict == Verdict.FAIL:
        return found
    return paired.reuse_verdict(found, reuse, most=table.max_reuse)


def check_against_champion(
    y: NDArray[Any],
    score: Floats,
    champion: Floats,
    threshold: float,
    table: QualityTable,
    *,
    reuse: int,
    sample: Sample | None = None,
    digest: str = SEED,
) -> CheckResult:
    """Non-inferior to the live model on the same rows: the loss's upper bound is below the margin.

    Not "better": an equal model may pass, and with few rows a good one may be inconclusive.
    """
    check = f"{GATE}.against_champion"
    if champion.shape != score.shape:
        return refused(check, f"the live model answers {champion.shape}, this one {score.shape}")
    broken = int((~np.isfinite(champion)).reshape(len(y), -1).any(axis=1).sum())
    if broken:
        # A live model without answers would count as "no" and make any candidate look better.
        return refused(
            check, f"{broken} of {len(y)} scores of the live model are no number", len(y)
        )
    rows, margin = sample or Sample(y, threshold=threshold), table.margin_to_champion
    found = metrics.against(table.metric, rows, champion, score, margin=margin, digest=digest)
    share = " of the live model's" if METRICS[table.metric].relative else ""
    return result_of(
        check,
        GATE,
        worn(found, reuse, table),
        metric=f"loss of {table.metric}",
        requirement=f"upper bound < {margin:g}{share}",
        details={JUDGED: reuse},
    )


def refused(check: str, reason: str, n: int = 0) -> CheckResult:
    return CheckResult(check=check, gate=GATE, verdict=Verdict.ERROR, reason=reason, n=n)

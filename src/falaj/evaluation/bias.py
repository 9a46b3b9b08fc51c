"""Bias: every group's rate against a reference group's, with a guard for small groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from falaj.evaluation.sets import EvaluationSet
from falaj.evaluation.verdicts import finite
from falaj.facts.checks import CheckResult, Verdict
from falaj.facts.project import BiasTable
from falaj.stats.fairness import (
    FEWEST_ROWS,
    BiasVerdict,
    GroupRate,
    axes_of,
    count_cube,
    ratio_gate,
)

__all__ = ["check_bias"]

GATE = "bias"
RATES = {"equal_opportunity_ratio": "tpr", "selection_ratio": "selection"}
NOT_ASSESSABLE = "not assessable"


def check_bias(
    rows: EvaluationSet, score: NDArray[np.float64], threshold: float, table: BiasTable
) -> list[CheckResult]:
    """One result for each group that is compared; groups are never merged silently."""
    if table.group not in rows.groups:
        known = ", ".join(sorted(rows.groups)) or "none"
        return [
            CheckResult(
                check=f"{GATE}.{table.group}",
                gate=GATE,
                verdict=Verdict.ERROR,
                reason=f"the held-out rows have no column {table.group!r}; they have: {known}",
            )
        ]
    group = rows.groups[table.group]
    axes = axes_of(sorted({str(one) for one in group}))
    cube = count_cube([str(one) for one in group], rows.y, (score > threshold).astype(int), axes)
    found = ratio_gate(
        cube,
        axes,
        RATES[table.metric],
        at_least=table.at_least,
        reference=table.reference or None,
        small_groups=table.small_groups,
    )
    compared = [one for one in found.groups if one.verdict != "reference"]
    if not compared:
        return [alone(table, found)]
    return [told(table, found, one) for one in compared]


def told(table: BiasTable, found: BiasVerdict, one: GroupRate) -> CheckResult:
    small, reference = one.verdict == NOT_ASSESSABLE, found.groups[0]
    if reference.rows < FEWEST_ROWS:
        # Reporting small groups never lets a small reference through: nothing was compared at all.
        verdict = Verdict.INCONCLUSIVE
        reason = f"the reference {reference.group} has {reference.rows} rows, too few to judge by"
    elif small and table.small_groups == "report":
        verdict, reason = Verdict.PASS, f"{one.rows} rows are too few to judge; reported only"
    elif small:
        verdict, reason = Verdict.INCONCLUSIVE, f"{one.rows} rows are too few to judge"
    else:
        verdict = Verdict(one.verdict)
        reason = (
            f"{one.hits} of {one.rows}; ratio to {found.reference} is {one.bounds.value:.3f}, "
            f"at least {one.bounds.low:.3f}, at most {one.bounds.high:.3f}"
        )
        if verdict is not Verdict.PASS:
            reason += f"; p that the limit holds {one.p:.4f}, over all groups {one.p_holm:.4f}"
    return CheckResult(
        check=f"{GATE}.{table.group}={one.group}",
        gate=GATE,
        verdict=verdict,
        reason=reason,
        metric=table.metric,
        value=None if small else finite(one.bounds.value),
        low=None if small else finite(one.bounds.low),
        high=None if small else finite(one.bounds.high),
        limit=table.at_least,
        requirement=f"lower bound >= {table.at_least:g} of {found.reference}",
        n=one.rows,
        details={
            "reference": found.reference,
            "counts": {g.group: [g.hits, g.rows] for g in found.groups},
        },
    )


def alone(table: BiasTable, found: BiasVerdict) -> CheckResult:
    return CheckResult(
        check=f"{GATE}.{table.group}",
        gate=GATE,
        verdict=Verdict.INCONCLUSIVE,
        reason=f"there is one group only: {found.reference}",
        metric=table.metric,
        limit=table.at_least,
    )

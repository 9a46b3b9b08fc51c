"""Bias: every group's rate against a reference group's, with a guard for small groups.

The groups stand beside the evaluation rows and never among the model's inputs. However many
metrics and groupings are asked for, a failure is adjusted for all of them together (Holm).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from falaj.evaluation.sets import EvaluationSet, coded
from falaj.evaluation.verdicts import finite
from falaj.facts.checks import CheckResult, Verdict
from falaj.facts.project import BiasTable
from falaj.stats import metrics
from falaj.stats.fairness import (
    FEWEST_ROWS,
    BiasVerdict,
    GroupRate,
    axes_of,
    difference_gate,
    ratio_gate,
)
from falaj.stats.paired import TAIL, holm
from falaj.stats.summaries import Axes, Cube

__all__ = ["Asked", "asked", "check_bias", "check_biases", "decided"]

GATE = "bias"
RATES: Final = {
    "equal_opportunity_ratio": "tpr",
    "selection_ratio": "selection",
    "equal_opportunity_difference": "tpr",
    "selection_difference": "selection",
    "false_positive_rate_difference": "fpr",
}
NOT_ASSESSABLE = "not assessable"


class Asked(NamedTuple):
    """One metric of one table. first: no other metric of this grouping stands before it."""

    table: BiasTable
    metric: str
    first: bool

    def name(self, group: str = "") -> str:
        label = f"={group}" if group else ""
        return f"{GATE}.{self.table.group}{label}" + ("" if self.first else f" {self.metric}")

    @property
    def is_ratio(self) -> bool:
        return self.metric.endswith("_ratio")


def asked(tables: Sequence[BiasTable]) -> list[Asked]:
    """Every metric of every table once, in the order of the file."""
    found: list[Asked] = []
    for table in tables:
        for metric in table.metrics or (table.metric,):
            known = [one for one in found if one.table.group == table.group]
            if metric not in [one.metric for one in known]:
                found.append(Asked(table, metric, not known))
    return found


def check_bias(
    rows: EvaluationSet, score: NDArray[np.float64], threshold: float, table: BiasTable
) -> list[CheckResult]:
    """One result for each group that is compared; groups are never merged silently."""
    return check_biases(rows, score, threshold, (table,))


def check_biases(
    rows: EvaluationSet,
    score: NDArray[np.float64],
    threshold: float,
    tables: Sequence[BiasTable],
) -> list[CheckResult]:
    """All tables at once."""
    counts: dict[str, Mapping[str, NDArray[np.int64]]] = {}
    broken: list[CheckResult] = []
    for table in tables:
        if table.group in counts:
            continue
        reason = unfit(rows, table)
        if reason:
            broken.append(
                CheckResult(
                    check=f"{GATE}.{table.group}", gate=GATE, verdict=Verdict.ERROR, reason=reason
                )
            )
        else:
            counts[table.group] = counted(rows, score > threshold, table.group)
    return [*broken, *decided([one for one in asked(tables) if one.table.group in counts], counts)]


def unfit(rows: EvaluationSet, table: BiasTable) -> str:
    """Why these rows cannot be compared by this table; nothing when they can."""
    if rows.task != metrics.BINARY:
        return f"rates are compared of yes-or-no answers, not of a {rows.task}"
    for name in names_of(table.group):
        if name in rows.columns:
            return f"{name!r} is an input of the model: a protected attribute is held apart from it"
        if name not in rows.groups:
            known = ", ".join(sorted(rows.groups)) or "none"
            return f"the held-out rows have no column {name!r}; they have: {known}"
    return ""


def names_of(group: str) -> list[str]:
    return [name.strip() for name in group.split(",")]


def counted(
    rows: EvaluationSet, told: NDArray[np.bool_], group: str
) -> dict[str, NDArray[np.int64]]:
    """Group -> counts by y and answer, shape (2, 2)."""
    place, words = np.zeros(len(told), np.intp), [""]
    for name in names_of(group):
        code, known = coded(rows.groups[name])
        place = place * len(known) + code
        words = [f"{a}|{b}" if a else b for a in words for b in known]
    index = place * 4 + rows.y.astype(np.intp) * 2 + told
    cells = np.bincount(index, minlength=4 * len(words)).reshape(-1, 2, 2)
    return {word: cells[k] for k, word in enumerate(words) if cells[k].any()}


# --- verdicts from counts: also for rules that come later ---


def decided(
    wanted: Sequence[Asked], counts: Mapping[str, Mapping[str, NDArray[np.int64]]]
) -> list[CheckResult]:
    """counts: grouping -> group -> shape (2, 2), y before the answer."""
    found = [judged(one, counts[one.table.group]) for one in wanted]
    compared = [[g for g in one.groups if g.verdict != "reference"] for one in found]
    family = holm([1.0 if np.isnan(g.p_holm) else g.p for those in compared for g in those])
    adjusted = iter(family.tolist())
    results: list[CheckResult] = []
    for one, verdict, groups in zip(wanted, found, compared, strict=True):
        if not groups:
            results.append(alone(one, verdict))
        for group in groups:
            again = overruled(group, next(adjusted))
            results.append(told(one, verdict, again))
    return results


def judged(one: Asked, counts: Mapping[str, NDArray[np.int64]]) -> BiasVerdict:
    table, rate = one.table, RATES[one.metric]
    axes, cube = cube_of(counts)
    reference = table.reference or None
    if one.is_ratio:
        return ratio_gate(
            cube,
            axes,
            rate,
            at_least=table.at_least,
            reference=reference,
            small_groups=table.small_groups,
        )
    return difference_gate(
        cube,
        axes,
        rate,
        at_most=table.at_most,
        reference=reference,
        small_groups=table.small_groups,
    )


def cube_of(counts: Mapping[str, NDArray[np.int64]]) -> tuple[Axes, Cube]:
    names = sorted(counts)
    axes = axes_of(names)
    return axes, axes.cube(np.array([counts[name] for name in names]))


def overruled(one: GroupRate, p: float) -> GroupRate:
    """The verdict under the p of the whole family: what failed among few may be in doubt."""
    if one.verdict == NOT_ASSESSABLE:
        return one
    if p < TAIL:
        return one._replace(p_holm=p, verdict="fail")
    return one._replace(p_holm=p, verdict="inconclusive" if one.verdict == "fail" else one.verdict)


def told(asked: Asked, found: BiasVerdict, one: GroupRate) -> CheckResult:
    table, reference = asked.table, found.groups[0]
    small = one.verdict == NOT_ASSESSABLE
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
        kind = "ratio to" if asked.is_ratio else "difference from"
        reason = (
            f"{one.hits} of {one.rows}; {kind} {found.reference} is {one.bounds.value:.3f}, "
            f"at least {one.bounds.low:.3f}, at most {one.bounds.high:.3f}"
        )
        if verdict is not Verdict.PASS:
            reason += f"; p that the limit holds {one.p:.4f}, over all groups {one.p_holm:.4f}"
    limit = table.at_least if asked.is_ratio else table.at_most
    words = f"lower bound >= {limit:g} of" if asked.is_ratio else f"within {limit:g} of"
    return CheckResult(
        check=asked.name(one.group),
        gate=GATE,
        verdict=verdict,
        reason=reason,
        metric=asked.metric,
        value=None if small else finite(one.bounds.value),
        low=None if small else finite(one.bounds.low),
        high=None if small else finite(one.bounds.high),
        limit=limit,
        requirement=f"{words} {found.reference}",
        n=one.rows,
        details={
            "group": table.group,
            "reference": found.reference,
            "counts": {g.group: [g.hits, g.rows] for g in found.groups},
        },
    )


def alone(asked: Asked, found: BiasVerdict) -> CheckResult:
    return CheckResult(
        check=asked.name(),
        gate=GATE,
        verdict=Verdict.INCONCLUSIVE,
        reason=f"there is one group only: {found.reference}",
        metric=asked.metric,
        limit=asked.table.at_least if asked.is_ratio else asked.table.at_most,
    )

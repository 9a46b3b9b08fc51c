"""Robustness: inputs that are lost or wrong cost little, never break an answer, and turn none round."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from falaj.evaluation.sets import EvaluationSet, Reference, Scorer
from falaj.evaluation.verdicts import result_of
from falaj.facts.checks import CheckResult, Verdict
from falaj.facts.project import RobustnessTable
from falaj.stats import metrics, paired
from falaj.stats.metrics import Sample

__all__ = [
    "Shift",
    "check_missing",
    "check_robustness",
    "check_shift",
    "matching",
    "name_of",
    "shifts",
]

GATE = "robustness"
BEYOND: Final = 3.0  # out of range: so many widths of the training range above its end
SAME: Final = 1e-5  # answers in single precision that count as equal
Floats = NDArray[np.float64]
Matrix = NDArray[np.float32]


class Shift(NamedTuple):
    """One way to disturb the inputs. check: its name in the report."""

    check: str
    kind: str
    pattern: str
    amount: float = 0.0


def shifts(table: RobustnessTable) -> list[Shift]:
    """Everything that the rules ask for, in the order of the file's reference."""
    found = [Shift(name_of(one), "missing", one) for one in table.missing]
    spread = table.noise_spread
    found += [Shift(f"{GATE}.noise {spread:g}={one}", "noise", one, spread) for one in table.noise]
    found += [
        Shift(f"{GATE}.out-of-range={one}", "out-of-range", one) for one in table.out_of_range
    ]
    found += [
        Shift(f"{GATE}.unit x{factor:g}={one}", "unit", one, factor)
        for one, factor in table.unit_error.items()
    ]
    found += [Shift(f"{GATE}.unseen={one}", "unseen", one) for one in table.unseen]
    found += [Shift(f"{GATE}.invariant={one}", "invariant", one) for one in table.invariant]
    found += [Shift(f"{GATE}.rises={one}", "rises", one, 1.0) for one in table.rises]
    found += [Shift(f"{GATE}.falls={one}", "falls", one, -1.0) for one in table.falls]
    return found


def matching(pattern: str, columns: tuple[str, ...]) -> list[int]:
    """Places of the columns that are lost together: `humid|wind_*|precip`."""
    parts = [part.strip() for part in pattern.split("|")]
    return [
        place
        for place, name in enumerate(columns)
        if any(fnmatchcase(name, part) for part in parts)
    ]


def check_robustness(
    rows: EvaluationSet, score: Floats, model: Scorer, table: RobustnessTable
) -> list[CheckResult]:
    """For each pattern: take the columns away (NaN), and bound the loss of AUC on the same rows."""
    return [check_missing(rows, score, model, pattern, table) for pattern in table.missing]


def name_of(pattern: str) -> str:
    return f"{GATE}.missing={pattern}"


def check_missing(
    rows: EvaluationSet, score: Floats, model: Scorer, pattern: str, table: RobustnessTable
) -> CheckResult:
    return check_shift(rows, score, model, Shift(name_of(pattern), "missing", pattern), table)


def check_shift(
    rows: EvaluationSet,
    score: Floats,
    model: Scorer,
    shift: Shift,
    table: RobustnessTable,
    *,
    metric: str = "roc_auc",
    threshold: float = 0.5,
    unit: str = "",
    reference: Reference | None = None,
) -> CheckResult:
    """Disturb the inputs of every row, and compare the answers on the same rows.

    Rows that the schema would refuse never reach the model: they keep their answers.
    """
    places = matching(shift.pattern, rows.columns)
    if not places:
        reason = f"no input matches {shift.pattern!r}; inputs: {', '.join(rows.columns)}"
        return told(shift, Verdict.ERROR, reason)
    if shift.kind in NEEDS_TRAINING and (reference is None or not len(reference.x)):
        reason = "there are no reference rows of the training to measure by"
        return told(shift, Verdict.INCONCLUSIVE, reason)
    x = DISTURBED[shift.kind](rows, places, shift, reference)
    refused = np.zeros(len(x), bool) if shift.kind == "missing" else beyond(x, rows, places)
    if refused.all() and len(refused):
        return told(shift, Verdict.PASS, "the schema refuses every such row", n=len(x))
    answer = model(x)
    answer = np.where(refused[:, None] if answer.ndim == 2 else refused, score, answer)
    broken = int((~np.isfinite(answer)).any(axis=tuple(range(1, answer.ndim))).sum())
    if broken:
        words = "without these inputs" if shift.kind == "missing" else "then"
        reason = f"{broken} of {len(answer)} answers are no number {words}"
        return told(shift, Verdict.FAIL, reason, n=len(answer))
    details = {
        "columns": [rows.columns[place] for place in places],
        "refused": int(refused.sum()),
    }
    if shift.kind in ("invariant", "rises", "falls"):
        return expected(shift, score, answer, table, details)
    return lost(rows, rows.sample(threshold, unit), score, answer, shift, table, metric, details)


def lost(
    rows: EvaluationSet,
    sample: Sample,
    score: Floats,
    answer: Floats,
    shift: Shift,
    table: RobustnessTable,
    metric: str,
    details: dict[str, object],
) -> CheckResult:
    """The paired loss of the metric."""
    found = metrics.against(
        metric, sample, score, answer, margin=table.max_drop, digest=rows.digest
    )
    return result_of(
        shift.check,
        GATE,
        found,
        metric=f"loss of {metric}",
        requirement=f"upper bound < {table.max_drop:g}",
        details=details,
    )


def expected(
    shift: Shift,
    score: Floats,
    answer: Floats,
    table: RobustnessTable,
    details: dict[str, object],
) -> CheckResult:
    """Answers that must not change, or not in one direction. All rows are looked at."""
    change = answer - score
    if shift.kind == "invariant":
        wrong = np.abs(change).reshape(len(change), -1).max(axis=1) > SAME
        words = "answers change when it does"
    elif change.ndim > 1:
        return told(shift, Verdict.ERROR, "a direction is of one score, not of many classes")
    else:
        wrong = change * shift.amount < -SAME if shift.kind == "rises" else change > SAME
        words = (
            "answers fall when it rises" if shift.kind == "rises" else "answers rise when it does"
        )
    share = float(wrong.mean()) if len(wrong) else 0.0
    reason = f"{int(wrong.sum()):,} of {len(wrong):,} {words}"
    if wrong.any():
        worst = int(np.abs(change).reshape(len(change), -1).max(axis=1).argmax())
        by = float(np.abs(change[worst]).max())
        reason += f", by up to {by:.4g} (row {worst + 1})"
    return CheckResult(
        check=shift.check,
        gate=GATE,
        verdict=Verdict.PASS if share <= table.max_against else Verdict.FAIL,
        reason=reason,
        metric="share of answers against it",
        value=share,
        limit=table.max_against,
        requirement=f"at most {table.max_against:g} of all rows",
        n=len(wrong),
        details=details,
    )


# --- ways to disturb ---


def missing(rows: EvaluationSet, places: list[int], _: Shift, __: Reference | None) -> Matrix:
    x = rows.x.copy()
    x[:, places] = np.nan
    return x


def noisy(
    rows: EvaluationSet, places: list[int], shift: Shift, reference: Reference | None
) -> Matrix:
    x = rows.x.copy()
    noise = paired.philox(rows.digest).standard_normal((len(x), len(places)))
    x[:, places] += (noise * spread(reference, places) * shift.amount).astype(np.float32)
    return x


def out_of_range(
    rows: EvaluationSet, places: list[int], _: Shift, reference: Reference | None
) -> Matrix:
    low, high = ends(reference, places)
    x = rows.x.copy()
    x[:, places] = (high + BEYOND * np.maximum(high - low, 1)).astype(np.float32)
    return x


def unit(rows: EvaluationSet, places: list[int], shift: Shift, _: Reference | None) -> Matrix:
    x = rows.x.copy()
    x[:, places] *= np.float32(shift.amount)
    return x


def unseen(rows: EvaluationSet, places: list[int], _: Shift, reference: Reference | None) -> Matrix:
    """The number after the largest one of the training: a category that nobody has seen."""
    x = rows.x.copy()
    x[:, places] = np.floor(ends(reference, places)[1]).astype(np.float32) + 1
    return x


def shuffled(rows: EvaluationSet, places: list[int], _: Shift, __: Reference | None) -> Matrix:
    """Values of other rows: the column keeps its range and loses its meaning."""
    x = rows.x.copy()
    order = paired.philox(rows.digest).permutation(len(x))
    x[:, places] = x[order][:, places]
    return x


def raised(rows: EvaluationSet, places: list[int], _: Shift, reference: Reference | None) -> Matrix:
    x = rows.x.copy()
    x[:, places] += spread(reference, places).astype(np.float32)
    return x


def spread(reference: Reference | None, places: list[int]) -> Floats:
    return np.asarray(np.nan_to_num(np.nanstd(trained(reference, places), axis=0)))


def ends(reference: Reference | None, places: list[int]) -> tuple[Floats, Floats]:
    known = trained(reference, places)
    return np.nanmin(known, axis=0), np.nanmax(known, axis=0)


def trained(reference: Reference | None, places: list[int]) -> Floats:
    assert reference is not None  # noqa: S101 looked at before
    found = reference.x[:, places].astype(np.float64)
    if np.isnan(found).all(axis=0).any():
        raise ValueError("a column has no value in the training rows")
    return found


Disturb = Callable[[EvaluationSet, list[int], Shift, Reference | None], Matrix]
DISTURBED: Final[dict[str, Disturb]] = {
    "missing": missing,
    "noise": noisy,
    "out-of-range": out_of_range,
    "unit": unit,
    "unseen": unseen,
    "invariant": shuffled,
    "rises": raised,
    "falls": raised,
}
NEEDS_TRAINING: Final = frozenset({"noise", "out-of-range", "unseen", "rises", "falls"})


def beyond(x: Matrix, rows: EvaluationSet, places: list[int]) -> NDArray[np.bool_]:
    """Rows with a value that the model's schema refuses."""
    found = np.zeros(len(x), bool)
    for place in places:
        low, high = rows.limits.get(rows.columns[place], (None, None))
        if low is not None:
            found |= x[:, place] < low
        if high is not None:
            found |= x[:, place] > high
    return found


def told(shift: Shift, verdict: Verdict, reason: str, n: int = 0) -> CheckResult:
    return CheckResult(check=shift.check, gate=GATE, verdict=verdict, reason=reason, n=n)

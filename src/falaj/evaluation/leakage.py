"""Leakage: the answer stands among the inputs, test rows were trained on, training saw the future."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from falaj.evaluation.sets import EvaluationSet, Reference
from falaj.evaluation.verdicts import finite
from falaj.facts.checks import CheckResult, Verdict
from falaj.facts.project import LeakageTable
from falaj.stats import metrics, paired
from falaj.stats.metrics import Sample

__all__ = ["check_leakage"]

GATE: Final = "leakage"
TARGET, DUPLICATES, TIME = (f"{GATE}.{name}" for name in ("target", "duplicates", "time"))
Floats = NDArray[np.float64]
FEWEST: Final = 30  # rows of a class that an area needs to mean anything here
MANY: Final = 0.5  # share of rows that must hold a value


def check_leakage(
    rows: EvaluationSet, reference: Reference | None, table: LeakageTable
) -> list[CheckResult]:
    """reference: the rows that the model was trained on, as far as they are kept."""
    found = [check_target(rows, table)]
    if reference is None or not len(reference.x):
        reason = "there are no reference rows of the training to compare with"
        checks = (DUPLICATES, TIME) if table.by_time and rows.at is not None else (DUPLICATES,)
        return [*found, *(told(check, Verdict.INCONCLUSIVE, reason) for check in checks)]
    found.append(check_duplicates(rows, reference, table))
    if table.by_time and rows.at is not None and reference.at is not None:
        found.append(check_time(rows.at, reference.at))
    return found


# --- the target among the inputs ---


def check_target(rows: EvaluationSet, table: LeakageTable) -> CheckResult:
    """No input alone, nor where it is missing, tells the target nearly without error."""
    copies, told_by = [], {}
    for place, name in enumerate(rows.columns):
        if name in table.allowed:
            continue
        x = rows.x[:, place].astype(np.float64)
        if is_copy(x, rows):
            copies.append(name)
        strength = telling(x, rows)
        if strength is not None:
            told_by[name] = strength
    if not told_by and not copies:
        reason = "too few rows, or inputs without values, to see what they tell"
        return told(TARGET, Verdict.INCONCLUSIVE, reason, n=len(rows.y))
    ordered = sorted(told_by.items(), key=lambda pair: -pair[1][0])
    name, (value, low) = ordered[0] if ordered else (copies[0], (1.0, 1.0))
    bad = [one for one, (_, bound) in ordered if bound >= table.max_alone]
    measure = "AUC" if rows.task in metrics.CLASSES else "correlation"
    if copies:
        verdict, reason = Verdict.FAIL, f"a copy of the target: {', '.join(copies)}"
    elif bad:
        verdict = Verdict.FAIL
        reason = f"{', '.join(bad)}: alone it tells the target ({measure} {value:.4f})"
    elif value >= table.max_alone:
        verdict = Verdict.INCONCLUSIVE
        reason = f"{name}: alone it may tell the target ({measure} {value:.4f}, at least {low:.4f})"
    else:
        verdict = Verdict.PASS
        reason = f"the most telling single input is {name} ({measure} {value:.4f})"
    return CheckResult(
        check=TARGET,
        gate=GATE,
        verdict=verdict,
        reason=reason,
        metric=f"{measure} of one input",
        value=finite(value),
        low=finite(low),
        limit=table.max_alone,
        requirement=f"no input alone reaches {table.max_alone:g}",
        n=len(rows.y),
        details={
            "column": copies[0] if copies else name,
            "copies": copies,
            "alone": {one: round(number, 6) for one, (number, _) in ordered[:20]},
        },
    )


def is_copy(x: Floats, rows: EvaluationSet) -> bool:
    """Each value of the input stands for one value of the target, and the other way round."""
    known = ~np.isnan(x)
    if known.mean() < MANY or len(np.unique(rows.y[known])) < 2:
        return False
    y = rows.y[known].astype(np.float64)
    if rows.task not in metrics.CLASSES:
        return bool(np.allclose(x[known], y, rtol=1e-6, atol=0))
    values = np.unique(x[known])
    if len(values) != len(np.unique(y)):
        return False
    pairs = np.unique(np.column_stack([x[known], y]), axis=0)
    return len(pairs) == len(values)


def telling(x: Floats, rows: EvaluationSet) -> tuple[float, float] | None:
    """How well the input, or its holes, sorts the rows; and the lower bound. None: cannot be seen."""
    holes = np.isnan(x)
    found = [
        one
        for values, these in ((x, ~holes), (holes.astype(np.float64), np.ones_like(holes)))
        if (one := sorting(values[these], rows.y[these], rows)) is not None
    ]
    return max(found) if found else None


def sorting(x: Floats, y: NDArray[np.generic], rows: EvaluationSet) -> tuple[float, float] | None:
    if len(x) < FEWEST or np.ptp(x) == 0:
        return None
    if rows.task not in metrics.CLASSES:
        return monotone(x, y.astype(np.float64))
    best: tuple[float, float] | None = None
    for k in range(1 if rows.task == metrics.BINARY else 0, len(rows.classes)):
        here = y == k
        if min(int(here.sum()), int((~here).sum())) < FEWEST:
            continue
        found = metrics.influence("roc_auc", Sample(here.astype(np.int8)), x)
        auc = max(found.value, 1 - found.value)
        one = (auc, auc - paired.Z_TAIL * found.se())
        best = one if best is None else max(best, one)
    return best


def monotone(x: Floats, y: Floats) -> tuple[float, float] | None:
    """Rank correlation, with Fisher's bound."""
    if np.ptp(y) == 0:
        return None
    r = abs(float(np.corrcoef(paired.midranks(x), paired.midranks(y))[0, 1]))
    if r >= 1 - 1e-12:
        return 1.0, 1.0
    low = np.tanh(np.arctanh(r) - paired.Z_TAIL / np.sqrt(len(x) - 3))
    return r, float(low)


# --- rows on both sides, and the future ---


def check_duplicates(rows: EvaluationSet, reference: Reference, table: LeakageTable) -> CheckResult:
    """Test rows whose inputs stand in the training rows, value for value. All rows are looked at."""
    known = set(prints(reference.x).tolist())
    own = prints(rows.x)
    twice = np.fromiter((one in known for one in own.tolist()), bool, len(own))
    share = float(twice.mean()) if len(twice) else 0.0
    first = np.flatnonzero(twice)[:5].tolist()
    said = f"{int(twice.sum()):,} of {len(twice):,} test rows stand among the training rows"
    if first:
        said += f", the first is row {first[0] + 1}"
    return CheckResult(
        check=DUPLICATES,
        gate=GATE,
        verdict=Verdict.PASS if share <= table.max_duplicates else Verdict.FAIL,
        reason=said,
        metric="share of test rows",
        value=share,
        low=share,
        high=share,
        limit=table.max_duplicates,
        requirement=f"at most {table.max_duplicates:g}",
        n=len(twice),
        details={"rows": [place + 1 for place in first]},
    )


def prints(x: NDArray[np.float32]) -> NDArray[np.uint64]:
    """64 bits of each row: equal rows are equal, others differ but once in 10^19 pairs.

    -0 is 0 and every NaN is one.
    """
    bits = np.where(np.isnan(x), np.float32(np.nan), x + np.float32(0)).view(np.uint32)
    found = np.zeros(len(bits), np.uint64)
    for column in bits.T.astype(np.uint64):
        # SplitMix64 (Steele, Lea, Flood 2014), one step a column
        found = (found ^ column) + np.uint64(0x9E3779B97F4A7C15)
        found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        found ^= found >> np.uint64(31)
    return found


def check_time(test: NDArray[np.datetime64], trained: NDArray[np.datetime64]) -> CheckResult:
    """Every training row is older than every test row."""
    first, last = test.min(), trained.max()
    late = trained >= first
    share = float(late.mean())
    said = f"training ends {last}, the test begins {first}"
    if late.any():
        said += f": {int(late.sum()):,} of {len(trained):,} training rows are of then or later"
    return CheckResult(
        check=TIME,
        gate=GATE,
        verdict=Verdict.FAIL if late.any() else Verdict.PASS,
        reason=f"column at: {said}",
        metric="training rows from the future",
        value=share,
        requirement="none",
        n=len(trained),
        details={"column": "at"},
    )


def told(check: str, verdict: Verdict, reason: str, n: int = 0) -> CheckResult:
    return CheckResult(check=check, gate=GATE, verdict=verdict, reason=reason, n=n)

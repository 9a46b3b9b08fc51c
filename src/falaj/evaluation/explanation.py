"""What moves a model's answers: loss by shuffling columns, and curves of the score along a column.

Shuffling a column breaks its tie to the truth and leaves its values as they were; what the metric
loses is what the model got from it (Breiman 2001; Fisher, Rudin and Dominici 2019). Columns that say
the same can stand in for each other, so each alone looks idle: they are named, and can be shuffled
together. Curves: Friedman 2001; single ones: Goldstein et al. 2015. Both describe the model, never
the cause of an outcome. Rows, repeats and points are bounded, so the work is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Final

import numpy as np
from numpy.typing import NDArray

from falaj.base import digests
from falaj.base.errors import FalajError
from falaj.facts.explanations import Dependence, Explanation, Importance
from falaj.stats.intervals import normal_quantile
from falaj.stats.paired import holm, midranks, philox
from falaj.stats.special import ndtr

__all__ = ["METRICS", "explain"]

Floats = NDArray[np.float64]
Matrix = NDArray[np.float32]
Score = Callable[[Matrix], Floats]
Heard = Callable[[int, int, str], None]

BATCH: Final = 8192  # rows that the model gets at once
MOST_SCORES: Final = 2_000_000  # answers that one explanation may cost
FEWEST_ROWS: Final = 50  # of a class, or altogether: below there are no bounds
ALIKE: Final = 0.8  # rank correlation from which a column is named as saying the same
LINES: Final = 12
BAND: Final = (0.1, 0.9)
ENDS: Final = (0.05, 0.95)  # a curve runs between these quantiles of its column
Z: Final = normal_quantile(0.05)


def explain(
    x: Matrix,
    y: NDArray[np.float64],
    columns: Sequence[str],
    score: Score,
    *,
    metric: str,
    threshold: float = 0.5,
    subject: str,
    evaluation: str,
    together: Sequence[str] = (),
    seed: int = 0,
    repeats: int = 5,
    most_rows: int = 2000,
    curves: int = 6,
    points: int = 20,
    heard: Heard = lambda _done, _of, _name: None,
) -> Explanation:
    """Explain one model on held-out rows. The same arguments give the same numbers.

    Args:
        x: shape (n, d), in the order of `columns`; NaN where a value is missing.
        y: shape (n,), 0 or 1 for roc_auc and accuracy, numbers for the others.
        columns: their names.
        score: the model, shape (n, d) to (n,).
        metric: a name of METRICS.
        threshold: accuracy: the answer is yes above it.
        subject: digest of the model's files.
        evaluation: digest of the rows.
        seed: with both digests it seeds every draw.
        together: patterns such as `dep_*|arr_*`; what matches one is shuffled together.
        repeats: shuffles of each.
        most_rows: rows that are asked at most, drawn by the seed; fewer when there are many columns.
        curves: columns with a curve, those that lose most first.
        points: of each curve.
        heard: told (done, of, name) while it works.

    Raises FalajError: no rows, one class, a column that is not there, answers that are no number.
    """
    if metric not in METRICS:
        raise refused("metric", f"got the metric {metric!r}", f"known: {', '.join(METRICS)}")
    if not len(x):
        raise refused("no-rows", "there are no held-out rows", "nothing can be asked")
    groups = grouped(columns, together)
    dice = philox(digests.of_bytes(f"explanation/1 {subject} {evaluation} {seed}".encode()))
    cost = 1 + len(groups) * repeats + curves * (points + 1)
    count = min(len(x), most_rows, max(MOST_SCORES // cost, FEWEST_ROWS))
    kept = np.sort(dice.permutation(len(x))[:count])
    x, truth = x[kept], np.asarray(y, np.float64)[kept]
    if metric in ("roc_auc", "accuracy") and not np.isin(truth, (0, 1)).all():
        raise refused("metric", f"{metric} is for answers of yes or no", "y holds other numbers")
    if metric == "roc_auc" and len(np.unique(truth)) < 2:
        raise refused("one-class", f"the {count} rows are all of one class", "AUC needs both")
    ask = Asking(score)
    parts = METRICS[metric]
    base = parts(truth, ask(x, "as they are"), threshold)
    found = []
    for number, (name, places) in enumerate(groups.items(), 1):
        heard(number, len(groups), name)
        lost, values = shuffled(x, truth, places, ask, name, dice, repeats, parts, threshold)
        found.append(importance(name, [columns[p] for p in places], base, lost, values))
    chosen = sorted(with_p(found), key=lambda one: (-one.value, one.name))
    near = alike(x, columns)
    return Explanation(
        subject=subject,
        evaluation=evaluation,
        metric=metric,
        baseline=float(base[0].mean()),
        rows=count,
        of_rows=len(y),
        repeats=repeats,
        seed=seed,
        importances=tuple(named(one, near) for one in chosen),
        dependences=tuple(
            curve(x, columns.index(column), column, ask, points)
            for column in [c for one in chosen for c in one.columns][:curves]
        ),
        scored=ask.answers,
    )


def refused(reason: str, message: str, why: str) -> FalajError:
    return FalajError(
        f"explain.{reason}", message, why=why, fix="falaj explain explain." + reason + " says more"
    )


class Asking:
    """The model in batches; counts its answers, and takes numbers only."""

    def __init__(self, score: Score) -> None:
        self._score, self.answers = score, 0

    def __call__(self, x: Matrix, what: str) -> Floats:
        found = np.concatenate(
            [
                np.asarray(self._score(np.ascontiguousarray(x[at : at + BATCH])), np.float64)
                for at in range(0, len(x), BATCH)
            ]
        )
        self.answers += len(x)
        if found.shape != (len(x),):
            raise refused(
                "answers",
                f"the model answers with shape {found.shape}",
                f"one number for each of {len(x)} rows is explained",
            )
        bad = int((~np.isfinite(found)).sum())
        if bad:
            raise refused(
                "answers",
                f"{bad} of {len(x)} answers are no number, with the rows {what}",
                "a loss or a curve of such answers would say nothing",
            )
        return found


def grouped(columns: Sequence[str], together: Sequence[str]) -> dict[str, list[int]]:
    """Name -> places. A column stands in the first pattern that it matches, or alone."""
    found: dict[str, list[int]] = {}
    taken: set[int] = set()
    for pattern in together:
        words = [part.strip() for part in pattern.split("|")]
        places = [
            place
            for place, name in enumerate(columns)
            if place not in taken and any(fnmatchcase(name, word) for word in words)
        ]
        if not places:
            raise refused(
                "no-column",
                f"no column is left that matches {pattern!r}",
                f"the model's columns: {', '.join(columns)}",
            )
        found[pattern] = places
        taken.update(places)
    return found | {name: [p] for p, name in enumerate(columns) if p not in taken}


# --- shuffling ---

Parts = tuple[Floats, ...]


def placements(y: Floats, score: Floats, _threshold: float) -> Parts:
    """Each positive's share of negatives below it, and each negative's of positives above.

    The mean of either is the AUC; their variances add up to that of DeLong.
    """
    truth = y == 1
    ranks, m, n = midranks(score), int(truth.sum()), int((~truth).sum())
    return (
        (ranks[truth] - midranks(score[truth])) / n,
        1 - (ranks[~truth] - midranks(score[~truth])) / m,
    )


def right(y: Floats, score: Floats, threshold: float) -> Parts:
    return (((score > threshold) == (y == 1)).astype(np.float64),)


def minus_absolute(y: Floats, score: Floats, _threshold: float) -> Parts:
    return (-np.abs(y - score),)


def minus_squared(y: Floats, score: Floats, _threshold: float) -> Parts:
    return (-((y - score) ** 2),)


# metric, as scikit-learn calls its scorers -> independent parts whose mean is the metric
METRICS: Final[dict[str, Callable[[Floats, Floats, float], Parts]]] = {
    "roc_auc": placements,
    "accuracy": right,
    "neg_brier_score": minus_squared,
    "neg_mean_absolute_error": minus_absolute,
    "neg_mean_squared_error": minus_squared,
}


def shuffled(
    x: Matrix,
    truth: Floats,
    places: list[int],
    ask: Asking,
    name: str,
    dice: np.random.Generator,
    repeats: int,
    parts: Callable[[Floats, Floats, float], Parts],
    threshold: float,
) -> tuple[Parts, list[float]]:
    """Parts of the metric with these columns shuffled, their mean over repeats; and each value."""
    moved, sums, values = x.copy(), None, []
    for _ in range(repeats):
        moved[:, places] = x[dice.permutation(len(x))][:, places]
        now = parts(truth, ask(moved, f"with {name} shuffled"), threshold)
        values.append(float(now[0].mean()))
        sums = now if sums is None else tuple(a + b for a, b in zip(sums, now, strict=True))
    assert sums is not None  # noqa: S101 there is at least one repeat
    return tuple(one / repeats for one in sums), values


def importance(
    name: str, columns: list[str], base: Parts, lost: Parts, values: list[float]
) -> Importance:
    """The loss and its bounds: rows are drawn anew and shuffled anew, and both show in the parts."""
    gaps = [difference(a, b) for a, b in zip(base, lost, strict=True)]
    value = float(gaps[0].mean())
    low = high = p = None
    if min(len(gap) for gap in gaps) >= FEWEST_ROWS:
        se = math.sqrt(sum(float(np.var(gap, ddof=1)) / len(gap) for gap in gaps))
        low, high = value - Z * se, value + Z * se
        p = float(ndtr(-value / se)) if se > 0 else 1.0
    return Importance(
        name=name,
        columns=tuple(columns),
        value=value,
        low=low,
        high=high,
        p=p,
        spread=float(np.std(values)),
    )


def difference(one: Floats, other: Floats) -> Floats:
    """Exactly 0 where only the rounding of a mean over repeats is left."""
    gap = one - other
    rounding = 16 * np.finfo(np.float64).eps * np.maximum(np.abs(one), np.abs(other))
    return np.where(np.abs(gap) <= rounding, 0.0, gap)


def with_p(found: list[Importance]) -> list[Importance]:
    """The same with p adjusted for how many were looked at."""
    from msgspec.structs import replace

    known = {one.name: one.p for one in found if one.p is not None}
    adjusted = holm(list(known.values())).tolist() if known else []
    by_name = dict(zip(known, adjusted, strict=True))
    return [replace(one, p=by_name.get(one.name)) for one in found]


def alike(x: Matrix, columns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Columns whose ranks move together; missing values rank in the middle."""
    ranks = np.array([midranks(np.nan_to_num(c, nan=middle(c))) for c in x.T.astype(np.float64)])
    ranks -= ranks.mean(axis=1, keepdims=True)
    size = np.sqrt((ranks**2).sum(axis=1))
    size[size == 0] = np.inf  # a constant column is like no other
    near = np.abs(ranks @ ranks.T / np.outer(size, size)) >= ALIKE
    np.fill_diagonal(near, val=False)
    return {
        name: tuple(columns[j] for j in np.flatnonzero(near[i]).tolist())
        for i, name in enumerate(columns)
    }


def middle(column: Floats) -> float:
    known = column[np.isfinite(column)]
    return float(np.median(known)) if len(known) else 0.0


def named(one: Importance, near: dict[str, tuple[str, ...]]) -> Importance:
    """With the columns outside that say nearly the same."""
    from msgspec.structs import replace

    others = {other for column in one.columns for other in near[column]} - set(one.columns)
    return replace(one, alike=tuple(sorted(others)))


# --- curves ---


def grid(values: Floats, points: int) -> Floats:
    """Each value where there are few; else evenly between the 5 % and the 95 % quantile."""
    found = np.unique(values)
    if len(found) <= points:
        return found
    low, high = np.quantile(values, ENDS)
    return np.linspace(low, high, points) if low < high else found[[0, -1]]


def curve(x: Matrix, place: int, column: str, ask: Asking, points: int) -> Dependence:
    values = x[:, place].astype(np.float64)
    known = values[np.isfinite(values)]
    missing_share = 1 - len(known) / len(values)
    at = grid(known, points).astype(np.float32)
    moved = x.copy()

    def along(value: float) -> Floats:
        moved[:, place] = value
        return ask(moved, f"with {column} at {value:g}")

    missing = float(along(math.nan).mean()) if missing_share else None
    single = np.array([along(float(value)) for value in at]).reshape(len(at), len(x))
    low, high = np.quantile(single, BAND, axis=1)
    few = np.linspace(0, len(x) - 1, min(LINES, len(x))).astype(int)
    return Dependence(
        column=column,
        at=numbers(at),
        mean=numbers(single.mean(axis=1)),
        low=numbers(low),
        high=numbers(high),
        lines=tuple(numbers(single[:, row]) for row in few),
        deciles=numbers(np.quantile(known, np.arange(1, 10) / 10)) if len(known) else (),
        missing=missing,
        missing_share=missing_share,
    )


def numbers(values: NDArray[np.floating]) -> tuple[float, ...]:
    """Seven digits: what a float32 model knows."""
    return tuple(float(f"{value:.7g}") for value in values)

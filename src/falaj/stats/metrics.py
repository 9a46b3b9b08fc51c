"""Metrics by the names of scikit-learn, each with bounds, alone and beside a champion.

A metric is a smooth function of row means: cells of a confusion table, losses, squares. So one
bootstrap fits all: lines that differ are drawn with their counts (multinomial); above 1024 of them
the means are drawn from their normal limit. Areas under curves use their influence (DeLong). `unit`
names rows that belong together: whole units are then drawn, never single rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from falaj.stats import paired
from falaj.stats.intervals import Bounds, wilson
from falaj.stats.paired import Verdict, midranks, philox, verdict_at_least, verdict_below

__all__ = [
    "BINARY",
    "CLASSES",
    "FORECASTING",
    "METRICS",
    "MULTICLASS",
    "NUMBERS",
    "RANKING",
    "REGRESSION",
    "Influence",
    "Metric",
    "Sample",
    "against",
    "alone",
    "influence",
    "losses",
    "too_few",
]

Floats = NDArray[np.float64]
Places = NDArray[np.intp]

BINARY: Final = "binary-classification"
MULTICLASS: Final = "multiclass-classification"
REGRESSION: Final = "regression"
FORECASTING: Final = "forecasting"
RANKING: Final = "ranking"
CLASSES: Final = (BINARY, MULTICLASS)
NUMBERS: Final = (REGRESSION, FORECASTING)

TAIL: Final = paired.TAIL
Z: Final = paired.Z_TAIL
REPLICATES: Final = 2000
CHUNK: Final = 200
MOST_LINES: Final = 1024
FEWEST_OF_A_CLASS: Final = 30
FEWEST: Final = paired.FEWEST_FOR_A_MEAN
FEWEST_WITHOUT_SPREAD: Final = paired.FEWEST_WITHOUT_SPREAD
TINY: Final = float(np.finfo(np.float64).eps)


class Metric(NamedTuple):
    """greater: more is better. relative: a margin is a share of the champion's value."""

    name: str
    tasks: tuple[str, ...]
    greater: bool = True
    relative: bool = False


METRICS: Final = {
    one.name: one
    for one in (
        Metric("roc_auc", (BINARY,)),
        Metric("roc_auc_ovr", (MULTICLASS,)),
        Metric("accuracy", CLASSES),
        Metric("balanced_accuracy", CLASSES),
        Metric("f1", (BINARY,)),
        Metric("precision", (BINARY,)),
        Metric("recall", (BINARY,)),
        Metric("f1_macro", CLASSES),
        Metric("f1_weighted", CLASSES),
        Metric("log_loss", CLASSES, greater=False),
        Metric("brier_score_loss", (BINARY,), greater=False),
        Metric("r2", NUMBERS),
        Metric("mean_absolute_error", NUMBERS, greater=False, relative=True),
        Metric("mean_squared_error", NUMBERS, greater=False, relative=True),
        Metric("root_mean_squared_error", NUMBERS, greater=False, relative=True),
        Metric("mean_absolute_percentage_error", NUMBERS, greater=False),
        Metric("ndcg", (RANKING,)),
    )
}


class Sample(NamedTuple):
    """Rows that a metric is measured on.

    y: shape (n,): 0 or 1, the place of a class, or a value. classes: how many there are.
    threshold: binary, positive above. unit: shape (n,), rows of one number belong together; for
    ranking it is the query, and must be given.
    """

    y: NDArray[np.generic]
    task: str = BINARY
    classes: int = 2
    threshold: float = 0.5
    unit: Places | None = None

    def only(self, rows: NDArray[np.bool_]) -> Sample:
        return self._replace(y=self.y[rows], unit=None if self.unit is None else self.unit[rows])


class Parts(NamedTuple):
    """A metric as a function of row means.

    place: shape (n,), row -> line of table. table: shape (m, p). of: (..., p) -> (...).
    """

    place: Places
    table: Floats
    of: Callable[[Floats], Floats]

    def means(self) -> Floats:
        counts = np.bincount(self.place, minlength=len(self.table))
        return np.asarray(counts @ self.table / len(self.place), dtype=np.float64)


class Influence(NamedTuple):
    """value, and what each row does to it, shape (n,): se = sqrt(sum of squares) / n."""

    value: float
    rows: Floats

    def se(self, unit: Places | None = None) -> float:
        each = self.rows
        if unit is None:
            return math.sqrt(float(each @ each)) / len(each)
        together = np.asarray(np.bincount(unit, weights=each), dtype=np.float64)
        many = int(np.count_nonzero(np.bincount(unit)))
        return math.sqrt(float(together @ together) * many / max(many - 1, 1)) / len(each)


# --- alone and beside a champion ---


def alone(
    name: str,
    sample: Sample,
    answer: ArrayLike,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    digest: str,
) -> Verdict:
    """The bound of the metric against the one limit that is given.

    Raises ValueError when the answers do not fit the task, such as probabilities outside 0..1.
    """
    limit = at_least if at_least is not None else at_most
    if limit is None or (at_least is None) == (METRICS[name].greater):
        raise ValueError(f"{name} needs {'at_least' if METRICS[name].greater else 'at_most'}")
    scores, n = _fit(name, sample, answer), len(sample.y)
    if name == "roc_auc" and sample.unit is None and at_least is not None:
        return paired.auc_verdict(sample.y, scores, at_least=at_least)
    if name == "accuracy" and sample.unit is None:
        right = int(_right(sample, scores).sum())
        bounds, spread = wilson(right, n, tail=TAIL), True
    elif name in ("roc_auc", "roc_auc_ovr"):
        found = influence(name, sample, scores)
        bounds, spread = _logit(found, sample.unit), bool(found.rows.any())
    else:
        parts = _parts(name, sample, scores)
        bounds, spread = _bootstrap(parts, _units(name, sample), digest)
    if name == "ndcg":
        n = _many(sample.unit)
    few = too_few(name, sample, spread=spread)
    if few:
        return Verdict("inconclusive", bounds.value, -math.inf, math.inf, limit, n, None, few)
    if at_least is not None:
        return verdict_at_least(bounds, limit, n, what=name)
    return verdict_below(bounds, limit, n, what=name)


def against(
    name: str,
    sample: Sample,
    champion: ArrayLike,
    challenger: ArrayLike,
    *,
    margin: float,
    digest: str,
) -> Verdict:
    """Non-inferiority on the same rows: the challenger is worse by less than `margin`.

    The harm is in the metric's own unit, or a share of the champion's value where it is relative.
    """
    old, new = _fit(name, sample, champion), _fit(name, sample, challenger)
    n, about, harm = len(sample.y), METRICS[name], f"loss of {name}"
    if name == "roc_auc" and sample.unit is None:
        return paired.auc_difference_verdict(sample.y, old, new, margin=margin)
    if name == "accuracy" and sample.unit is None:
        mine, live = _right(sample, new), _right(sample, old)
        b, c = int((live & ~mine).sum()), int((mine & ~live).sum())
        return paired.error_difference_verdict(b, c, n, margin=margin)
    if name in ("roc_auc", "roc_auc_ovr"):
        one, two = influence(name, sample, old), influence(name, sample, new)
        both = Influence(one.value - two.value, one.rows - two.rows)
        half = Z * both.se(sample.unit)
        bounds = Bounds(both.value, both.value - half, both.value + half)
        spread = half > 0 or np.array_equal(old, new)
    else:
        before, after = _parts(name, sample, old), _parts(name, sample, new)
        joint = _joint(before, after, about)
        bounds, spread = _bootstrap(joint, _units(name, sample), digest)
        spread = spread or np.array_equal(old, new)
    n = _many(sample.unit) if name == "ndcg" else n
    few = too_few(name, sample, spread=spread)
    if few:
        return Verdict("inconclusive", bounds.value, -math.inf, math.inf, margin, n, None, few)
    return verdict_below(bounds, margin, n, what=harm)


def influence(name: str, sample: Sample, answer: ArrayLike) -> Influence:
    """The metric and the influence of each row on it; for ranking, of each query."""
    scores = _fit(name, sample, answer)
    if name == "roc_auc":
        return _auc(sample.y.astype(bool), scores)
    if name == "roc_auc_ovr":
        found = [_auc(sample.y == k, scores[:, k]) for k in range(sample.classes)]
        rows = np.mean([one.rows for one in found], axis=0)
        return Influence(float(np.mean([one.value for one in found])), rows)
    parts = _parts(name, sample, scores)
    means = parts.means()
    slopes = np.array([_slope(parts.of, means, j) for j in range(len(means))])
    return Influence(float(parts.of(means)), ((parts.table - means) @ slopes)[parts.place])


def losses(sample: Sample, answer: ArrayLike) -> Floats:
    """One loss a row, for slices: wrong or right; of a value, how far it is off."""
    scores = np.asarray(answer, dtype=np.float64)
    if sample.task in CLASSES:
        return (~_right(sample, scores)).astype(np.float64)
    if sample.task in NUMBERS:
        return np.asarray(np.abs(scores - sample.y.astype(np.float64)), dtype=np.float64)
    raise ValueError(f"a row has no loss of its own in {sample.task}")


# --- bounds ---


def _bootstrap(parts: Parts, unit: Places | None, digest: str) -> tuple[Bounds, bool]:
    """Percentile bounds, and whether the rows differ at all."""
    n, weight = len(parts.place), None
    value = float(parts.of(parts.means()))
    if unit is None:
        counts = np.bincount(parts.place, minlength=len(parts.table))
        lines, counts = parts.table[counts > 0], counts[counts > 0]
    else:
        place = np.unique(unit, return_inverse=True)[1].reshape(-1)
        columns = parts.table[parts.place].T
        sums = np.array([np.bincount(place, weights=column) for column in columns])
        weight = np.bincount(place).astype(np.float64)
        lines, counts, n = sums.T, np.ones(len(weight), np.intp), len(weight)
    if len(lines) < 2:
        return Bounds(value, value, value), False
    drawn = np.concatenate([*_draws(lines, counts, n, weight, philox(digest))])
    low, high = np.nanquantile(parts.of(drawn), [TAIL, 1 - TAIL])
    return Bounds(value, float(low), float(high)), bool(high > low)


def _draws(
    lines: Floats,
    counts: Places,
    n: int,
    weight: Floats | None,
    generator: np.random.Generator,
) -> list[Floats]:
    """Means of resampled rows or units, in chunks of shape (CHUNK, p)."""
    if len(lines) <= MOST_LINES:
        found = []
        for _ in range(REPLICATES // CHUNK):
            picked = generator.multinomial(n, counts / n, CHUNK).astype(np.float64)
            total = n if weight is None else (picked @ weight)[:, None]
            found.append(picked @ lines / total)
        return found
    # So many lines that their mean is normal; what is made of the means stays what it is.
    full = lines if weight is None else np.column_stack([lines, weight])
    share = counts / n
    mean = share @ full
    centred = (full - mean) * np.sqrt(share)[:, None]
    noise = generator.multivariate_normal(
        mean, centred.T @ centred / n, REPLICATES, method="eigh", check_valid="ignore"
    )
    return [noise if weight is None else noise[:, :-1] / noise[:, -1:]]


def _joint(old: Parts, new: Parts, about: Metric) -> Parts:
    """The harm of the new one as a metric of its own, on pairs of lines."""
    _, first, place = np.unique(
        old.place.astype(np.int64) * len(new.table) + new.place,
        return_index=True,
        return_inverse=True,
    )
    table = np.hstack([old.table[old.place[first]], new.table[new.place[first]]])
    cut = old.table.shape[1]

    def harm(means: Floats) -> Floats:
        live, mine = old.of(means[..., :cut]), new.of(means[..., cut:])
        if about.greater:
            return np.asarray(live - mine)
        return np.asarray(_over(mine - live, live) if about.relative else mine - live)

    return Parts(place.reshape(-1), table, harm)


def _logit(found: Influence, unit: Places | None) -> Bounds:
    """Bounds of an area on the logit scale: plain ones are too bold near 1."""
    value = found.value
    if not 0 < value < 1:
        return Bounds(value, 0.0, 1.0)
    centre, half = math.log(value / (1 - value)), Z * found.se(unit) / (value * (1 - value))
    low, high = (1 / (1 + math.exp(-(centre + side))) for side in (-half, half))
    return Bounds(value, low, high)


def too_few(name: str, sample: Sample, *, spread: bool = True) -> str:
    """Why the rows cannot decide, or nothing."""
    n, many = len(sample.y), _many(sample.unit)
    if n < FEWEST:
        return f"{n} rows, below {FEWEST}"
    if sample.unit is not None and many < FEWEST:
        return f"{many} units, below {FEWEST}"
    if sample.task in CLASSES:
        least = int(np.bincount(sample.y.astype(np.intp), minlength=sample.classes).min())
        fewest = paired.FEWEST_OF_A_CLASS if name.startswith("roc_auc") else FEWEST_OF_A_CLASS
        if least < fewest and name not in ("accuracy", "log_loss", "brier_score_loss"):
            return f"{least} rows of a class, below {fewest}"
    if not spread and (name.startswith("roc_auc") or n < FEWEST_WITHOUT_SPREAD):
        return f"no two rows differ on {n} rows, so nothing bounds {name}"
    return ""


def _many(unit: Places | None) -> int:
    return 0 if unit is None else len(np.unique(unit))


def _units(name: str, sample: Sample) -> Places | None:
    """The queries of a ranking are its rows already."""
    return None if name == "ndcg" else sample.unit


# --- the metrics ---


def _parts(name: str, sample: Sample, scores: Floats) -> Parts:
    y = sample.y
    if name in CELLS:
        count = sample.classes
        told = _told(sample, scores)
        table = np.eye(count * count)
        of = CELLS[name]
        place = y.astype(np.intp) * count + told
        return Parts(place, table, lambda m: of(m.reshape(*m.shape[:-1], count, count)))
    if name == "r2":
        truth = y.astype(np.float64)
        centred = truth - truth.mean()
        table = np.column_stack([(truth - scores) ** 2, centred, centred**2])
        return _lines(table, lambda m: 1 - _over(m[..., 0], m[..., 2] - m[..., 1] ** 2))
    if name == "ndcg":
        return _lines(_ndcg(sample, scores)[:, None], _first)
    values = _each(name, sample, scores)[:, None]
    if name == "root_mean_squared_error":
        return _lines(values, lambda m: np.sqrt(np.maximum(m[..., 0], 0)))
    return _lines(values, _first)


def _lines(table: Floats, of: Callable[[Floats], Floats]) -> Parts:
    """Rows that are equal become one line, where that makes it short."""
    if table.shape[1] == 1:
        line, place = np.unique(table[:, 0], return_inverse=True)
        if len(line) <= MOST_LINES:
            return Parts(place.reshape(-1), line[:, None], of)
    return Parts(np.arange(len(table)), table, of)


def _first(means: Floats) -> Floats:
    return np.asarray(means[..., 0])


def _each(name: str, sample: Sample, scores: Floats) -> Floats:
    """Losses whose mean is the metric."""
    if name in ("log_loss", "brier_score_loss"):
        if sample.task == BINARY:
            hit = np.where(sample.y == 1, scores, 1 - scores)
        else:
            hit = scores[np.arange(len(scores)), sample.y.astype(np.intp)]
        if name == "brier_score_loss":
            return np.asarray((1 - hit) ** 2)
        return np.asarray(-np.log(np.clip(hit, TINY, 1)))
    truth = sample.y.astype(np.float64)
    if name == "mean_absolute_error":
        return np.asarray(np.abs(scores - truth))
    if name == "mean_absolute_percentage_error":
        return np.asarray(np.abs(scores - truth) / np.maximum(np.abs(truth), TINY))
    return np.asarray((scores - truth) ** 2)


def _over(a: Floats, b: Floats) -> Floats:
    """Quotient, 0 where b is 0, as scikit-learn does with zero_division=0."""
    return np.asarray(np.divide(a, b, out=np.zeros_like(np.asarray(a + b)), where=b != 0))


def _diagonal(cells: Floats) -> Floats:
    return np.asarray(np.diagonal(cells, axis1=-2, axis2=-1))


def _accuracy(cells: Floats) -> Floats:
    return np.asarray(_diagonal(cells).sum(-1))


def _balanced(cells: Floats) -> Floats:
    truth = cells.sum(-1)
    return np.asarray(_over(_diagonal(cells), truth).sum(-1) / (truth > 0).sum(-1))


def _f1_each(cells: Floats) -> tuple[Floats, Floats]:
    both = cells.sum(-1) + cells.sum(-2)
    return _over(2 * _diagonal(cells), both), both


def _f1_macro(cells: Floats) -> Floats:
    each, both = _f1_each(cells)
    return np.asarray(each.sum(-1) / (both > 0).sum(-1))


def _f1_weighted(cells: Floats) -> Floats:
    return np.asarray((_f1_each(cells)[0] * cells.sum(-1)).sum(-1) / cells.sum((-2, -1)))


CELLS: Final[dict[str, Callable[[Floats], Floats]]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced,
    "f1": lambda cells: _f1_each(cells)[0][..., 1],
    "precision": lambda cells: _over(cells[..., 1, 1], cells[..., :, 1].sum(-1)),
    "recall": lambda cells: _over(cells[..., 1, 1], cells[..., 1, :].sum(-1)),
    "f1_macro": _f1_macro,
    "f1_weighted": _f1_weighted,
}


def _ndcg(sample: Sample, scores: Floats) -> Floats:
    """One number a query; tied scores share their gains, a query without gains counts 0."""
    if sample.unit is None:
        raise ValueError("ndcg needs the column of the query")
    order = np.lexsort((-scores, sample.unit))
    unit, gain, score = sample.unit[order], sample.y.astype(np.float64)[order], scores[order]
    starts = np.flatnonzero(np.r_[True, unit[1:] != unit[:-1]])
    ties = np.cumsum(np.r_[True, (unit[1:] != unit[:-1]) | (score[1:] != score[:-1])]) - 1
    shared = (np.bincount(ties, weights=gain) / np.bincount(ties))[ties]
    rank = np.arange(len(unit)) - np.repeat(starts, np.diff(np.r_[starts, len(unit)]))
    discount = 1 / np.log2(rank + 2)
    best = sample.y.astype(np.float64)[np.lexsort((-sample.y.astype(np.float64), sample.unit))]
    return _over(
        np.add.reduceat(shared * discount, starts), np.add.reduceat(best * discount, starts)
    )


def _auc(y: NDArray[np.bool_], scores: Floats) -> Influence:
    n, positives = len(y), int(y.sum())
    negatives = n - positives
    if not (positives and negatives):
        raise ValueError("AUC needs rows of both classes")
    ranks = midranks(scores)
    rows = np.empty(n)
    rows[y] = (ranks[y] - midranks(scores[y])) / negatives
    rows[~y] = 1 - (ranks[~y] - midranks(scores[~y])) / positives
    value = float(rows[y].mean())
    rows = (rows - value) * np.where(y, n / positives, n / negatives)
    return Influence(value, rows)


def _slope(of: Callable[[Floats], Floats], means: Floats, j: int) -> float:
    step = np.zeros_like(means)
    step[j] = 1e-6 * max(abs(float(means[j])), 1e-3)
    return float((of(means + step) - of(means - step)) / (2 * step[j]))


# --- answers ---


def _told(sample: Sample, scores: Floats) -> Places:
    if sample.task == BINARY:
        return (scores > sample.threshold).astype(np.intp)
    return np.asarray(scores.argmax(axis=1), dtype=np.intp)


def _right(sample: Sample, scores: Floats) -> NDArray[np.bool_]:
    return np.asarray(_told(sample, scores) == sample.y, dtype=bool)


def _fit(name: str, sample: Sample, answer: ArrayLike) -> Floats:
    """The answers as numbers of the right shape. Raises ValueError with what is wrong."""
    about, scores = METRICS[name], np.asarray(answer, dtype=np.float64)
    if sample.task not in about.tasks:
        raise ValueError(f"{name} is not measured for {sample.task}")
    n = len(sample.y)
    wanted = (n, sample.classes) if sample.task == MULTICLASS else (n,)
    if scores.shape != wanted:
        raise ValueError(f"got answers of shape {scores.shape}, expected {wanted}")
    if not n:
        raise ValueError("there are no rows")
    broken = int((~np.isfinite(scores)).sum())
    if broken:
        raise ValueError(f"{broken} of {scores.size} answers are no number")
    if name in ("log_loss", "brier_score_loss"):
        outside = int(((scores < 0) | (scores > 1)).sum())
        if outside:
            raise ValueError(f"{outside} of {scores.size} probabilities lie outside 0 to 1")
    return scores

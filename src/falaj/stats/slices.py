"""Slices: parts of the evaluation rows, judged one by one and as a family; and a search for bad ones.

Declared slices are all tested, so their failures are Holm's. Searching tests thousands, so it is
honest only on other rows: half of the rows find, the other half confirms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from falaj.stats import metrics, paired
from falaj.stats.intervals import Bounds, newcombe, normal_quantile, root_of_falling, wilson
from falaj.stats.metrics import METRICS, Influence, Sample
from falaj.stats.special import ndtr

__all__ = [
    "Coded",
    "Found",
    "Judgement",
    "Numbers",
    "drop",
    "halves",
    "level",
    "loss_numbers",
    "measured",
    "worst",
]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

TAIL: Final = paired.TAIL
Z: Final = paired.Z_TAIL
MOST_PARTS: Final = 40  # single parts of which pairs are made
MOST_LOOKED_AT: Final = 400
OVERLAP: Final = 0.5  # of two found slices


class Numbers(NamedTuple):
    """What is stored of one slice; every limit can be held against it later.

    value, se: of the metric in the slice. whole: of all rows. drop, drop_se: how far the slice is
    worse than all rows, a share of `whole` for a metric that is relative. right, whole_right: counts
    where the metric is a share of rows, else -1.
    """

    metric: str
    n: int
    value: float
    se: float
    whole: float
    whole_n: int
    drop: float
    drop_se: float
    right: int = -1
    whole_right: int = -1


class Judgement(NamedTuple):
    """Bounds, and p of "the limit holds"."""

    bounds: Bounds
    p: float


def measured(
    name: str, sample: Sample, answer: Floats, whole: Influence, rows: Bools
) -> Numbers | str:
    """The numbers of the rows that are true; in words why there are none."""
    part, said = sample.only(rows), answer[rows]
    few = metrics.too_few(name, part)
    if few:
        return few
    about, found = METRICS[name], metrics.influence(name, part, said)
    n, whole_n = len(part.y), len(sample.y)
    scale = abs(whole.value) if about.relative and whole.value else 1.0
    # The slice is part of the whole: one influence for the difference of both.
    each = whole.rows / whole_n
    each = each.copy()
    each[rows] -= found.rows / n
    gap = whole.value - found.value if about.greater else found.value - whole.value
    gap_se = Influence(0.0, each * whole_n).se(sample.unit) / scale
    right = whole_right = -1
    if name == "accuracy" and sample.unit is None:
        right, whole_right = round(found.value * n), round(whole.value * whole_n)
    return Numbers(
        name, n, found.value, found.se(part.unit), whole.value, whole_n, gap / scale, gap_se,
        right, whole_right,
    )  # fmt: skip


def level(one: Numbers, limit: float) -> Judgement:
    """The slice's own value against a limit that it must reach, or for a loss stay below."""
    sign = 1.0 if METRICS[one.metric].greater else -1.0
    if one.right >= 0:
        spread = math.sqrt(max(limit * (1 - limit), 0.0) / one.n)
        return Judgement(wilson(one.right, one.n, tail=TAIL), _normal(one.value - limit, spread))
    if one.metric.startswith("roc_auc") and 0 < one.value < 1 and 0 < limit < 1:
        width = one.se / (one.value * (1 - one.value))
        centre, half = _logit(one.value), Z * width
        bounds = Bounds(one.value, _expit(centre - half), _expit(centre + half))
        return Judgement(bounds, _normal(centre - _logit(limit), width))
    bounds = Bounds(one.value, one.value - Z * one.se, one.value + Z * one.se)
    return Judgement(bounds, _normal(sign * (one.value - limit), one.se))


def drop(one: Numbers, limit: float) -> Judgement:
    """How much worse the slice is than all rows, against the limit that it must stay below."""
    rest = one.whole_n - one.n
    if one.right < 0 or not rest:
        half = Z * one.drop_se
        bounds = Bounds(one.drop, one.drop - half, one.drop + half)
        return Judgement(bounds, _normal(limit - one.drop, one.drop_se))
    share = rest / one.whole_n  # whole - slice = share * (rest - slice)
    rest_right = one.whole_right - one.right

    def at(tail: float) -> Bounds:
        found = newcombe(rest_right, rest, one.right, one.n, tail=tail)
        return Bounds(*(side * share for side in found))

    bounds = at(TAIL)
    if bounds.value <= limit:
        return Judgement(bounds, 1.0)
    z = root_of_falling(lambda z: at(float(ndtr(-z))).low - limit, 0.0, 37.0)
    return Judgement(bounds, float(ndtr(-z)))


def _normal(distance: float, spread: float) -> float:
    if spread <= 0:
        return 1.0 if distance >= 0 else 0.0
    return float(ndtr(distance / spread))


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# --- the search ---


class Coded(NamedTuple):
    """One column cut into parts. code: shape (n,), -1 in none. words: one for each part."""

    column: str
    code: NDArray[np.intp]
    words: tuple[str, ...]


class Found(NamedTuple):
    """A slice that looked bad on the finding half. rows: shape (n,), on all rows."""

    words: str
    columns: tuple[str, ...]
    rows: Bools


def halves(digest: str, n: int, unit: NDArray[np.intp] | None = None) -> Bools:
    """True for the rows that find; the others confirm. Rows of one unit stay together."""
    many = n if unit is None else int(unit.max()) + 1
    first = np.zeros(many, dtype=bool)
    first[paired.philox(digest).permutation(many)[: many // 2]] = True
    return first if unit is None else np.asarray(first[unit])


def worst(
    loss: Floats, columns: Sequence[Coded], finding: Bools, *, least: int, most: int
) -> tuple[list[Found], int]:
    """Up to `most` slices with the largest sure excess of loss on the finding rows, of how many.

    Single parts first, then pairs of the best 40 of different columns, where a pair is surely
    worse than each of its parts. Of slices that share half of the smaller one's rows the worst counts. least: rows on each half.
    """
    parts = [(column, k) for column in columns for k in range(len(column.words))]
    found = loss[finding]
    mean = float(found.mean())
    scores: list[Floats] = []
    sizes: list[Floats] = []
    means: list[Floats] = []
    for column in columns:
        code, many = column.code[finding], len(column.words)
        known = code >= 0
        counted, total, squares = (
            np.bincount(code[known], weights=w[known], minlength=many).astype(np.float64)
            for w in (np.ones_like(found), found, found**2)
        )
        scores.append(_sure(counted, total, squares, mean=mean))
        means.append(total / np.maximum(counted, 1) - mean)
        sizes.append(counted)
    score, size = np.concatenate(scores), np.concatenate(sizes)
    excess = np.concatenate(means)
    ripe = np.flatnonzero((size >= least) & (size <= len(found) - least))
    best = ripe[np.argsort(-score[ripe], kind="stable")][:MOST_PARTS]
    ranked: list[tuple[float, tuple[int, ...]]] = [(float(score[i]), (int(i),)) for i in ripe]
    inside = np.zeros((len(found), len(best)))
    for place, i in enumerate(best):
        inside[:, place] = parts[i][0].code[finding] == parts[i][1]
    shared, sums, powers = (
        inside.T @ (inside * w[:, None]) for w in (np.ones_like(found), found, found**2)
    )
    both = _sure(shared, sums, powers, mean=mean)
    tried = len(ripe)
    for a in range(len(best)):
        for b in range(a + 1, len(best)):
            one, two = best[a], best[b]
            if parts[one][0].column == parts[two][0].column or shared[a, b] < least:
                continue
            tried += 1
            if both[a, b] > max(excess[one], excess[two]):
                ranked.append((float(both[a, b]), tuple(sorted((int(one), int(two))))))
    ranked.sort(key=lambda pair: -pair[0])
    kept: list[Found] = []
    taken: list[tuple[int, ...]] = []
    for sure, places in ranked[:MOST_LOOKED_AT]:
        if sure <= 0 or len(kept) == most:
            break
        if any(set(other) <= set(places) for other in taken):
            continue
        rows = np.logical_and.reduce([parts[i][0].code == parts[i][1] for i in places])
        if int(rows[~finding].sum()) < least or any(_alike(rows, other.rows) for other in kept):
            continue
        taken.append(places)
        words = " and ".join(parts[i][0].words[parts[i][1]] for i in places)
        kept.append(Found(words, tuple(parts[i][0].column for i in places), rows))
    return kept, tried


def loss_numbers(loss: Floats, rows: Bools, sample: Sample) -> Numbers:
    """The mean loss of a slice beside that of all rows, as a metric."""
    if sample.task in metrics.CLASSES and sample.unit is None:
        right, n = int((loss[rows] == 0).sum()), int(rows.sum())
        whole_right = int((loss == 0).sum())
        share, whole = right / n, whole_right / len(loss)
        return Numbers(
            "accuracy", n, share, 0.0, whole, len(loss), whole - share, 0.0, right, whole_right
        )
    whole, part = float(loss.mean()), float(loss[rows].mean())
    scale = whole if sample.task in metrics.NUMBERS and whole > 0 else 1.0
    each = (loss - whole) / len(loss)
    each[rows] -= (loss[rows] - part) / rows.sum()
    se = Influence(0.0, each * len(loss)).se(sample.unit) / scale
    name = "mean_absolute_error" if sample.task in metrics.NUMBERS else "accuracy"
    sign = 1.0 if name == "accuracy" else 0.0
    return Numbers(
        name, int(rows.sum()), abs(sign - part), 0.0, abs(sign - whole), len(loss),
        (part - whole) / scale, se,
    )  # fmt: skip


def _sure(n: Floats, total: Floats, squares: Floats, *, mean: float) -> Floats:
    """Lower bound of the excess; of equal rows none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        own = total / n
        spread = np.maximum(squares / n - own**2, 0)
        sure = own - mean - normal_quantile(TAIL) * np.sqrt(spread / n)
    return np.asarray(np.where(n > 0, sure, -np.inf))


def _alike(a: Bools, b: Bools) -> bool:
    return int((a & b).sum()) > OVERLAP * min(int(a.sum()), int(b.sum()))

"""Two models on the same rows: paired differences with bounds, slices, and pictures of each.

Nothing is decided here: a gate asks for a margin, a comparison only says which way the data point.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from falaj.base.errors import FalajError
from falaj.facts.explanations import Comparison, Pair, Sketch
from falaj.stats import paired
from falaj.stats.intervals import Bounds, wilson

__all__ = ["compare", "sketch"]

Floats = NDArray[np.float64]
WALD: Final = 500  # rows from which a mean of squares is near enough to normal
FEWEST: Final = 50  # rows of a slice, and of a class
MOST_SLICES: Final = 20  # values of one column
BINS: Final = 10
BARS: Final = 20
POINTS: Final = 200
SURE: Final = 0.05


def compare(
    y: Floats,
    candidate: Floats,
    champion: Floats,
    *,
    names: tuple[str, str],
    thresholds: tuple[float, float],
    groups: Mapping[str, NDArray[np.str_]],
    evaluation: str,
) -> Comparison:
    """Compare two scores of the same rows.

    Args:
        y: shape (n,), 0 or 1.
        candidate: scores, shape (n,).
        champion: scores, shape (n,).
        names: of the candidate and of the champion.
        thresholds: of both; the answer is yes above.
        groups: column -> value of each row; values with few rows are named, not judged.
        evaluation: digest of the rows; it seeds the bootstrap.

    Raises FalajError: no rows, one class, truth that is not yes or no, scores that are no number.
    """
    n = len(y)
    if not n or not np.isin(y, (0, 1)).all() or len(np.unique(y)) < 2:
        why = "there are none" if not n else "they are not of two classes, yes and no"
        raise refused("rows", "the held-out rows cannot compare two models", why)
    for name, score in zip(names, (candidate, champion), strict=True):
        if score.shape != (n,) or not np.isfinite(score).all():
            raise refused("answers", f"{name} does not answer with one number a row", "")
    right = [
        (score > limit) == (y == 1)
        for score, limit in zip((candidate, champion), thresholds, strict=True)
    ]
    found = [area(y, candidate, champion), accuracy("accuracy", *right)]
    if min(candidate.min(), champion.min()) >= 0 and max(candidate.max(), champion.max()) <= 1:
        found.append(brier(y, candidate, champion, evaluation))
    return Comparison(
        candidate=names[0],
        champion=names[1],
        evaluation=evaluation,
        rows=n,
        positives=int(y.sum()),
        metrics=tuple(found),
        slices=tuple(sliced(groups, *right)),
        sketches=tuple(
            sketch(y, score, name) for name, score in zip(names, (candidate, champion), strict=True)
        ),
    )


def refused(reason: str, message: str, why: str) -> FalajError:
    return FalajError(
        f"compare.{reason}", message, why=why, fix=f"falaj explain compare.{reason} says more"
    )


def word(low: float | None, high: float | None, *, more_is_better: bool = True) -> str:
    if low is None or high is None:
        return "no data"
    if low > 0 or high < 0:
        return "better" if (low > 0) == more_is_better else "worse"
    return "no difference yet"


def area(y: Floats, candidate: Floats, champion: Floats) -> Pair:
    both = paired.delong(y, np.array([candidate, champion]))
    found = paired.auc_difference_verdict(y, champion, candidate, margin=0.0)
    few = min(both.positives, both.negatives) < FEWEST
    low, high = (None, None) if few else (-found.high, -found.low)
    return Pair(
        name="roc_auc",
        metric="roc_auc",
        candidate=float(both.auc[0]),
        champion=float(both.auc[1]),
        difference=-found.value,
        low=low,
        high=high,
        n=len(y),
        word=word(low, high),
    )


def accuracy(name: str, mine: NDArray[np.bool_], live: NDArray[np.bool_]) -> Pair:
    n = len(mine)
    b, c = int((live & ~mine).sum()), int((mine & ~live).sum())
    rise = paired.tango(b, c, n)
    low, high = (None, None) if n < FEWEST else (-rise.high, -rise.low)
    return Pair(
        name=name,
        metric="accuracy",
        candidate=float(mine.mean()),
        champion=float(live.mean()),
        difference=(c - b) / n,
        low=low,
        high=high,
        n=n,
        word=word(low, high),
    )


def brier(y: Floats, candidate: Floats, champion: Floats, evaluation: str) -> Pair:
    mine, live = (candidate - y) ** 2, (champion - y) ** 2
    bounds = mean(mine - live, evaluation)
    low, high = (None, None) if len(y) < FEWEST else (bounds.low, bounds.high)
    return Pair(
        name="brier_score",
        metric="brier_score",
        candidate=float(mine.mean()),
        champion=float(live.mean()),
        difference=bounds.value,
        low=low,
        high=high,
        n=len(y),
        word=word(low, high, more_is_better=False),
    )


def mean(gaps: Floats, evaluation: str) -> Bounds:
    """A bootstrap where rows are few; Wald above, which costs nothing and is the same there."""
    n, value = len(gaps), float(gaps.mean())
    if n < WALD:
        return paired.mean_bounds(gaps, digest=evaluation)
    half = paired.Z_TAIL * float(np.std(gaps, ddof=1)) / n**0.5
    return Bounds(value, value - half, value + half)


def sliced(
    groups: Mapping[str, NDArray[np.str_]], mine: NDArray[np.bool_], live: NDArray[np.bool_]
) -> list[Pair]:
    """Accuracy in each slice; the word is held to all slices together, both ways (Holm)."""
    from msgspec.structs import replace

    found = []
    for column, values in groups.items():
        names, counts = np.unique(values, return_counts=True)
        largest = names[np.argsort(-counts, kind="stable")][:MOST_SLICES]
        found += [
            accuracy(f"{column}={name}", mine[values == name], live[values == name])
            for name in sorted(largest.tolist())
        ]
    judged = [place for place, one in enumerate(found) if one.low is not None]
    harm, gain = [], []
    for place in judged:
        column, _, name = found[place].name.partition("=")
        here = groups[column] == name
        b, c = int((live & ~mine)[here].sum()), int((mine & ~live)[here].sum())
        harm.append(paired.mcnemar_mid_p(b, c))
        gain.append(paired.mcnemar_mid_p(c, b))
    for place, worse, better in zip(
        judged,
        paired.holm(harm).tolist() if harm else [],
        paired.holm(gain).tolist() if gain else [],
        strict=True,
    ):
        said = "worse" if worse < SURE else "better" if better < SURE else "no difference yet"
        found[place] = replace(found[place], p=worse, word=said)
    return found


def sketch(y: Floats, score: Floats, name: str) -> Sketch:
    """Pictures of one score; few points whatever the rows."""
    order = np.argsort(-score, kind="stable")
    ends = np.r_[np.flatnonzero(np.diff(score[order])), len(y) - 1]  # ties move together
    hits = np.cumsum(y[order])[ends]
    roc_y = np.r_[0.0, hits / max(hits[-1], 1)]
    false = ends + 1 - hits
    roc_x = np.r_[0.0, false / max(false[-1], 1)]
    kept = np.unique(np.linspace(0, len(roc_x) - 1, POINTS).astype(int))
    bins = [part for part in np.array_split(np.argsort(score, kind="stable"), BINS) if len(part)]
    bounds = [wilson(int(y[part].sum()), len(part), tail=0.05) for part in bins]
    low, high = float(score.min()), float(score.max())
    low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high if high > low else low + 1)
    counts, edges = np.histogram(score, bins=BARS, range=(low, high))
    return Sketch(
        name=name,
        roc_x=numbers(roc_x[kept]),
        roc_y=numbers(roc_y[kept]),
        told=numbers(np.array([score[part].mean() for part in bins])),
        happened=numbers(np.array([one.value for one in bounds])),
        low=numbers(np.array([one.low for one in bounds])),
        high=numbers(np.array([one.high for one in bounds])),
        edges=numbers(edges),
        shares=numbers(counts / len(y)),
    )


def numbers(values: Floats) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)

"""Gates on one evaluation set: bounds decide, never points.

Both models see the same rows, so differences are paired. *Harm* d is a number that is better when
smaller; the verdict compares its one-sided 95 % bounds, one each way, with the limit.
Sources: DeLong et al. 1988 by the midranks of Sun and Xu 2014; Tango 1998; McNemar's mid-p;
Holm 1979; Benjamini and Hochberg 1995.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from falaj.stats.intervals import Bounds, normal_quantile, root_of_falling
from falaj.stats.special import bdtrc

__all__ = [
    "Calibration",
    "DeLong",
    "Verdict",
    "auc_difference_verdict",
    "auc_verdict",
    "benjamini_hochberg",
    "calibration",
    "calibration_verdict",
    "delong",
    "error_difference_verdict",
    "harmed_slices",
    "holm",
    "mcnemar_mid_p",
    "mean_bounds",
    "mean_difference_verdict",
    "midranks",
    "n_needed",
    "philox",
    "reuse_verdict",
    "tango",
    "verdict_at_least",
    "verdict_below",
]

Floats = NDArray[np.float64]

TAIL: Final = 0.05
Z_TAIL: Final = normal_quantile(TAIL)
Z_POWER: Final = normal_quantile(0.20)
FEWEST_OF_A_CLASS: Final = 50
FEWEST_FOR_A_MEAN: Final = 50
FEWEST_WITHOUT_SPREAD: Final = 1000
FEWEST_FOR_CALIBRATION: Final = 150  # ten rows a bin
MOST_DISTINCT: Final = 4096
REPLICATES: Final = 10_000
CHUNK: Final = 500
CALIBRATION_DRAWS: Final = 500
NO_SENSIBLE_N: Final = 100


class Verdict(NamedTuple):
    """`pass`, `fail` or `inconclusive`, with every number that led to it.

    value, low, high: estimate and its one-sided 95 % bounds. n: rows.
    n_needed: rows for a decision with 80 % power, if the estimate is true; None where the verdict
    stands or no sensible number of rows would do.
    """

    verdict: str
    value: float
    low: float
    high: float
    limit: float
    n: int
    n_needed: int | None
    reason: str

    def __bool__(self) -> bool:
        raise TypeError("a gate has more than two verdicts; ask .verdict")


# --- the verdict rule ---


def verdict_below(bounds: Bounds, limit: float, n: int, *, what: str = "harm") -> Verdict:
    """`pass` if the upper bound is below `limit`, `fail` if the lower one is not, for a harm."""
    passes, fails = bounds.high < limit, bounds.low >= limit
    return _verdict(passes, fails, bounds, limit, n, f"{what} must be below")


def verdict_at_least(bounds: Bounds, limit: float, n: int, *, what: str = "value") -> Verdict:
    """`pass` if the lower bound reaches `limit`, `fail` if the upper one does not."""
    passes, fails = bounds.low >= limit, bounds.high < limit
    return _verdict(passes, fails, bounds, limit, n, f"{what} must be at least")


def n_needed(n: int, se: float, gap: float) -> int | None:
    """Rows for 80 % power at distance `gap` from the limit; None above 100 n."""
    if not (math.isfinite(se) and gap):
        return None
    ratio = ((Z_TAIL + Z_POWER) * se / abs(gap)) ** 2
    return None if ratio > NO_SENSIBLE_N else max(1, math.ceil(n * ratio))


def reuse_verdict(verdict: Verdict, judged: int, *, most: int = 20) -> Verdict:
    """Inconclusive once an evaluation set has judged more than `most` candidates."""
    if judged <= most:
        return verdict
    reason = (
        f"this evaluation set has judged {judged} candidates, more than {most}; {verdict.reason}"
    )
    return verdict._replace(verdict="inconclusive", n_needed=None, reason=reason)


def _verdict(passes: bool, fails: bool, bounds: Bounds, limit: float, n: int, rule: str) -> Verdict:
    value, low, high = bounds
    text = f"{rule} {limit:.6g}: {value:.6g} [{low:.6g}, {high:.6g}] on {n} rows"
    if passes or fails:
        side = "the bounds lie on the good side" if passes else "the bounds lie on the bad side"
        name = "pass" if passes else "fail"
        return Verdict(name, value, low, high, limit, n, None, f"{text}; {side}")
    needed = n_needed(n, (high - low) / (2 * Z_TAIL), value - limit)
    more = "no sensible number of rows decides" if needed is None else f"about {needed} rows decide"
    reason = f"{text}; the limit lies inside, {more}"
    return Verdict("inconclusive", value, low, high, limit, n, needed, reason)


def _undecided(bounds: Bounds, limit: float, n: int, reason: str) -> Verdict:
    return Verdict("inconclusive", *bounds, limit, n, None, reason)


# --- area under the curve ---


class DeLong(NamedTuple):
    """Areas, shape (k,), and their covariance, shape (k, k), on the same rows."""

    auc: Floats
    covariance: Floats
    positives: int
    negatives: int


def midranks(x: ArrayLike) -> Floats:
    """Ranks from 1; ties share the mean of their ranks."""
    x = np.asarray(x, dtype=np.float64)
    if np.isnan(x).any():
        raise ValueError("NaN has no rank")
    _, places, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[places.reshape(x.shape)], dtype=np.float64)


def delong(y: ArrayLike, scores: ArrayLike) -> DeLong:
    """Areas under the ROC curve with their covariance.

    Args:
        y: shape (n,), 0 or 1.
        scores: shape (n,) or (k, n), one row a model; ties count half.

    Raises:
        ValueError: shapes differ, y is not 0/1, a class is empty, or a score is NaN.
    """
    truth, rows = _truth(y), np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if rows.shape[1] != len(truth):
        raise ValueError(f"got {rows.shape[1]} scores, expected {len(truth)}")
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not (positives and negatives):
        raise ValueError("AUC needs rows of both classes")
    v10, v01 = [], []
    for row in rows:
        ranks = midranks(row)
        v10.append((ranks[truth] - midranks(row[truth])) / negatives)
        v01.append(1 - (ranks[~truth] - midranks(row[~truth])) / positives)
    covariance = _cov(np.array(v10)) / positives + _cov(np.array(v01)) / negatives
    return DeLong(np.mean(v10, axis=1), covariance, positives, negatives)


def auc_verdict(y: ArrayLike, scores: ArrayLike, *, at_least: float) -> Verdict:
    """Gate: the AUC is at least the limit. Bounds on the logit scale: plain ones are too bold."""
    found = delong(y, scores)
    auc, se, n = float(found.auc[0]), _root(found.covariance[0, 0]), len(np.asarray(y))
    few = min(found.positives, found.negatives)
    if few < FEWEST_OF_A_CLASS:
        bounds = Bounds(auc, 0.0, 1.0)
        return _undecided(bounds, at_least, n, f"{few} rows of a class, below {FEWEST_OF_A_CLASS}")
    if se == 0:
        return _undecided(Bounds(auc, 0.0, 1.0), at_least, n, "the AUC has no variance here")
    logit, half = math.log(auc / (1 - auc)), Z_TAIL * se / (auc * (1 - auc))
    bounds = Bounds(auc, _expit(logit - half), _expit(logit + half))
    return verdict_at_least(bounds, at_least, n, what="AUC")


def auc_difference_verdict(
    y: ArrayLike, champion: ArrayLike, challenger: ArrayLike, *, margin: float
) -> Verdict:
    """Gate: the challenger loses less than `margin` of AUC. Harm is champion - challenger."""
    rows = np.array([np.asarray(champion, np.float64), np.asarray(challenger, np.float64)])
    found, n = delong(y, rows), rows.shape[1]
    harm = float(found.auc[0] - found.auc[1])
    s = found.covariance
    se = _root(s[0, 0] + s[1, 1] - 2 * s[0, 1])
    few = min(found.positives, found.negatives)
    if few < FEWEST_OF_A_CLASS:
        reason = f"{few} rows of a class, below {FEWEST_OF_A_CLASS}"
        return _undecided(Bounds(harm, -1.0, 1.0), margin, n, reason)
    if np.array_equal(midranks(rows[0]), midranks(rows[1])):
        harm = se = 0.0  # the same order: the difference is exactly 0
    elif se == 0:
        reason = "the difference has no variance here"
        return _undecided(Bounds(harm, -1.0, 1.0), margin, n, reason)
    bounds = Bounds(harm, harm - Z_TAIL * se, harm + Z_TAIL * se)
    return verdict_below(bounds, margin, n, what="loss of AUC")


# --- paired errors ---


def tango(b: int, c: int, n: int, *, tail: float = TAIL) -> Bounds:
    """Score bounds of (b - c) / n: challenger wrong alone b, champion wrong alone c, rows n."""
    if not (b >= 0 and c >= 0 and b + c <= n and n > 0):
        raise ValueError(f"got b {b}, c {c}, n {n}")
    z = normal_quantile(tail)

    def t(shift: float) -> float:
        linear = -b - c + (2 * n - b + c) * shift
        constant = -c * shift * (1 - shift)
        root = math.sqrt(max(linear * linear - 8 * n * constant, 0.0))
        # two forms of one root: take the one that adds
        above = linear > 0
        q = -2 * constant / (linear + root) if above else (root - linear) / (4 * n)
        variance = n * (2 * q + shift * (1 - shift))
        gap = b - c - n * shift
        if variance <= 0:
            return math.copysign(math.inf, gap) if gap else 0.0
        return gap / math.sqrt(variance)

    low = root_of_falling(lambda shift: t(shift) - z, -1.0, 1.0)
    high = root_of_falling(lambda shift: t(shift) + z, -1.0, 1.0)
    return Bounds((b - c) / n, low, high)


def error_difference_verdict(b: int, c: int, n: int, *, margin: float) -> Verdict:
    """Gate: the challenger's error rate is less than `margin` above the champion's."""
    return verdict_below(tango(b, c, n), margin, n, what="rise of the error rate")


def mcnemar_mid_p(b: int, c: int) -> float:
    """One-sided mid-p of "the challenger is wrong more often": P(X >= b) - P(X = b) / 2."""
    if b + c == 0:
        return 1.0
    return float(bdtrc(b - 1, b + c, 0.5) + bdtrc(b, b + c, 0.5)) / 2


def harmed_slices(slices: Mapping[str, tuple[int, int]]) -> dict[str, float]:
    """Holm-adjusted mid-p per slice, from (b, c); below .05 the slice is harmed."""
    adjusted = holm([mcnemar_mid_p(b, c) for b, c in slices.values()])
    return dict(zip(slices, adjusted.tolist(), strict=True))


def holm(p: ArrayLike) -> Floats:
    """Adjusted p-values, shape (k,): reject where <= level keeps the family's error at level."""
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return _unsorted(np.minimum(steps, 1.0), order)


def benjamini_hochberg(p: ArrayLike) -> Floats:
    """Adjusted p-values, shape (k,): reject where <= level keeps the false discovery rate."""
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    steps = np.minimum.accumulate(scaled[::-1])[::-1]
    return _unsorted(np.minimum(steps, 1.0), order)


# --- any mean ---


def mean_bounds(values: ArrayLike, *, digest: str, tail: float = TAIL) -> Bounds:
    """Bounds of a mean of independent rows by multinomial bootstrap on distinct values.

    Above 4096 distinct values: Wald (the rows are then more than 4096 as well).

    Args:
        values: shape (n,), finite, n > 0; for a difference: loss challenger - loss champion.
        digest: `sha256:...` of the evidence; it seeds the generator, so that bounds can be redone.
        tail: error of each side.
    """
    x = np.asarray(values, dtype=np.float64).ravel()
    if not len(x) or not np.all(np.isfinite(x)):
        raise ValueError("got no rows, or a value that is not finite")
    n, mean = len(x), float(np.mean(x))
    distinct, counts = np.unique(x, return_counts=True)
    if len(distinct) > MOST_DISTINCT:
        half = normal_quantile(tail) * float(np.std(x, ddof=1)) / math.sqrt(n)
        return Bounds(mean, mean - half, mean + half)
    generator, shares = philox(digest), counts / n
    means = np.concatenate(
        [generator.multinomial(n, shares, CHUNK) @ distinct / n for _ in range(REPLICATES // CHUNK)]
    )
    low, high = np.quantile(means, [tail, 1 - tail])
    return Bounds(mean, float(low), float(high))


def mean_difference_verdict(differences: ArrayLike, *, margin: float, digest: str) -> Verdict:
    """Gate: the mean of (loss challenger - loss champion) is below `margin`."""
    x = np.asarray(differences, dtype=np.float64).ravel()
    bounds, n = mean_bounds(x, digest=digest), len(x)
    wide = Bounds(bounds.value, -math.inf, math.inf)
    if n < FEWEST_FOR_A_MEAN:
        return _undecided(wide, margin, n, f"{n} rows, below {FEWEST_FOR_A_MEAN}")
    if np.ptp(x) == 0 and n < FEWEST_WITHOUT_SPREAD:
        # a bootstrap of equal rows has no width, and would pass any margin
        reason = f"no two differences differ on {n} rows, below {FEWEST_WITHOUT_SPREAD}"
        return _undecided(wide, margin, n, reason)
    return verdict_below(bounds, margin, n, what="rise of the loss")


def philox(digest: str) -> np.random.Generator:
    """A generator that anybody can start again from the evidence's digest."""
    seed = int(digest.removeprefix("sha256:"), 16) % 2**128
    return np.random.Generator(np.random.Philox(key=seed))


# --- calibration ---


class Calibration(NamedTuple):
    """Debiased squared calibration error with bounds; mean(y - p) with bounds."""

    squared: Bounds
    gap: Bounds
    n: int


def calibration(y: ArrayLike, p: ArrayLike, *, digest: str, bins: int = 15) -> Calibration:
    """Squared calibration error on bins of equal mass, freed of its bias.

    A raw ECE of a perfect model is .036 on 500 rows; this form has mean 0 at every n. Bounds by
    500 binomial draws per bin, seeded with `digest`.
    """
    truth, score = _truth(y).astype(np.float64), np.asarray(p, dtype=np.float64)
    if len(score) != len(truth) or not len(truth) or not np.all((score >= 0) & (score <= 1)):
        raise ValueError("p must hold one probability per row of y")
    parts = [part for part in np.array_split(np.argsort(score, kind="stable"), bins) if len(part)]
    size = np.array([len(part) for part in parts])
    hit = np.array([truth[part].mean() for part in parts])
    told = np.array([score[part].mean() for part in parts])

    def squared(rates: Floats) -> Floats:
        noise = rates * (1 - rates) / np.maximum(1, size - 1)
        return np.asarray(((rates - told) ** 2 - noise) @ size / size.sum(), dtype=np.float64)

    draws = philox(digest).binomial(size, hit, (CALIBRATION_DRAWS, len(parts))) / size
    error, drawn = float(squared(hit)), squared(draws)
    low, high = np.quantile(drawn, [TAIL, 1 - TAIL]) - drawn.mean() + error
    gaps = truth - score
    half = Z_TAIL * float(np.std(gaps)) / math.sqrt(len(gaps))
    mean = float(gaps.mean())
    return Calibration(
        Bounds(error, float(low), float(high)), Bounds(mean, mean - half, mean + half), len(gaps)
    )


def calibration_verdict(
    y: ArrayLike, p: ArrayLike, *, limit: float, digest: str, bins: int = 15
) -> Verdict:
    """Gate: the calibration error is below `limit`. Its numbers are squared, and so is the limit."""
    found = calibration(y, p, digest=digest, bins=bins)
    if found.n < FEWEST_FOR_CALIBRATION:
        wide = Bounds(found.squared.value, -math.inf, math.inf)
        return _undecided(
            wide, limit * limit, found.n, f"{found.n} rows, below {FEWEST_FOR_CALIBRATION}"
        )
    return verdict_below(found.squared, limit * limit, found.n, what="squared calibration error")


# --- small parts ---


def _truth(y: ArrayLike) -> NDArray[np.bool_]:
    y = np.asarray(y)
    if y.ndim != 1 or not np.all((y == 0) | (y == 1)):
        raise ValueError("y must be one row of 0 and 1")
    return y.astype(bool)


def _cov(rows: Floats) -> Floats:
    """Covariance between rows, 0 for a single column."""
    if rows.shape[1] < 2:
        return np.zeros((len(rows), len(rows)))
    return np.atleast_2d(np.cov(rows))


def _root(variance: float) -> float:
    return math.sqrt(max(float(variance), 0.0))


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _unsorted(values: Floats, order: NDArray[np.intp]) -> Floats:
    found = np.empty_like(values)
    found[order] = values
    return found

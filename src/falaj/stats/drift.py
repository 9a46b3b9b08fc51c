"""Drift of a feature from counts on frozen edges, and CBPE as an indicator.

A window is compared with the reference that lies inside the edges artifact. A violation must be
statistically real *and* practically large; it alerts, it never rolls back by itself: this is a
test per window, without a guarantee over time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from falaj.stats.paired import benjamini_hochberg
from falaj.stats.special import chdtrc, chdtri
from falaj.stats.summaries import (
    Cats,
    Edges,
    Hist,
    Unmergeable,
    Vocabulary,
    bin_counts,
    count_words,
)

__all__ = [
    "BlockNull",
    "Cbpe",
    "Distance",
    "Drift",
    "block_null",
    "cbpe",
    "chi_square",
    "distance",
    "fit_edges",
    "fit_vocabulary",
    "jensen_shannon",
    "judge",
    "kolmogorov_smirnov",
    "merged_cells",
    "psi",
    "psi_null",
]

BINS: Final = 250  # a multiple of 10, so that deciles merge exactly
MOST_ROWS_TO_FIT: Final = 200_000
MOST_WORDS: Final = 50
PSI_BINS: Final = 10
SMALLEST_SHARE: Final = 0.02  # thinner cells are joined before PSI
CLIP: Final = 1e-4
PRACTICAL: Final = 0.10
FEWEST_ROWS: Final = 500
FEWEST_BLOCKS: Final = 8
NULL_TAIL: Final = 0.01
DISCOVERY: Final = 0.05

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


# --- edges and words, fitted once, at training ---


def fit_edges(values: ArrayLike, column: str, *, null: int = 0, bins: int = BINS) -> Edges:
    """Cut a column at its quantiles and count the whole reference on them.

    values: shape (n,), NaN allowed, missing values left out and told as `null`. Quantiles are data
    values, from at most 200 k rows evenly spread over the reference. A value with more than
    1 / `bins` of the mass gets a bin of its own. A column without numbers has one bin.
    """
    array = np.asarray(values)
    x = array.astype(np.float64).ravel()
    known = x[~np.isnan(x)]
    if len(known) > MOST_ROWS_TO_FIT:
        known = known[np.linspace(0, len(known) - 1, MOST_ROWS_TO_FIT).astype(np.int64)]
    cuts = _cuts(np.sort(known), bins)
    counts, nan = bin_counts(x, cuts)
    return Edges(
        column=column,
        dtype=str(array.dtype),
        edges=tuple(cuts.tolist()),
        reference=tuple(counts.tolist()),
        nan=nan,
        null=null,
    )


def fit_vocabulary(
    values: Iterable[str | None], column: str, *, most: int = MOST_WORDS
) -> Vocabulary:
    """Keep the `most` frequent words (ties in code point order); the rest is `other`."""
    rows = list(values)
    distinct = tuple(sorted({one for one in rows if one is not None}))
    counts, _, null = count_words(rows, distinct)
    ranked = sorted(zip(distinct, counts, strict=True), key=lambda pair: (-pair[1], pair[0]))
    kept = ranked[:most]
    return Vocabulary(
        column=column,
        words=tuple(word for word, _ in kept),
        reference=tuple(count for _, count in kept),
        other=sum(count for _, count in ranked[most:]),
        null=null,
    )


def _cuts(ordered: Floats, bins: int) -> Floats:
    n = len(ordered)
    if not n:
        return np.empty(0)
    # the smallest value with at least i/bins of the rows at or below it
    places = np.array([-(-n * i // bins) - 1 for i in range(1, bins)])
    quantiles = ordered[np.maximum(places, 0)]
    distinct, counts = np.unique(ordered, return_counts=True)
    atoms = distinct[counts * bins > n]
    found: Floats = np.unique(np.concatenate([quantiles, atoms, np.nextafter(atoms, -np.inf)]))
    return found[np.isfinite(found)]


# --- distances ---


class Distance(NamedTuple):
    """How far a window lies from the reference; all 0 for equal shares.

    psi (on `bins` merged cells) and js in nats. ks: largest gap of the distribution functions on
    all bins, NaN for words. chi2: on the merged cells. n, m: rows of window and reference.
    edges: digest of edges or vocabulary; a PSI without it means nothing.
    """

    psi: float
    bins: int
    ks: float
    js: float
    chi2: float
    n: int
    m: int
    edges: str


def distance(reference: Hist | Cats, window: Hist | Cats) -> Distance:
    """Raises Unmergeable when the two were not counted on the same edges or words."""
    if isinstance(reference, Hist) and isinstance(window, Hist):
        same = reference.edges == window.edges
        cells, everything = _hist_cells(reference, window)
        ks = kolmogorov_smirnov(reference.counts, window.counts)
        return _distance(same, reference.edges, ks, cells, everything)
    if isinstance(reference, Cats) and isinstance(window, Cats):
        same = reference.vocabulary == window.vocabulary
        return _distance(same, reference.vocabulary, math.nan, *_cat_cells(reference, window))
    raise Unmergeable("a histogram and words cannot be compared")


def psi(reference: ArrayLike, window: ArrayLike) -> float:
    """Population stability index of two rows of counts, in nats; shares clipped at 1e-4."""
    p, q = (np.maximum(_shares(one), CLIP) for one in (reference, window))
    return float(np.sum((p - q) * np.log(p / q)))


def psi_null(bins: int, n: int, m: int, tail: float = NULL_TAIL) -> float:
    """The PSI that two samples of one law exceed with probability `tail`."""
    return float(chdtri(bins - 1, tail)) * (1 / n + 1 / m) if bins > 1 else 0.0


def kolmogorov_smirnov(reference: ArrayLike, window: ArrayLike) -> float:
    """Largest gap between two distribution functions at the edges; NaN for an empty side.

    At most the mass of the largest bin below the exact one.
    """
    if not np.sum(reference) or not np.sum(window):
        return math.nan
    gap = np.cumsum(_shares(reference)) - np.cumsum(_shares(window))
    return float(np.max(np.abs(gap)))


def jensen_shannon(reference: ArrayLike, window: ArrayLike) -> float:
    """Jensen-Shannon divergence of two rows of counts, in nats, 0 to ln 2."""
    p, q = _shares(reference), _shares(window)
    middle = (p + q) / 2
    return max(0.0, (_kl(p, middle) + _kl(q, middle)) / 2)


def chi_square(reference: ArrayLike, window: ArrayLike) -> float:
    """Two-sample chi-square statistic of two rows of counts; cells empty in both are left out."""
    a, b = np.asarray(reference, np.float64), np.asarray(window, np.float64)
    total = a + b
    a, b, total = a[total > 0], b[total > 0], total[total > 0]
    if not a.sum() or not b.sum():
        return math.nan
    scale = math.sqrt(b.sum() / a.sum())
    return float(np.sum((a * scale - b / scale) ** 2 / total))


def merged_cells(reference: ArrayLike) -> list[tuple[int, int]]:
    """Runs [start, stop) of bins, ~10 of equal reference mass; big atoms stand alone.

    It looks at the reference only. Cells below 2 % of the mass are joined with a neighbour.
    """
    counts = np.asarray(reference, np.int64)
    total = int(counts.sum())
    if not total:
        return [(0, len(counts))]
    sums = np.concatenate([[0], np.cumsum(counts)])
    cuts = {int(np.argmin(np.abs(sums * PSI_BINS - total * j))) for j in range(1, PSI_BINS)}
    big = np.flatnonzero(counts * PSI_BINS >= total)
    cuts |= set(big.tolist()) | set((big + 1).tolist())
    bounds = sorted(cuts | {0, len(counts)})
    while len(bounds) > 2:
        shares = np.diff(sums[bounds]) / total
        thin = int(np.argmin(shares))
        if shares[thin] >= SMALLEST_SHARE:
            break
        left = shares[thin - 1] if thin > 0 else math.inf
        right = shares[thin + 1] if thin + 1 < len(shares) else math.inf
        del bounds[thin if left <= right else thin + 1]
    return list(pairwise(bounds))


def _distance(
    same: bool, edges: str, ks: float, cells: tuple[Ints, Ints], everything: tuple[Ints, Ints]
) -> Distance:
    if not same:
        raise Unmergeable("window and reference were not counted on the same edges")
    a, b = cells
    if not a.sum() or not b.sum():
        nan = math.nan
        return Distance(nan, len(a), nan, nan, nan, int(b.sum()), int(a.sum()), edges)
    return Distance(
        psi=psi(a, b),
        bins=len(a),
        ks=ks,
        js=jensen_shannon(*everything),
        chi2=chi_square(a, b),
        n=int(b.sum()),
        m=int(a.sum()),
        edges=edges,
    )


def _hist_cells(a: Hist, b: Hist) -> tuple[tuple[Ints, Ints], tuple[Ints, Ints]]:
    """Merged cells and all cells of two histograms; null and NaN are one more cell."""
    if len(a.counts) != len(b.counts):
        raise Unmergeable("window and reference have a different number of bins")
    starts = [start for start, _ in merged_cells(a.counts)]
    missing = (a.nan + a.null, b.nan + b.null)
    merged = [np.add.reduceat(np.array(one.counts, np.int64), starts) for one in (a, b)]
    whole = [np.array(one.counts, np.int64) for one in (a, b)]
    return _with_cell(merged, missing), _with_cell(whole, missing)


def _cat_cells(a: Cats, b: Cats) -> tuple[tuple[Ints, Ints], tuple[Ints, Ints]]:
    """Merged cells and all cells of two word counts; rare words are merged into `other`."""
    if len(a.counts) != len(b.counts):
        raise Unmergeable("window and reference have a different number of words")
    common = [count >= SMALLEST_SHARE * a.n for count in a.counts]
    merged, rare = [], []
    for one in (a, b):
        counts = np.array(one.counts, np.int64)
        keep = np.array(common, dtype=bool)
        merged.append(counts[keep])
        rare.append(int(counts[~keep].sum()) + one.other)
    whole = [np.array([*one.counts, one.other], np.int64) for one in (a, b)]
    missing = (a.null, b.null)
    joined = _with_cell(list(_with_cell(merged, (rare[0], rare[1]))), missing)
    return joined, _with_cell(whole, missing)


def _with_cell(rows: list[Ints], cell: tuple[int, int]) -> tuple[Ints, Ints]:
    """Append one cell to both rows, unless it is empty in both."""
    if not any(cell):
        return rows[0], rows[1]
    return np.append(rows[0], cell[0]), np.append(rows[1], cell[1])


def _shares(counts: ArrayLike) -> Floats:
    found = np.asarray(counts, np.float64)
    return found / max(float(found.sum()), 1.0)


def _kl(p: Floats, q: Floats) -> float:
    some = p > 0
    return float(np.sum(p[some] * np.log(p[some] / q[some])))


# --- the rule ---


class BlockNull(NamedTuple):
    """What PSI the reference reaches by itself, block to block. known=False: too few blocks."""

    psi: float
    blocks: int
    known: bool


class Drift(NamedTuple):
    """`violation`, `none` or `inconclusive` for one feature in one window, with its numbers.

    psi_null: what no drift exceeds in 1 %. p, p_adjusted: of no drift (NaN when inconclusive).
    practical: the limit of size.
    """

    feature: str
    verdict: str
    distance: Distance
    psi_null: float
    p: float
    p_adjusted: float
    practical: float
    reason: str


def block_null(blocks: Sequence[Hist | Cats]) -> BlockNull:
    """95 % quantile of PSI between neighbouring blocks (weeks) of the reference, in their order.

    Rows are not independent, so the chi-square null alone would be too narrow.
    """
    if len(blocks) < FEWEST_BLOCKS:
        return BlockNull(math.nan, len(blocks), known=False)
    found = [distance(one, two).psi for one, two in pairwise(blocks)]
    return BlockNull(float(np.nanquantile(found, 0.95)), len(blocks), known=True)


def judge(
    distances: Mapping[str, Distance], blocks: Mapping[str, BlockNull] | None = None
) -> dict[str, Drift]:
    """All features of one window.

    1. Fewer than 500 rows in window or reference: inconclusive.
    2. Violation if PSI is above its null quantile, its p survives Benjamini and Hochberg at .05
       over the features of the window, and PSI is at least max(.10, the reference's own blocks).
    3. Else none.
    """
    ripe = [name for name, one in distances.items() if min(one.n, one.m) >= FEWEST_ROWS]
    p = {name: _p_value(distances[name]) for name in ripe}
    adjusted = dict(zip(ripe, benjamini_hochberg(list(p.values())).tolist(), strict=True))
    found: dict[str, Drift] = {}
    for name, one in distances.items():
        block = (blocks or {}).get(name, BlockNull(math.nan, 0, known=False))
        practical = max(PRACTICAL, block.psi) if block.known else PRACTICAL
        if name not in adjusted:
            reason = f"{one.n} rows against {one.m}: fewer than {FEWEST_ROWS} say nothing"
            nan = math.nan
            found[name] = Drift(name, "inconclusive", one, nan, nan, nan, practical, reason)
            continue
        null = psi_null(one.bins, one.n, one.m)
        real = one.psi > null and adjusted[name] <= DISCOVERY
        verdict = "violation" if real and one.psi >= practical else "none"
        reason = _reason(one, null, adjusted[name], practical, block)
        found[name] = Drift(name, verdict, one, null, p[name], adjusted[name], practical, reason)
    return found


def _p_value(one: Distance) -> float:
    if one.bins < 2:
        return 1.0
    return float(chdtrc(one.bins - 1, one.psi / (1 / one.n + 1 / one.m)))


def _reason(one: Distance, null: float, p: float, practical: float, block: BlockNull) -> str:
    own = (
        f"the reference's own {block.blocks} blocks"
        if block.known
        else f"only {block.blocks} reference blocks, so the plain limit"
    )
    return (
        f"PSI {one.psi:.4f} on {one.bins} cells, {one.n} rows against {one.m}; without drift below "
        f"{null:.4f}, adjusted p {p:.3g}; large from {practical:.4f} ({own})"
    )


# --- an indicator ---


class Cbpe(NamedTuple):
    """Expected performance, valid only if p(y|x) has not changed; never a gate or a trigger."""

    accuracy: float
    auc: float
    caveat: str = "valid only if p(y|x) has not changed"


def cbpe(counts: ArrayLike, calibrated: ArrayLike, *, threshold_bin: int) -> Cbpe:
    """Confidence-based performance estimate from a score histogram.

    counts: shape (B,), rising score bins. calibrated: shape (B,), P(y = 1) of each bin by the map
    fitted on the last holdout. threshold_bin: bins from here on are predicted 1.
    """
    h, c = np.asarray(counts, np.float64), np.asarray(calibrated, np.float64)
    if h.shape != c.shape or not np.all((c >= 0) & (c <= 1)):
        raise ValueError("calibrated must hold one probability per bin")
    n = h.sum()
    if not n:
        return Cbpe(math.nan, math.nan)
    right = np.where(np.arange(len(h)) >= threshold_bin, c, 1 - c)
    positive, negative = h * c, h * (1 - c)
    below = np.cumsum(negative) - negative / 2
    pairs = positive.sum() * negative.sum()
    auc = float((positive * below).sum() / pairs) if pairs else math.nan
    return Cbpe(float((h * right).sum() / n), auc)

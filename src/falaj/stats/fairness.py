"""Bias gates from a cube of counts: group x y x yhat.

Every group is compared with one *named* reference group (default: the largest): the best group,
or the widest gap, would be biased by chance. Ratios use score bounds, differences Newcombe's.
A group with fewer than 30 rows in its denominator is "not assessable", never merged silently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from falaj.stats.intervals import (
    Bounds,
    newcombe,
    normal_quantile,
    root_of_falling,
    score_ratio,
    score_ratio_z,
)
from falaj.stats.paired import holm
from falaj.stats.special import ndtr
from falaj.stats.summaries import Axes, Cube, Unmergeable, digest

__all__ = [
    "FEWEST_ROWS",
    "BiasVerdict",
    "GroupRate",
    "axes_of",
    "calibration_gaps",
    "cells",
    "count_cube",
    "crossed",
    "difference_gate",
    "group_rates",
    "ratio_gate",
]

FEWEST_ROWS: Final = 30
TAIL: Final = 0.05
RATES: Final = ("selection", "tpr", "fpr")

Ints = NDArray[np.int64]


class GroupRate(NamedTuple):
    """One group against the reference.

    hits of rows: the rate's counts. bounds: ratio to (or difference from) the reference's rate.
    p: of "the limit holds"; p_holm: adjusted over all compared groups; NaN when not assessable.
    verdict: pass, fail, inconclusive, "not assessable" or "reference".
    """

    group: str
    hits: int
    rows: int
    bounds: Bounds
    p: float
    p_holm: float
    verdict: str


class BiasVerdict(NamedTuple):
    """`pass`, `fail` or `inconclusive` over all groups, with the row of every group."""

    verdict: str
    rate: str
    limit: float
    reference: str
    groups: tuple[GroupRate, ...]
    reason: str

    def __bool__(self) -> bool:
        raise TypeError("a gate has more than two verdicts; ask .verdict")


def axes_of(groups: Sequence[str]) -> Axes:
    """Axes of the cube group x y x yhat."""
    return Axes(names=("group", "y", "yhat"), values=(tuple(groups), ("0", "1"), ("0", "1")))


def crossed(first: Iterable[str], second: Iterable[str]) -> list[str]:
    """Labels of a two-way intersection, `a|b`."""
    return [f"{a}|{b}" for a, b in zip(first, second, strict=True)]


def count_cube(group: Sequence[str], y: ArrayLike, yhat: ArrayLike, axes: Axes) -> Cube:
    """Count rows; y and yhat are 0 or 1, shape (n,). Raises ValueError on an unknown group."""
    truth, told = _binary("y", y, len(group)), _binary("yhat", yhat, len(group))
    place = {name: index for index, name in enumerate(axes.values[0])}
    unknown = sorted(set(group) - set(place))
    if unknown:
        raise ValueError(f"got groups {unknown}, expected some of {list(place)}")
    index = np.array([place[name] for name in group], dtype=np.int64) * 4 + truth * 2 + told
    return axes.cube(np.bincount(index, minlength=4 * len(place)))


def cells(cube: Cube, axes: Axes) -> Ints:
    """The counts, in the shape of the axes. Raises Unmergeable when they are of other axes."""
    if cube.axes != digest(axes):
        raise Unmergeable("the cube was not counted on these axes")
    return np.array(cube.counts, dtype=np.int64).reshape(axes.shape)


def group_rates(counts: ArrayLike, rate: str) -> tuple[Ints, Ints]:
    """Hits and rows per group, shape (G,) each.

    counts: shape (G, 2, 2), y before yhat. rate: selection (share of yhat = 1), tpr (among y = 1)
    or fpr (among y = 0).
    """
    table = np.asarray(counts, dtype=np.int64)
    if rate not in RATES:
        raise ValueError(f"got rate {rate!r}, expected one of {', '.join(RATES)}")
    if rate != "selection":
        table = table[:, [1 if rate == "tpr" else 0], :]
    return table[:, :, 1].sum(axis=1), table.sum(axis=(1, 2))


def ratio_gate(
    cube: Cube,
    axes: Axes,
    rate: str = "selection",
    *,
    at_least: float = 0.80,
    reference: str | None = None,
    small_groups: str = "inconclusive",
) -> BiasVerdict:
    """Gate: each group's rate is at least `at_least` times the reference's (four-fifths rule).

    1. Fail if a group's Holm-adjusted p of "ratio >= limit" is below .05.
    2. Pass if every lower bound reaches the limit; no correction, since all must hold.
    3. Else inconclusive; also at best inconclusive while a group is not assessable, unless
       `small_groups` is "report".
    """

    def judge(a: int, n: int, b: int, m: int) -> Judged:
        bounds = score_ratio(a, n, b, m, tail=TAIL)
        p = float(ndtr(score_ratio_z(at_least, a, n, b, m)))
        return Judged(bounds, p, bounds.low >= at_least)

    groups = _compared(cells(cube, axes), axes.values[0], rate, reference, judge, neutral=1.0)
    return _overall(groups, rate, at_least, small_groups, "ratio")


def difference_gate(
    cube: Cube,
    axes: Axes,
    rate: str = "tpr",
    *,
    at_most: float = 0.10,
    reference: str | None = None,
    small_groups: str = "inconclusive",
) -> BiasVerdict:
    """Gate: each group's rate lies within +-`at_most` of the reference's.

    Same rules as `ratio_gate`; p is the tail at which Newcombe's bound leaves the limit.
    """

    def judge(a: int, n: int, b: int, m: int) -> Judged:
        bounds = newcombe(a, n, b, m, tail=TAIL)
        holds = bounds.low >= -at_most and bounds.high <= at_most
        return Judged(bounds, _newcombe_p(a, n, b, m, at_most), holds)

    groups = _compared(cells(cube, axes), axes.values[0], rate, reference, judge, neutral=0.0)
    return _overall(groups, rate, at_most, small_groups, "difference")


def calibration_gaps(
    counts: ArrayLike, centres: ArrayLike, groups: Sequence[str], *, tail: float = 0.025
) -> dict[str, Bounds]:
    """Calibration in the large: mean(y) - mean(score) per group, with Wald bounds.

    counts: shape (G, 2, B), y before score bin. centres: shape (B,), mean score of each bin.
    Groups of fewer than 30 rows get bounds -1 .. 1.
    """
    table, middle = np.asarray(counts, np.float64), np.asarray(centres, np.float64)
    errors = np.array([0.0, 1.0])[:, None] - middle
    found: dict[str, Bounds] = {}
    for name, one in zip(groups, table, strict=True):
        n = one.sum()
        mean = float((one * errors).sum() / n) if n else math.nan
        if n < FEWEST_ROWS:
            found[name] = Bounds(mean, -1.0, 1.0)
            continue
        spread = float((one * (errors - mean) ** 2).sum() / (n - 1))
        half = normal_quantile(tail) * math.sqrt(spread / float(n))
        found[name] = Bounds(mean, mean - half, mean + half)
    return found


# --- small parts ---


class Judged(NamedTuple):
    """Bounds of one comparison, p of "the limit holds", and whether the bounds prove it."""

    bounds: Bounds
    p: float
    holds: bool


def _compared(
    counts: Ints,
    names: Sequence[str],
    rate: str,
    reference: str | None,
    judge: Callable[[int, int, int, int], Judged],
    *,
    neutral: float,
) -> tuple[GroupRate, ...]:
    """The reference first, then the other groups in their order."""
    hits, rows = (one.tolist() for one in group_rates(counts, rate))
    sizes = counts.sum(axis=(1, 2)).tolist()
    reference = names[sizes.index(max(sizes))] if reference is None else reference
    if reference not in names:
        raise ValueError(f"got reference {reference!r}, expected one of {list(names)}")
    base = list(names).index(reference)
    others = [i for i in range(len(names)) if i != base]
    ripe = [i for i in others if min(rows[i], rows[base]) >= FEWEST_ROWS]
    judged = {i: judge(hits[i], rows[i], hits[base], rows[base]) for i in others if rows[i]}
    # groups too small to judge stay in the family: its size must not depend on the counts
    family = holm([judged[i].p if i in ripe else 1.0 for i in others])
    adjusted = {i: p for i, p in zip(others, family.tolist(), strict=True) if i in ripe}
    own = Bounds(neutral, neutral, neutral)
    found = [GroupRate(reference, hits[base], rows[base], own, math.nan, math.nan, "reference")]
    for i in others:
        one = judged.get(i, Judged(Bounds(math.nan, -math.inf, math.inf), math.nan, False))
        p = adjusted.get(i)
        if p is None:
            row = (one.bounds, math.nan, math.nan, "not assessable")
        elif p < TAIL:
            row = (one.bounds, one.p, p, "fail")
        else:
            row = (one.bounds, one.p, p, "pass" if one.holds else "inconclusive")
        found.append(GroupRate(names[i], hits[i], rows[i], *row))
    return tuple(found)


def _overall(
    groups: tuple[GroupRate, ...], rate: str, limit: float, small_groups: str, kind: str
) -> BiasVerdict:
    if small_groups not in {"inconclusive", "report"}:
        raise ValueError(f"got small_groups {small_groups!r}, expected inconclusive or report")
    seen = {one.verdict for one in groups[1:]}
    small = "not assessable" in seen and small_groups != "report"
    if "fail" in seen:
        verdict = "fail"
    elif "inconclusive" in seen or small:
        verdict = "inconclusive"
    else:
        verdict = "pass"
    told = "; ".join(_sentence(one) for one in groups[1:]) or "no other group"
    reason = f"{rate} {kind} to {groups[0].group!r}, limit {limit:g}: {told}"
    return BiasVerdict(verdict, rate, limit, groups[0].group, groups, reason)


def _sentence(one: GroupRate) -> str:
    value, low, high = one.bounds
    text = f"{one.group} {one.hits}/{one.rows} {value:.4f} [{low:.4f}, {high:.4f}]"
    if one.verdict == "not assessable":
        return f"{text} not assessable, below {FEWEST_ROWS} rows here or in the reference"
    return f"{text} {one.verdict} (p {one.p:.4f}, Holm {one.p_holm:.4f})"


def _newcombe_p(a: int, n: int, b: int, m: int, limit: float) -> float:
    """The largest tail at which Newcombe's interval lies outside +-limit; 1 when inside."""
    if abs(a / n - b / m) <= limit:
        return 1.0

    def outside(z: float) -> float:
        bounds = newcombe(a, n, b, m, tail=float(ndtr(-z)))
        return max(bounds.low - limit, -limit - bounds.high)

    return float(ndtr(-root_of_falling(outside, 0.0, 37.0)))


def _binary(name: str, values: ArrayLike, n: int) -> Ints:
    found = np.asarray(values)
    if found.shape != (n,) or not np.all((found == 0) | (found == 1)):
        raise ValueError(f"{name} must hold {n} values of 0 and 1")
    return found.astype(np.int64)

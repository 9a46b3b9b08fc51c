"""Bounds for proportions, their ratio and their difference. `tail` is the error of each side.

Sources: Wilson 1927; Clopper and Pearson 1934; Newcombe 1998 (method 10); Koopman 1984 with the
variance of Miettinen and Nurminen 1985.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from falaj.stats.special import bdtr, bdtrc, ndtri

__all__ = [
    "Bounds",
    "clopper_pearson",
    "newcombe",
    "normal_quantile",
    "root_of_falling",
    "score_ratio",
    "score_ratio_z",
    "wilson",
]


class Bounds(NamedTuple):
    """A value between its two one-sided bounds."""

    value: float
    low: float
    high: float


def normal_quantile(tail: float) -> float:
    """The z that a standard normal exceeds with probability `tail`."""
    return -float(ndtri(tail))


def wilson(x: int, n: int, *, tail: float = 0.025) -> Bounds:
    """Score interval of one proportion; n = 0 gives NaN between 0 and 1."""
    _check(x, n)
    if n == 0:
        return Bounds(math.nan, 0.0, 1.0)
    z, rate = normal_quantile(tail), x / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = 0.0 if x == 0 else centre - half
    high = 1.0 if x == n else centre + half
    return Bounds(rate, low, high)


def clopper_pearson(x: int, n: int, *, tail: float = 0.025) -> Bounds:
    """Exact interval of one proportion; n = 0 gives NaN between 0 and 1."""
    _check(x, n)
    if n == 0:
        return Bounds(math.nan, 0.0, 1.0)
    low = high = 0.0
    if x > 0:
        low = root_of_falling(lambda p: tail - float(bdtrc(x - 1, n, p)), 0.0, x / n)
    if x < n:
        high = root_of_falling(lambda p: float(bdtr(x, n, p)) - tail, x / n, 1.0)
    return Bounds(x / n, low, high if x < n else 1.0)


def newcombe(a: int, n: int, b: int, m: int, *, tail: float = 0.025) -> Bounds:
    """Interval of a/n - b/m from the two Wilson intervals; n or m = 0 gives NaN in -1 .. 1."""
    one, two = wilson(a, n, tail=tail), wilson(b, m, tail=tail)
    if n == 0 or m == 0:
        return Bounds(math.nan, -1.0, 1.0)
    gap = one.value - two.value
    below = math.hypot(one.value - one.low, two.high - two.value)
    above = math.hypot(one.high - one.value, two.value - two.low)
    return Bounds(gap, gap - below, gap + above)


def score_ratio_z(ratio: float, a: int, n: int, b: int, m: int) -> float:
    """Score statistic of "(a/n) / (b/m) = ratio", falling in `ratio`; n, m and ratio above 0."""
    total = n + m
    linear = n * ratio + a + m + b * ratio
    # the smaller root of N R q^2 - linear q + (a + b) = 0, without cancellation
    root = math.sqrt(max(linear * linear - 4 * total * ratio * (a + b), 0.0))
    q = min(2 * (a + b) / (linear + root), 1.0)
    p = min(ratio * q, 1.0)
    variance = total / (total - 1) * (p * (1 - p) / n + ratio * ratio * q * (1 - q) / m)
    gap = a / n - ratio * b / m
    if variance <= 0:
        return math.copysign(math.inf, gap) if gap else 0.0
    return gap / math.sqrt(variance)


def score_ratio(a: int, n: int, b: int, m: int, *, tail: float = 0.05) -> Bounds:
    """Bounds of the ratio of rates (a/n) / (b/m); an empty denominator gives NaN in 0 .. inf."""
    _check(a, n)
    _check(b, m)
    if n == 0 or m == 0:
        return Bounds(math.nan, 0.0, math.inf)
    value = (a / n) / (b / m) if b else (math.inf if a else math.nan)
    z = normal_quantile(tail)

    def bound(target: float) -> float:
        def z_at(log_ratio: float) -> float:
            return score_ratio_z(math.exp(log_ratio), a, n, b, m) - target

        return math.exp(root_of_falling(z_at, -50.0, 50.0))

    low = 0.0 if a == 0 else bound(z)
    high = math.inf if b == 0 else bound(-z)
    return Bounds(value, low, high)


def root_of_falling(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function crosses 0 in [low, high], by bisection to the last bits."""
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle in {low, high}:
            break
        if function(middle) > 0:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def _check(x: int, n: int) -> None:
    if not 0 <= x <= n:
        raise ValueError(f"got {x} of {n}, expected 0 <= x <= n")

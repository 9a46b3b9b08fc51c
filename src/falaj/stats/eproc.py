"""E-processes on 2x2 tables: evidence that may be read at every moment.

Given the totals of one stratum, the canary's bad events x_c are hypergeometric whatever the base
rate of that minute; a likelihood ratio in that law is an e-value, and the product over strata is
a test martingale. `State` holds these products for one metric on a small grid of odds ratios.

All numbers named `log_e` are natural logarithms; a mixture is the plain mean of e-values.
Sources: Robbins 1970; Howard, Ramdas, McAuliffe and Sekhon 2021; Lindon and Malek 2022;
Hoeffding 1963 for the fast form.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from falaj.stats.special import log_beta, log_gamma, logsumexp
from falaj.stats.summaries import Counts2x2, Pairs, Stratum

__all__ = [
    "ASSUMED_PHI",
    "BLOCK_MINUTES",
    "GRID",
    "TWO_SIDED_GRID",
    "Dispersion",
    "OddsRatio",
    "Plan",
    "Srm",
    "State",
    "TwoSided",
    "aa_halves",
    "dispersion",
    "fast_log_increment",
    "log_increment",
    "log_likelihood",
    "mixture",
    "odds_ratio_interval",
    "paired_log_increment",
    "plan_promotion",
    "plan_rollback",
    "promotion_grid",
    "replay",
    "slo_log_increment",
    "srm_log_e",
    "start",
    "step_metric",
    "step_pairs",
    "step_srm",
    "two_sided",
    "usual_log_increment",
]

Floats = NDArray[np.float64]
Phi = float | Mapping[int, float]

GRID: Final[Floats] = np.array([1.1, 1.25, 1.6, 2.5, 5.0, 15.0])
TWO_SIDED_GRID: Final[Floats] = np.concatenate([1 / GRID[::-1], GRID])
ASSUMED_PHI: Final = 2.0
FAST_UP_TO: Final = 1 / 20  # share of the smallest margin, up to which the fast form loses little
SRM_PRIOR: Final = 1000.0
BLOCK_MINUTES: Final = 360
DISPERSION_Z: Final = 2.33


# --- increments ---


def log_likelihood(x_c: int, n_c: int, x_s: int, n_s: int, odds: ArrayLike) -> Floats:
    """Log likelihood of odds ratios given the table's totals (Fisher's noncentral hypergeometric).

    Up to a constant of the table, so only differences mean something. All zero where the totals
    leave nothing to learn. Terms further than 21 standard deviations from the mode are left out
    (error below 1e-9).

    odds: shape (p,), odds ratios canary against stable, above 0.
    """
    odds = np.atleast_1d(np.asarray(odds, dtype=np.float64))
    k, total = x_c + x_s, n_c + n_s
    low, high = max(0, k - n_s), min(n_c, k)
    if high <= low:
        return np.zeros(len(odds))  # the totals leave nothing to learn
    c, b = (k + 1.0) * (n_c + 1) * odds, (k + n_c + 2) * odds + (n_s - k)
    mode = np.floor(2 * c / (b + np.sqrt(np.maximum(b * b - 4 * (odds - 1) * c, 0))))
    spread = k * n_c * n_s * (total - k) / (total * total * max(total - 1.0, 1.0))
    half = int(21 * math.sqrt(max(1.0, spread))) + 30
    first = np.clip(mode - half, low, high).astype(np.int64)
    last = np.clip(mode + half, low, high).astype(np.int64)

    def log_z(some: Floats, i: int, j: int) -> Floats:
        """Sum over x in i .. j of C(n_c, x) C(n_s, k - x) odds^(x - x_c), relative to x = i."""
        x = np.arange(i + 1, j + 1, dtype=np.float64)
        ratio = (n_c - x + 1) * (k - x + 1) / (x * (n_s - k + x))
        w = np.concatenate(([0.0], np.cumsum(np.log(ratio))))
        powers = np.arange(i - x_c, j - x_c + 1, dtype=np.float64)
        return logsumexp(w + np.outer(np.log(some), powers))

    if last.max() - first.min() <= (last - first).sum():
        return -log_z(odds, int(first.min()), int(last.max()))
    parts = zip(odds, first.tolist(), last.tolist(), strict=True)
    found = [log_z(np.array([o]), i, j)[0] for o, i, j in parts]
    anchor = first.astype(np.float64)
    weight = sum(
        log_gamma(side + 1) for side in (anchor, n_c - anchor, k - anchor, n_s - k + anchor)
    )
    return np.asarray(weight - np.array(found), dtype=np.float64)


def log_increment(
    x_c: int, n_c: int, x_s: int, n_s: int, psi: ArrayLike = GRID, psi0: float = 1.0
) -> Floats:
    """Exact log e-value of one stratum for alternatives `psi` against the boundary `psi0`.

    Its expectation under odds ratio psi0 is exactly 1 and is below 1 inside the null: psi > psi0
    tests "at most psi0", psi < psi0 tests "at least psi0".
    """
    odds = np.append(np.atleast_1d(np.asarray(psi, dtype=np.float64)), psi0)
    found: Floats = log_likelihood(x_c, n_c, x_s, n_s, odds)
    return found[:-1] - found[-1:]


def fast_log_increment(x_c: int, n_c: int, x_s: int, n_s: int, psi: ArrayLike = GRID) -> Floats:
    """Binomial form for psi0 = 1 and psi > 1; its expectation is at most 1 (Hoeffding 1963).

    It takes the smallest margin as the number of draws and loses about d/N of the growth.
    """
    psi = np.atleast_1d(np.asarray(psi, dtype=np.float64))
    k, total = x_c + x_s, n_c + n_s
    if total == 0:
        return np.zeros(len(psi))
    up, down = psi - 1, 1 / psi - 1
    smallest = min(k, n_c, total - k, n_s)
    if smallest == k:
        gain, draws, step = x_c, k, n_c / total * up
    elif smallest == n_c:
        gain, draws, step = x_c, n_c, k / total * up
    elif smallest == total - k:
        gain, draws, step = x_c - n_c, total - k, n_c / total * down
    else:
        gain, draws, step = x_c - k, n_s, k / total * down
    found: Floats = gain * np.log(psi) - draws * np.log1p(step)
    return found


def usual_log_increment(
    x_c: int, n_c: int, x_s: int, n_s: int, psi: ArrayLike = GRID, psi0: float = 1.0
) -> Floats:
    """The fast form where it loses little and is valid, else the exact one.

    The choice looks at n_c, n_s and k only: a choice that saw x_c would not be fair.
    """
    if psi0 == 1.0 and _is_fast(n_c, n_s, x_c + x_s):
        return fast_log_increment(x_c, n_c, x_s, n_s, psi)
    return log_increment(x_c, n_c, x_s, n_s, psi, psi0)


def paired_log_increment(b: int, c: int, psi: ArrayLike = GRID, psi0: float = 1.0) -> Floats:
    """Log e-value of discordant pairs: b challenger wrong alone, c champion wrong alone.

    b is Binomial(b + c, theta) with theta = psi / (1 + psi).
    """
    psi = np.atleast_1d(np.asarray(psi, dtype=np.float64))
    found: Floats = b * np.log(psi / psi0) - (b + c) * (np.log1p(psi) - math.log1p(psi0))
    return found


def slo_log_increment(x: int, n: int, slo: float, factors: ArrayLike = GRID) -> Floats:
    """Log e-value of one arm against an absolute rate `slo`.

    Alternatives have `factors` times the odds of the SLO: factors above 1 test "never above the
    SLO", factors below 1 test "never below the SLO". Rates may move, as long as the null holds in
    every stratum.
    """
    factors = np.atleast_1d(np.asarray(factors, dtype=np.float64))
    odds = slo / (1 - slo)
    found: Floats = x * np.log(factors) - n * (np.log1p(odds * factors) - math.log1p(odds))
    return found


def mixture(log_e: ArrayLike) -> float:
    """Log of the mean of e-values, shape (p,)."""
    log_e = np.asarray(log_e, dtype=np.float64)
    return float(logsumexp(log_e)) - math.log(len(log_e))


# --- the state of one metric ---


def promotion_grid(margin: float) -> Floats:
    """Alternatives of the promotion e-process, all below the margin."""
    return np.array([0.5, 0.8, 0.9, 1.0, 1 + (margin - 1) / 2])


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Evidence on one metric and threshold, over the whole rollout; never reset.

    tolerate: odds ratio that counts as "no worse" (null of rollback: at most this).
    margin: promotion proves that the odds ratio is below this, above `tolerate`.
    slo: absolute limit of the rate of bad events, or None.
    rollback, promote, guard_c, guard_s, below: log e per grid point. `guard_*` test "rate of this
    arm is never above the SLO", `below` tests "the canary's rate is never below the SLO".
    peak: largest `log_e` seen. last: the newest stratum. numpy: the version that did the sums.
    """

    metric: str
    tolerate: float
    margin: float
    slo: float | None
    rollback: tuple[float, ...]
    promote: tuple[float, ...]
    guard_c: tuple[float, ...]
    guard_s: tuple[float, ...]
    below: tuple[float, ...]
    peak: float = 0.0
    n_c: int = 0
    x_c: int = 0
    n_s: int = 0
    x_s: int = 0
    strata: int = 0
    last: Stratum | None = None
    numpy: str = np.__version__

    @property
    def log_e(self) -> float:
        """Evidence for "worse than tolerated"."""
        return mixture(self.rollback)

    @property
    def log_e_margin(self) -> float:
        """Evidence for "odds ratio below the margin"."""
        return mixture(self.promote)

    @property
    def log_e_better(self) -> float:
        """Evidence for "odds ratio below 1": alternatives .5, .8, .9 against 1, same sums."""
        return mixture([one - self.promote[3] for one in self.promote[:3]])

    @property
    def log_e_below_slo(self) -> float | None:
        """Evidence for "the canary's rate is below the SLO"; None without an SLO."""
        return None if self.slo is None else mixture(self.below)

    @property
    def log_e_promote(self) -> float:
        """Evidence for "within the margin, or below the SLO" (argument in `analysis`)."""
        below = self.log_e_below_slo
        return self.log_e_margin if below is None else mixture([self.log_e_margin, below])

    @property
    def log_e_guard(self) -> tuple[float, float] | None:
        """Evidence for "rate above the SLO", canary and stable; None without an SLO."""
        return None if self.slo is None else (mixture(self.guard_c), mixture(self.guard_s))

    @property
    def p_anytime(self) -> float:
        """Anytime-valid p-value of "no worse than tolerated"."""
        return min(1.0, math.exp(-self.peak))

    def to_json(self) -> dict[str, Any]:
        """A plain value; floats as C99 hex, so that replay is exact."""
        floats = {"tolerate": self.tolerate, "margin": self.margin, "peak": self.peak}
        lists = {name: [one.hex() for one in getattr(self, name)] for name in _LISTS}
        return {
            "v": 1,
            "metric": self.metric,
            "slo": None if self.slo is None else self.slo.hex(),
            "last": None if self.last is None else list(self.last),
            "numpy": self.numpy,
            **{name: value.hex() for name, value in floats.items()},
            **{name: getattr(self, name) for name in _WHOLE},
            **lists,
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> State:
        """Read `to_json`'s value. Raises ValueError on another version or shape."""
        try:
            return cls._read(plain)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a state of version 1: {error!r}") from None

    @classmethod
    def _read(cls, plain: Mapping[str, Any]) -> State:
        if plain["v"] != 1:
            raise ValueError(f"got state version {plain['v']!r}, expected 1")
        lists: Any = {name: tuple(float.fromhex(x) for x in plain[name]) for name in _LISTS}
        whole: Any = {name: int(plain[name]) for name in _WHOLE}
        sizes = {name: len(one) for name, one in lists.items()}
        if sizes != _LISTS:
            raise ValueError(f"got lists of {sizes}, expected {_LISTS}")
        return cls(
            metric=plain["metric"],
            tolerate=float.fromhex(plain["tolerate"]),
            margin=float.fromhex(plain["margin"]),
            slo=None if plain["slo"] is None else float.fromhex(plain["slo"]),
            peak=float.fromhex(plain["peak"]),
            last=None if plain["last"] is None else Stratum(*plain["last"]),
            numpy=plain["numpy"],
            **whole,
            **lists,
        )


_LISTS: Final = {
    "rollback": len(GRID),
    "promote": 5,
    "guard_c": len(GRID),
    "guard_s": len(GRID),
    "below": len(GRID),
}
_WHOLE: Final = ("n_c", "x_c", "n_s", "x_s", "strata")


def start(
    metric: str, *, tolerate: float = 1.0, margin: float = 1.25, slo: float | None = None
) -> State:
    """The state before any count. Raises ValueError unless 0 < tolerate < margin, 1 < margin."""
    if not (0 < tolerate < margin and margin > 1):
        raise ValueError(f"got tolerate {tolerate} and margin {margin}: need tolerate < margin > 1")
    if slo is not None and not 0 < slo < 1:
        raise ValueError(f"got slo {slo}, expected a rate between 0 and 1")
    zero: Any = {name: (0.0,) * size for name, size in _LISTS.items()}
    return State(metric=metric, tolerate=tolerate, margin=margin, slo=slo, **zero)


def step_metric(state: State, counts: Counts2x2, phi: float = 1.0) -> State:
    """The state after one more closed stratum.

    phi: dispersion of this weight step (`Dispersion.at`), 1 or more; every increment is divided
    by it. It may depend on the configured step only, never on the counts.

    Raises:
        ValueError: another metric, phi below 1, or a stratum that is not after the last one.
    """
    table = (counts.x_c, counts.n_c, counts.x_s, counts.n_s)
    down = promotion_grid(state.margin)
    up = GRID * state.tolerate
    if state.tolerate == 1.0 and _is_fast(counts.n_c, counts.n_s, counts.x_c + counts.x_s):
        rollback = fast_log_increment(*table, up)
        found = log_likelihood(*table, np.append(down, state.margin))
    else:
        found = log_likelihood(*table, np.concatenate([up, [state.tolerate], down, [state.margin]]))
        rollback, found = found[:6] - found[6], found[7:]
    return _grown(state, counts, phi, rollback, found[:-1] - found[-1], table)


def step_pairs(state: State, pairs: Pairs, phi: float = 1.0) -> State:
    """Same for labelled rows that both models have seen: the challenger stands for the canary."""
    b, c = pairs.right_wrong, pairs.wrong_right
    wrong = pairs.wrong_wrong
    rollback = paired_log_increment(b, c, GRID * state.tolerate, state.tolerate)
    promote = paired_log_increment(b, c, promotion_grid(state.margin), state.margin)
    return _grown(state, pairs, phi, rollback, promote, (b + wrong, pairs.n, c + wrong, pairs.n))


def replay(strata: Iterable[Counts2x2 | Pairs], state: State, phi: Phi = 1.0) -> State:
    """The state after all `strata`, in their own order, so that any permutation gives equal bits.

    phi: one number, or one per weight step.
    """
    for one in sorted(strata, key=lambda counts: counts.stratum.order):
        here = phi[one.stratum.step] if isinstance(phi, Mapping) else phi
        if isinstance(one, Pairs):
            state = step_pairs(state, one, here)
        else:
            state = step_metric(state, one, here)
    return state


def _grown(
    state: State,
    counts: Counts2x2 | Pairs,
    phi: float,
    rollback: Floats,
    promote: Floats,
    table: tuple[int, int, int, int],
) -> State:
    if counts.metric != state.metric:
        raise ValueError(f"got counts of {counts.metric!r}, expected {state.metric!r}")
    if not phi >= 1:
        raise ValueError(f"got phi {phi}, expected 1 or more")
    if state.last is not None and counts.stratum.order <= state.last.order:
        raise ValueError(f"stratum {counts.stratum} is not after {state.last}: it counts as late")
    x_c, n_c, x_s, n_s = table
    grown = replace(
        state,
        rollback=_plus(state.rollback, rollback, phi),
        promote=_plus(state.promote, promote, phi),
        n_c=state.n_c + n_c,
        x_c=state.x_c + x_c,
        n_s=state.n_s + n_s,
        x_s=state.x_s + x_s,
        strata=state.strata + 1,
        last=counts.stratum,
        numpy=np.__version__,
    )
    if state.slo is not None:
        grown = replace(
            grown,
            guard_c=_plus(state.guard_c, slo_log_increment(x_c, n_c, state.slo), phi),
            guard_s=_plus(state.guard_s, slo_log_increment(x_s, n_s, state.slo), phi),
            below=_plus(state.below, slo_log_increment(x_c, n_c, state.slo, 1 / GRID), phi),
        )
    return replace(grown, peak=max(state.peak, grown.log_e))


def _plus(old: tuple[float, ...], increment: Floats, phi: float) -> tuple[float, ...]:
    return tuple((np.array(old) + increment / phi).tolist())


def _is_fast(n_c: int, n_s: int, k: int) -> bool:
    total = n_c + n_s
    return min(k, n_c, total - k, n_s) <= total * FAST_UP_TO


# --- the A/A phase ---


def aa_halves(
    sources: Iterable[str], *, one_against_rest: bool = False
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split stable's sources in two by the hash of their names, for the A/A comparison.

    one_against_rest: for a canary of one replica, which is noisier than half a fleet.
    """
    ordered = sorted(set(sources), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    cut = min(1, len(ordered)) if one_against_rest else len(ordered) // 2
    return tuple(ordered[:cut]), tuple(ordered[cut:])


class Dispersion(NamedTuple):
    """How much noisier than random arms differ. measured=False: assumed, no history.

    phi: estimate, 1 or more. upper: its upper bound. share: mean share of half A. strata: T.
    """

    phi: float
    upper: float
    share: float
    strata: int
    measured: bool

    def at(self, weight: float) -> float:
        """Phi for a configured canary weight: noise between arms grows with w (1 - w)."""
        if not self.measured:
            return self.upper
        return 1 + (self.upper - 1) * weight * (1 - weight) / (self.share * (1 - self.share))


def dispersion(strata: Sequence[Counts2x2], *, block: int = BLOCK_MINUTES) -> Dispersion:
    """Measure phi from A/A strata (half A stands for the canary), the worst block.

    Less than a block of strata, or strata without information: 2 is assumed. block: in the unit of
    `Stratum.t`; 6 h of minutes unless said.
    """
    rows = [(one.stratum.t, *_score(one)) for one in strata]
    rows = [row for row in rows if row[2] > 0]
    assumed = Dispersion(ASSUMED_PHI, ASSUMED_PHI, 0.5, 0, measured=False)
    if not rows:
        return assumed
    first, end = min(row[0] for row in rows), max(row[0] for row in rows) + 1
    blocks = (end - first) // block
    if blocks < 1:
        return assumed
    # a shorter last block joins the one before it
    found = [
        _block([r for r in rows if min((r[0] - first) // block, blocks - 1) == number])
        for number in range(blocks)
    ]
    share = sum(row[3] for row in rows) / len(rows)
    phi, size = max(found)
    upper = phi * (1 + DISPERSION_Z * math.sqrt(2 / size))
    return Dispersion(phi, upper, share, size, measured=True)


def _score(one: Counts2x2) -> tuple[float, float, float]:
    """Squared deviation of x_A, its variance given the totals, the share of half A."""
    k, total = one.x_c + one.x_s, one.n_c + one.n_s
    if total < 2:
        return 0.0, 0.0, 0.0
    r = one.n_c / total
    return (one.x_c - k * r) ** 2, k * r * (1 - r) * (total - k) / (total - 1), r


def _block(rows: list[tuple[int, float, float, float]]) -> tuple[float, int]:
    if not rows:
        return 1.0, 1
    return max(1.0, sum(gap / v for _, gap, v, _ in rows) / len(rows)), len(rows)


class TwoSided(NamedTuple):
    """A two-sided mixture after some strata: log e now, and the largest on the way."""

    log_e: float
    peak: float


def two_sided(strata: Iterable[Counts2x2], phi: Phi = 1.0) -> TwoSided:
    """Evidence that two arms differ in any direction (A/A strata: the metric is unfit)."""
    sums, peak = np.zeros(len(TWO_SIDED_GRID)), 0.0
    for one in sorted(strata, key=lambda counts: counts.stratum.order):
        here = phi[one.stratum.step] if isinstance(phi, Mapping) else phi
        sums = sums + log_increment(one.x_c, one.n_c, one.x_s, one.n_s, TWO_SIDED_GRID) / here
        peak = max(peak, mixture(sums))
    return TwoSided(mixture(sums), peak)


# --- the split ---


class Srm(NamedTuple):
    """Evidence that the split is not what the plan says, over all weight steps."""

    done: float = 0.0
    step: int = -1
    weight: float = 0.0
    canary: int = 0
    total: int = 0
    peak: float = 0.0

    @property
    def log_e(self) -> float:
        return self.done + srm_log_e(self.weight, self.canary, self.total)


def srm_log_e(weight: float, canary: int, total: int, prior: float = SRM_PRIOR) -> float:
    """Dirichlet mixture against "each request goes to the canary with probability `weight`"."""
    if not 0 < weight < 1:
        return 0.0
    a, b = prior * weight, prior * (1 - weight)
    found = log_beta(a + canary, b + total - canary) - log_beta(a, b)
    return float(found) - canary * math.log(weight) - (total - canary) * math.log1p(-weight)


def step_srm(state: Srm, step: int, weight: float, n_c: int, n_s: int) -> Srm:
    """Count one stratum; a new weight step restarts the mixture and multiplies."""
    if step != state.step:
        state = Srm(done=state.log_e, step=step, weight=weight, peak=state.peak)
    grown = state._replace(canary=state.canary + n_c, total=state.total + n_c + n_s)
    return grown._replace(peak=max(grown.peak, grown.log_e))


# --- the report ---


class OddsRatio(NamedTuple):
    """Anytime interval for the common odds ratio; low 0 or high inf where nothing is excluded.

    estimate: Mantel and Haenszel 1959, NaN without information.
    """

    low: float
    estimate: float
    high: float


def odds_ratio_interval(
    strata: Iterable[Counts2x2], phi: Phi = 1.0, *, alpha: float = 0.05
) -> OddsRatio:
    """All odds ratios that are not excluded, widened to the next excluded point of 64.

    For the report only: it replays the strata, about 1 ms each.
    """
    nulls = np.geomspace(1 / 20, 20, 64)
    odds = np.append(np.outer(nulls, TWO_SIDED_GRID).ravel(), nulls)
    sums = np.zeros(len(odds))
    above = below = 0.0
    for one in sorted(strata, key=lambda counts: counts.stratum.order):
        here = phi[one.stratum.step] if isinstance(phi, Mapping) else phi
        sums += log_likelihood(one.x_c, one.n_c, one.x_s, one.n_s, odds) / here
        total = max(one.n_c + one.n_s, 1)
        above += one.x_c * (one.n_s - one.x_s) / total
        below += one.x_s * (one.n_c - one.x_c) / total
    rivals = sums[:-64].reshape(64, -1) - sums[-64:, None]
    inside = logsumexp(rivals) - math.log(rivals.shape[1]) < math.log(1 / alpha)
    inside[np.argmax(sums[-64:])] = True  # the likeliest point, were the 64 ever too coarse
    kept = np.flatnonzero(inside)
    estimate = above / below if below else (math.inf if above else math.nan)
    low = nulls[kept[0] - 1] if kept[0] > 0 else 0.0
    high = nulls[kept[-1] + 1] if kept[-1] < 63 else math.inf
    return OddsRatio(float(low), estimate, float(high))


class Plan(NamedTuple):
    """What a rollout needs on average. events: bad ones, both arms; bad_canary: of these, canary's.

    requests_canary: canary requests until then.
    """

    events: float
    bad_canary: float
    minutes: float
    requests_canary: float


def plan_rollback(
    odds_ratio: float, *, weight: float, bad_rate: float, per_minute: float, alpha: float = 0.01
) -> Plan:
    """Until a regression of `odds_ratio` > 1 is caught, stable's bad events being `bad_rate`."""
    theta = weight * odds_ratio / (1 - weight + weight * odds_ratio)
    growth = theta * math.log(odds_ratio) - math.log1p(weight * (odds_ratio - 1))
    events = (math.log(1 / alpha) + math.log(len(GRID))) / growth
    odds = odds_ratio * bad_rate / (1 - bad_rate)
    bad_a_minute = per_minute * ((1 - weight) * bad_rate + weight * odds / (1 + odds))
    minutes = events / bad_a_minute
    return Plan(events, theta * events, minutes, minutes * per_minute * weight)


def plan_promotion(
    margin: float, *, weight: float, bad_rate: float, per_minute: float, beta: float = 0.05
) -> Plan:
    """Until an equal release is proven to lie below `margin`."""
    growth = math.log1p(weight * (margin - 1)) - weight * math.log(margin)
    events = math.log(1 / beta) / growth
    minutes = events / (per_minute * bad_rate)
    return Plan(events, weight * events, minutes, minutes * per_minute * weight)

"""The served release under one load: the upper bound of its p99, and the memory it takes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from falaj.facts.checks import CheckResult, Verdict
from falaj.facts.project import LatencyTable
from falaj.stats.special import bdtr

__all__ = ["LOAD", "MEMORY", "check_latency", "check_memory", "rank_bounds"]

GATE = "latency"
QUANTILES = (0.5, 0.9, 0.95, 0.99)
TAIL = 0.05
LOAD = "one connection, one row a request"
MEMORY = "memory_mb"


def rank_bounds(n: int, q: float) -> tuple[int, int | None]:
    """Ranks (from 0) of sorted values that bound the q-quantile from each side, 5 % each.

    The number of values below the quantile is Binomial(n, q). The upper one is None when n is too
    small for any value to be a bound (59 values at q = .95, 299 at .99).
    """
    at_most = np.asarray(bdtr(np.arange(n), n, q))
    low = int((at_most <= TAIL).sum()) - 1
    high = int((at_most < 1 - TAIL).sum())
    return max(low, 0), high if high < n else None


def check_latency(
    us: NDArray[np.int64], table: LatencyTable, memory_mb: Mapping[str, float] | None = None
) -> CheckResult:
    """us: microseconds of single answers, one load, after warm-up.

    memory_mb: `ready` and `peak` of the server process, kept beside the times.
    """
    ordered = np.sort(us)
    n, limit = len(ordered), table.p99_ms
    requirement = f"upper bound of p99 < {limit:g} ms"
    if n == 0:
        return CheckResult(
            check=f"{GATE}.p99",
            gate=GATE,
            verdict=Verdict.INCONCLUSIVE,
            reason="nothing was timed",
            requirement=requirement,
        )
    low, high = rank_bounds(n, 0.99)
    p99 = float(np.quantile(ordered, 0.99)) / 1000
    lower = float(ordered[low]) / 1000
    upper = None if high is None else float(ordered[high]) / 1000
    if upper is not None and upper < limit:
        verdict, reason = Verdict.PASS, f"p99 is at most {upper:.2f} ms"
    elif lower >= limit:
        verdict, reason = Verdict.FAIL, f"p99 is at least {lower:.2f} ms"
    else:
        told = "too few answers for a bound" if upper is None else f"p99 is at most {upper:.2f} ms"
        verdict, reason = Verdict.INCONCLUSIVE, f"{told}, the limit is {limit:g} ms"
    thresholds = [max(1, round(float(np.quantile(ordered, q)))) for q in QUANTILES]
    return CheckResult(
        check=f"{GATE}.p99",
        gate=GATE,
        verdict=verdict,
        reason=reason,
        metric="p99 of one answer",
        value=p99,
        low=lower,
        high=upper,
        limit=limit,
        requirement=requirement,
        unit="ms",
        n=n,
        n_needed=299 if upper is None else None,
        details={"thresholds_us": rising(thresholds), "load": LOAD}
        | ({MEMORY: dict(memory_mb)} if memory_mb else {}),
    )


def check_memory(memory_mb: Mapping[str, float] | None, limit: float, n: int) -> CheckResult:
    """The most that the server process held while it gave n answers: one number, all of it seen."""
    check, requirement = f"{GATE}.memory", f"peak < {limit:g} MB"
    peak = (memory_mb or {}).get("peak")
    if peak is None:
        return CheckResult(
            check=check,
            gate=GATE,
            verdict=Verdict.INCONCLUSIVE,
            reason="this machine does not tell how much memory a process holds",
            requirement=requirement,
            limit=limit,
            unit="MB",
            n=n,
        )
    ready = (memory_mb or {}).get("ready")
    at_first = "" if ready is None else f", {ready:.0f} MB before the first question"
    return CheckResult(
        check=check,
        gate=GATE,
        verdict=Verdict.PASS if peak < limit else Verdict.FAIL,
        reason=f"at most {peak:.0f} MB over {n} answers{at_first}",
        metric="peak memory of the server process",
        value=peak,
        low=peak,
        high=peak,
        limit=limit,
        requirement=requirement,
        unit="MB",
        n=n,
        details={"load": LOAD, MEMORY: dict(memory_mb or {})},
    )


def rising(values: list[int]) -> list[int]:
    """Strictly rising, as a traffic plan wants its thresholds."""
    found: list[int] = []
    for value in values:
        found.append(max(value, found[-1] + 1 if found else 1))
    return found

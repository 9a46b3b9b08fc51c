"""The guard on wrong answers: has the rate ever been above its limit? May be read at any time.

The e-process of stats tests "never above the limit" from one start on. After a hundred good days
it would need many bad ones to make up for them, so the guard is a mixture over all starts: start k
has the weight 1 / (k (k + 1)). A weighted mean of e-processes is an e-process, so the probability
of ever reaching e = 1000 while the rate stays below the limit is at most 1/1000, however often
somebody looks. Price: ln(k (k + 1)) of evidence for a change at window k, ln 2 at the first.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np

from falaj.stats.eproc import GRID, mixture, slo_log_increment
from falaj.stats.special import logsumexp

__all__ = ["CROSSED", "Guard", "of_plain", "plain", "start", "step"]

CROSSED: Final = math.log(1000.0)
LEAST: Final = 1e-6  # a limit of 0 would make one wrong label a proof


class Guard(NamedTuple):
    """log_sums: for each alternative, log of the weighted sum over the starts up to now."""

    limit: float
    windows: int
    n: int
    wrong: int
    log_sums: tuple[float, ...]

    @property
    def log_e(self) -> float:
        """Log of the evidence that the rate was above the limit; starts to come count as 1."""
        to_come = -math.log(self.windows + 1)
        return float(logsumexp([mixture(self.log_sums), to_come]))

    @property
    def crossed(self) -> bool:
        return self.log_e >= CROSSED


def start(limit: float) -> Guard:
    """limit: largest share of wrong answers, 0 to 1."""
    return Guard(limit, 0, 0, 0, (-math.inf,) * len(GRID))


def step(guard: Guard, wrong: int, n: int) -> Guard:
    """Count one closed window; windows come in their order, each once."""
    k = guard.windows + 1
    rate = min(max(guard.limit, LEAST), 1 - LEAST)
    weighted = np.logaddexp(np.array(guard.log_sums), -math.log(k * (k + 1)))
    grown = weighted + slo_log_increment(wrong, n, rate)
    return Guard(guard.limit, k, guard.n + n, guard.wrong + wrong, tuple(grown.tolist()))


def plain(guard: Guard) -> dict[str, Any]:
    """The JSON value; floats as C99 hex."""
    return {
        "limit": guard.limit.hex(),
        "windows": guard.windows,
        "n": guard.n,
        "wrong": guard.wrong,
        "log_sums": [one.hex() for one in guard.log_sums],
    }


def of_plain(value: dict[str, Any], limit: float) -> Guard:
    """Go on from a stored value; a new limit is a new question and starts anew."""
    if not value or float.fromhex(value["limit"]) != limit:
        return start(limit)
    sums = tuple(float.fromhex(one) for one in value["log_sums"])
    return Guard(limit, value["windows"], value["n"], value["wrong"], sums)

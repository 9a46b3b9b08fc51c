"""The A/A phase: two arms of one release, and how much noisier than chance they differ."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from msgspec.structs import replace

from falaj.facts.rollouts import Outcome, Rollout, Stratum
from falaj.rollouts.rules import Finding, Move, opened
from falaj.stats import eproc
from falaj.stats.eproc import ASSUMED_PHI, Dispersion
from falaj.stats.summaries import Counts2x2
from falaj.stats.summaries import Stratum as Where

__all__ = ["measured", "over", "peaks", "phi", "words"]

FEWEST: Final = 30  # strata with information, below which the dispersion is assumed
LATENCY: Final = ("p50", "p90", "p95", "p99")
REQUESTS: Final = "requests"


def over(rollout: Rollout, now: datetime) -> bool:
    """Tell whether the phase has lasted as long as the plan says, with the grace of its counts."""
    plan = rollout.plan
    return (now - rollout.since).total_seconds() >= plan.aa_s + plan.stratum_s + plan.grace_s


def measured(
    rollout: Rollout, merged: Iterable[Stratum], *, now: datetime
) -> tuple[Rollout, Finding, Move, dict[str, Any]]:
    """The rollout with the dispersion of each table, carrying traffic from now on.

    merged: counts of the A/A phase, one row a stratum, zone and metric.
    """
    tables: dict[str, list[Counts2x2]] = defaultdict(list)
    for row in sorted(merged, key=lambda r: (r.stratum, r.zone, r.metric)):
        if row.metric != REQUESTS:
            key = name(row.metric)
            at = Where(t=row.stratum, zone=row.zone, step=0)
            tables[key].append(
                Counts2x2(
                    metric=key, stratum=at, n_c=row.n_c, x_c=row.x_c, n_s=row.n_s, x_s=row.x_s
                )
            )
    found = {key: of_table(rows) for key, rows in sorted(tables.items())}
    told = tuple(f"{key}: {sentence(one)}" for key, one in found.items())
    reasons = (f"A/A over {rollout.plan.aa_s:g} s", *told)
    numbers: dict[str, Any] = {
        "dispersion": words(found),
        "measured": found,
        "strata": [],
        "aa": [
            [row.stratum, row.zone, row.metric, row.n_c, row.x_c, row.n_s, row.x_s]
            for row in sorted(merged, key=lambda r: (r.stratum, r.zone, r.metric))
        ],
    }
    after = opened(replace(rollout, dispersion=found), now=now)
    return after, Finding(Outcome.CONTINUE, False, reasons), Move("measured", reasons), numbers


def of_table(rows: list[Counts2x2]) -> dict[str, Any]:
    informative = sum(1 for one in rows if 0 < one.x_c + one.x_s < one.n_c + one.n_s)
    assumed = Dispersion(ASSUMED_PHI, ASSUMED_PHI, 0.5, 0, measured=False)
    first = min(one.stratum.t for one in rows)
    block = min(eproc.BLOCK_MINUTES, max(one.stratum.t for one in rows) + 1 - first)
    here = eproc.dispersion(rows, block=block) if informative >= FEWEST else assumed
    differs = eproc.two_sided(rows, max(here.phi, 1.0))
    return {
        "phi": here.phi,
        "upper": here.upper,
        "share": here.share,
        "strata": here.strata,
        "measured": here.measured,
        "aa": differs.peak,
    }


def name(metric: str) -> str:
    kind, _, at = metric.partition(".")
    return f"latency/{LATENCY[int(at)]}" if kind == "latency" and at.isdecimal() else metric


def phi(found: Mapping[str, Any], key: str, weight: float) -> float:
    """What each increment of a table is divided by, at a configured weight of the canary.

    Labels and the user's own metrics are not seen in an A/A phase: theirs is assumed.
    """
    one = found.get(key)
    if one is None or not one["measured"]:
        return ASSUMED_PHI
    upper = Dispersion(one["phi"], one["upper"], one["share"], one["strata"], measured=True)
    return upper.at(weight)


def peaks(found: Mapping[str, Any]) -> dict[str, float]:
    """Evidence that two arms of one release differ, by metric; the worst of its tables."""
    said: dict[str, float] = {}
    for key, one in found.items():
        metric = key.partition("/")[0]
        said[metric] = max(said.get(metric, -math.inf), one["aa"])
    return said


def words(found: Mapping[str, Any]) -> str:
    measured_here = [f"{key} {one['upper']:.2f}" for key, one in found.items() if one["measured"]]
    if not measured_here:
        return f"assumed {ASSUMED_PHI}"
    return f"measured (upper bound): {', '.join(measured_here)}; else assumed {ASSUMED_PHI}"


def sentence(one: Mapping[str, Any]) -> str:
    if not one["measured"]:
        return f"too little was seen, a dispersion of {ASSUMED_PHI} is assumed"
    return f"dispersion {one['phi']:.2f}, at most {one['upper']:.2f}, over {one['strata']} strata"

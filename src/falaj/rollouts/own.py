"""Metrics of the user's own: reports and counters of others become strata. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from falaj.base.errors import FalajError
from falaj.facts.rollouts import MetricPlan, Stratum

__all__ = ["OWN", "Told", "added", "asked", "bad_of", "grown", "rows_of", "told"]

OWN = "own."


class Told(NamedTuple):
    """What was counted of one arm."""

    n: int
    bad: int


def told(n: Any, bad: Any, values: Sequence[float] | None, plan: MetricPlan, arm: str) -> Told:
    """Counts as reported, or values against the metric's limits. Raises FalajError."""
    if values is not None:
        if n or bad:
            raise wrong(f"{arm}: counts and values", "report one of them")
        return Told(len(values), bad_of(values, plan))
    if not (isinstance(n, int) and isinstance(bad, int)) or not 0 <= bad <= n < 1 << 53:
        raise wrong(f"{arm}: got {bad} bad of {n}", "expected 0 <= bad <= n")
    return Told(n, bad)


def bad_of(values: Sequence[float], plan: MetricPlan) -> int:
    if plan.at_least is None and plan.at_most is None:
        raise wrong("values without a limit", "give the metric at_least or at_most")
    low = -float("inf") if plan.at_least is None else plan.at_least
    high = float("inf") if plan.at_most is None else plan.at_most
    return sum(1 for value in values if not low <= value <= high)


def wrong(what: str, why: str) -> FalajError:
    return FalajError(
        "rollouts.bad-report",
        f"the report cannot be counted: {what}",
        why=why,
        fix="falaj kpi --help",
    )


def added(
    kept: Mapping[str, Any], report: str, at: tuple[int, int, str], canary: Told, stable: Told
) -> dict[str, Any] | None:
    """The kept counts with one report more; None when it was counted before.

    at: stratum of its arrival, step, metric. The last 10,000 reports are known by their ids.
    """
    ids: list[str] = kept.get("ids", [])
    if report in ids:
        return None
    rows = [list(row) for row in kept.get("rows", [])]
    here = next((row for row in rows if row[:3] == list(at)), None)
    if here is None:
        here = [*at, 0, 0, 0, 0]
        rows.append(here)
    for place, value in enumerate((canary.n, canary.bad, stable.n, stable.bad), start=3):
        here[place] += value
    return {**kept, "ids": [*ids, report][-10_000:], "rows": rows}


def rows_of(kept: Mapping[str, Any], zone: str) -> list[Stratum]:
    return [
        Stratum(
            stratum=at,
            zone=zone,
            step=step,
            metric=OWN + metric,
            n_c=n_c,
            x_c=x_c,
            n_s=n_s,
            x_s=x_s,
        )
        for at, step, metric, n_c, x_c, n_s, x_s in kept.get("rows", [])
    ]


def asked(query: str, release: str, version: str) -> str:
    """The query of one arm."""
    return query.replace("{release}", release).replace("{version}", version)


def grown(before: float | None, after: float | None) -> int | None:
    """Events between two readings of a counter; None where it was reset, or never there."""
    if after is None:
        return None
    more = round(after - (before or 0.0))
    return more if more >= 0 else None

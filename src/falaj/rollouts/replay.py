"""A rollout once more, from nothing but its log: every decision must come out the same, bit by bit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from falaj.base.time import parse_instant
from falaj.facts.rollouts import Phase, Rollout, RolloutDecision, Stratum
from falaj.facts.wire import plain
from falaj.rollouts import analysis, measuring, rules

__all__ = ["Replayed", "replay"]


class Replayed(NamedTuple):
    """differs: names of what came out otherwise; nothing where it is the same, bit by bit."""

    decision: str
    action: str
    outcome: str
    differs: tuple[str, ...]


def replay(rollout: Rollout, decisions: Iterable[RolloutDecision]) -> list[Replayed]:
    """Take the decisions oldest first, each from the state that the replay itself has come to.

    Only the rollout's plan, salt, thresholds and start are believed; strata, wishes and times are
    those of the decisions, all sums are done again.
    """
    state = replace(
        rollout, analysis={}, done_stratum=-1, dispersion={}, phase=Phase.STARTING, step=0
    )
    found = []
    for one in decisions:
        state, told = again(state, one)
        found.append(told)
    return found


def again(state: Rollout, one: RolloutDecision) -> tuple[Rollout, Replayed]:
    if "aa" in one.numbers:
        rows = [stratum_of_aa(row) for row in one.numbers["aa"]]
        after, finding, move, numbers = measuring.measured(state, rows, now=one.at)
        return after, compared(one, finding, move, numbers)
    if "before" not in one.numbers:  # of an older falaj, or ended by a person before it was judged
        same = ("it was recorded without what it was judged from",) if one.numbers["strata"] else ()
        return state, Replayed(one.id, one.action, str(one.outcome), same)
    state = stood(state, one.numbers["before"])
    after, finding, numbers = analysis.judge(state, got(one.numbers), now=one.at)
    decided, move = rules.decide(after, finding, now=one.at)
    return decided, compared(one, finding, move, numbers)


def compared(
    one: RolloutDecision, finding: rules.Finding, move: rules.Move, numbers: dict[str, Any]
) -> Replayed:
    told = {
        "outcome": (finding.outcome, one.outcome),
        "action": (move.action, one.action),
        "reasons": (move.reasons or finding.reasons, one.reasons),
        **{
            f"numbers.{name}": (bits(numbers.get(name)), bits(one.numbers.get(name)))
            for name in sorted({*numbers, *one.numbers})
        },
    }
    differs = tuple(name for name, (mine, theirs) in told.items() if mine != theirs)
    return Replayed(one.id, one.action, str(one.outcome), differs)


def bits(value: Any) -> bytes:
    """As the log holds it, where floats are texts that lose no bit."""
    return msgspec.json.encode(plain(value), order="sorted")


def stood(state: Rollout, before: dict[str, Any]) -> Rollout:
    """Where it stood: what people and the target did between two decisions is no sum to do again."""
    return replace(
        state,
        phase=Phase(before["phase"]),
        step=before["step"],
        since=parse_instant(before["since"]),
        opened=parse_instant(before["opened"]) if before["opened"] else None,
        why=before["why"],
        asked=before["asked"],
        asked_why=before["asked_why"],
        let_through=before["let_through"],
        advised=before["advised"],
    )


def got(numbers: dict[str, Any]) -> analysis.Read:
    by_time: dict[int, list[Stratum]] = {}
    for at, step, metric, n_c, x_c, n_s, x_s, zone in numbers["strata"]:
        row = Stratum(
            stratum=at, zone=zone, step=step, metric=metric, n_c=n_c, x_c=x_c, n_s=n_s, x_s=x_s
        )
        by_time.setdefault(at, []).append(row)
    canary_ms, stable_ms, late_c, late_s, shown = numbers["read"]
    fresh = tuple((at, tuple(rows)) for at, rows in by_time.items())
    return analysis.Read(fresh, canary_ms, stable_ms, (late_c, late_s), shown)


def stratum_of_aa(row: list[Any]) -> Stratum:
    at, zone, metric, n_c, x_c, n_s, x_s = row
    return Stratum(stratum=at, zone=zone, step=0, metric=metric, n_c=n_c, x_c=x_c, n_s=n_s, x_s=x_s)

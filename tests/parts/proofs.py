"""What must never break on any walk, whoever dies on it."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

from loans import PLACE
from walks import decisions, history, instant, moves, told


def nothing_lost(by, before, rollout, decided):
    """What was committed stays as it was: the log, and every decision."""
    assert history(by)[: len(before)] == before
    assert decisions(by, rollout)[: len(decided)] == decided


def nothing_twice(by):
    """Each plan, each move of the ledger, of the alias and of a change is there once."""
    seqs = [move["seq"] for move in moves(by)]
    assert seqs == sorted(set(seqs))
    events = history(by)
    assert len({event["id"] for event in events}) == len(events)
    plans = [e["data"]["seq"] for e in events if e["type"] == "falaj.plan.issued"]
    assert plans == list(range(1, len(plans) + 1))
    assert len(told(by, "live.moved")) == len(seqs)
    for kind in ("change.implementing", "change.implemented", "change.rolled-back"):
        subjects = told(by, kind)
        assert len(subjects) == len(set(subjects)), kind
    aliases = [e["data"]["release"] for e in events if e["type"] == "falaj.alias.moved"]
    assert all(a != b for a, b in itertools.pairwise(aliases))
    for rollout in by.owner.get("/rollouts"):
        strata = [
            (row[0], row[1], row[2])
            for decision in decisions(by, rollout)
            for row in decision["numbers"]["strata"]
        ]
        assert len(strata) == len(set(strata)), "a stratum was counted twice"


def by_plan(by, calls):
    """Assert that every answer came from a release of a plan that was in force at that time.

    A plan is in force from its issue until every server has shown a later one.
    """
    issued = {
        event["data"]["seq"]: instant(event["time"])
        for event in history(by)
        if event["type"] == "falaj.plan.issued"
    }
    ledger = moves(by)
    ends = [instant(move["at"]) for move in ledger[1:]] + [datetime.max.replace(tzinfo=UTC)]
    spans = [
        (issued[move["seq"]], end, {move["stable"], move["canary"]})
        for move, end in zip(ledger, ends, strict=True)
    ]
    for call in calls:
        assert any(
            begin <= call.done and call.sent <= end and call.release in releases
            for begin, end, releases in spans
        ), call


def counted(by, rollout):
    """Requests of canary and stable as the servers counted them, over all of the rollout."""
    found = by.works.ground.targets["local"].counts(PLACE, rollout["id"])
    rows = [row for row in found if row.metric == "requests"]
    return sum(row.n_c for row in rows), sum(row.n_s for row in rows)

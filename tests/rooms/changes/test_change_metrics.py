"""Counts of how changes went: what is a failure, from when to when it took."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import pytest
from msgspec.structs import replace

from falaj.changes import metrics
from falaj.changes.timeline import stretches
from falaj.changes.timelinepicture import timeline_svg
from falaj.facts.changes import Change, ChangeKind, ChangeState, Risk
from falaj.facts.ledger import Happening, Stretch, Timeline
from falaj.facts.rollouts import LiveMove, Outcome, Phase, Rollout, RolloutDecision, RolloutPlan
from falaj.stats.intervals import wilson

NOW = datetime(2026, 11, 24, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def change(number, **more):
    base = {
        "id": f"CHG-{number}", "kind": ChangeKind.NORMAL, "state": ChangeState.IMPLEMENTED,
        "title": "t", "reason": "r", "model": "m", "release": f"r{number}", "version": str(number),
        "environment": "production", "evidence": "e", "author": "a", "authors": ("a",),
        "risk": Risk.MEDIUM, "approvals_needed": 1, "opened": NOW, "since": NOW,
    }  # fmt: skip
    return Change(**(base | more))


def rollout(number, phase=Phase.PROMOTED, minutes=10, **more):
    base = {
        "id": f"RO-{number}", "change": f"CHG-{number}", "environment": "production", "model": "m",
        "release": f"r{number}", "version": str(number), "previous": "r0", "phase": phase,
        "plan": RolloutPlan(strategy="canary"), "salt": "", "started": NOW,
        "since": NOW + minutes * MINUTE,
    }  # fmt: skip
    return Rollout(**(base | more))


def decision(number, action, minutes):
    return RolloutDecision(
        id=f"D-{number}-{action}", rollout=f"RO-{number}", at=NOW + minutes * MINUTE, step=0,
        outcome=Outcome.ROLLBACK, action=action, reasons=("harm",), numbers={},
    )  # fmt: skip


def move(number, minutes, *, cause=None, weight=0, stable="r0"):
    return LiveMove(
        id=f"L-{number}-{minutes}", environment="production", model="m", stable=stable,
        stable_version=stable, canary="r9" if weight else "", canary_version="9" if weight else "",
        weight_bp=weight, at=NOW + minutes * MINUTE, cause=cause or f"RO-{number}", seq=minutes,
    )  # fmt: skip


def measured(changes, rollouts, *, decisions=(), moves=(), **more):
    begun = {one.id: NOW - timedelta(hours=1) for one in rollouts}
    story = metrics.Story(changes, (), rollouts, decisions, moves, begun)

    def bounds(x, n):
        found = wilson(x, n)
        return found.low, found.high

    return metrics.measure(story, bounds, now=NOW + timedelta(days=1), **more)


def test_below_five_changes_no_rate_is_said():
    four = measured([change(n) for n in range(4)], [rollout(n) for n in range(4)])
    assert four.rows[0].failure_rate.value is None
    five = measured([change(n) for n in range(5)], [rollout(n) for n in range(5)])
    share = five.rows[0].failure_rate
    assert (share.x, share.n, share.value, share.low) == (0, 5, 0.0, 0.0)
    assert 0.4 < share.high < 0.5


def test_what_went_back_in_its_rollout_failed_and_was_restored():
    found = measured(
        [change(1)],
        [rollout(1, Phase.ROLLED_BACK)],
        decisions=[decision(1, "advance", 1), decision(1, "rollback", 4)],
        moves=[move(1, 1, weight=500), move(1, 6), move(1, 9)],
    ).rows[0]
    assert found.failure_rate.x == 1
    assert found.restore_s == 120.0, "from the decision to the first move without the canary"
    assert found.lead_time_s is None


def test_a_rollback_soon_after_makes_the_change_a_failure_and_is_none_itself():
    back = change(2, kind=ChangeKind.EMERGENCY, release="r0")
    gone = rollout(
        2, Phase.ROLLED_BACK, release="r1", started=NOW + 60 * MINUTE, minutes=62, previous="r0"
    )
    told = measured(
        [change(1), back],
        [rollout(1), gone],
        moves=[move(1, 10, stable="r1"), move(2, 61)],
    )
    found = told.rows[0]
    assert (found.started, found.failure_rate.x, found.emergency.x) == (1, 1, 0)
    assert found.restore_s == 60.0
    assert found.lead_time_s == timedelta(hours=1, minutes=10).total_seconds()


def test_one_that_comes_after_a_week_is_another_story():
    back = change(2, kind=ChangeKind.EMERGENCY, release="r0")
    gone = rollout(2, Phase.ROLLED_BACK, release="r1", started=NOW + timedelta(days=8))
    found = measured([change(1), back], [rollout(1), gone]).rows[0]
    assert found.failure_rate.x == 0


def test_shares_of_kinds_and_months():
    kinds = [ChangeKind.STANDARD] * 3 + [ChangeKind.EMERGENCY] + [ChangeKind.NORMAL] * 2
    changes = [change(n, kind=kind) for n, kind in enumerate(kinds)]
    rollouts = [rollout(n) for n in range(5)] + [
        rollout(5, started=NOW + timedelta(days=10), minutes=99999)
    ]
    whole, november, december = measured(changes, rollouts, by_month=True).rows
    assert (whole.standard.x, whole.emergency.x, whole.started) == (3, 1, 6)
    assert (november.month, november.started) == ("2026-11", 5)
    assert (december.month, december.started) == ("2026-12", 1)
    only = measured(changes, rollouts, since=NOW + timedelta(days=5)).rows[0]
    assert only.started == 1


def test_what_is_live_without_a_change_is_counted():
    found = measured([change(1)], [rollout(1)], moves=[move(1, 1), move(1, 2, cause="by hand")])
    assert found.unauthorised == 1


def test_overdue_reviews_and_gates():
    owing = change(1, kind=ChangeKind.EMERGENCY, review_due=NOW, deferred=("bias",), gates_due=NOW)
    live = move(1, 1, stable="r1")
    found = measured([owing], [rollout(1)], moves=[live]).rows[0]
    assert (found.reviews_open, found.reviews_overdue, found.gates_overdue) == (1, 1, 1)
    done = replace(owing, state=ChangeState.CLOSED, gates_done=NOW)
    found = measured([done], [rollout(1)], moves=[live]).rows[0]
    assert (found.reviews_open, found.gates_overdue) == (0, 0)
    left = measured([owing], [rollout(1)], moves=[live, move(1, 5, stable="r0")]).rows[0]
    assert left.gates_overdue == 0, "a release that answers no more owes nothing"


# --- the timeline ---


def test_stretches_are_what_the_moves_say():
    moves = [
        move(1, 0, stable="r1"),
        move(2, 10, stable="r1", weight=500),
        move(2, 20, stable="r9"),
    ]
    found = sorted(stretches(moves), key=lambda one: (one.since, -one.share))
    told = [(one.version, one.share, one.until) for one in found]
    ten, twenty = NOW + 10 * MINUTE, NOW + 20 * MINUTE
    assert told == [
        ("r1", 1.0, ten), ("r1", 0.95, twenty), ("9", 0.05, twenty), ("r9", 1.0, None),
    ]  # fmt: skip


HOSTILE = "<script>alert(1)</script>&\"'"


@pytest.mark.parametrize("words", ["1.0.0", HOSTILE])
def test_the_picture_stands_alone_and_escapes_all_text(words):
    stretch = Stretch(
        environment=words, release="sha256:a", version=words, share=1.0, since=NOW, until=None
    )
    seen = Happening(at=NOW + MINUTE, kind="alert", environment=words, subject="a", words=words)
    found = Timeline(
        model=words, at=NOW + timedelta(hours=3), stretches=(stretch,), happenings=(seen,)
    )
    picture = timeline_svg(found)
    assert "<script" not in picture
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "")
    root = ET.fromstring(picture)
    assert root.tag.endswith("svg")
    assert any(words in (title.text or "") for title in root.iter() if title.tag.endswith("title"))


def test_a_picture_of_nothing_says_so():
    assert "nothing has answered yet" in timeline_svg(Timeline(model="m", at=NOW))

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from falaj.base.errors import FalajError
from falaj.facts.monitoring import Alert, AlertState, Proposal
from falaj.facts.project import LearningTable, MoveTable
from falaj.learning import rules

AT = datetime(2026, 3, 1, tzinfo=UTC)
YES = LearningTable(retrain=True)


def alert(id="a1", hours=0, **more):
    said = {
        "id": id,
        "kind": "drift",
        "environment": "production",
        "model": "delay",
        "release": "sha256:a",
        "state": AlertState.OPEN,
        "title": "drift in wind",
        "reasons": (),
        "at": AT + timedelta(hours=hours),
    }
    return Alert(**(said | more))


def proposal(of):
    return Proposal(id="p1", alert=of, model="delay", run="", verdict="", reason="", at=AT)


DUE = {
    "an open alert": ([alert()], [], YES, "a1"),
    "no alert": ([], [], YES, None),
    "the project does not want it": ([alert()], [], LearningTable(), None),
    "a closed alert": ([alert(state=AlertState.CLOSED)], [], YES, None),
    "a kind that is not named": (
        [alert(kind="labels")],
        [],
        LearningTable(retrain=True, on=("drift",)),
        None,
    ),
    "a rollback is no reason to retrain": ([alert(kind="rollback")], [], YES, None),
    "proposed already": ([alert()], [proposal("a1")], YES, None),
    "the oldest first": ([alert("a2", 2), alert("a1", 1)], [], YES, "a1"),
    "the next one after it": (
        [alert("a2", 2, release="sha256:b"), alert("a1", 1)],
        [proposal("a1")],
        YES,
        "a2",
    ),
    "labels after drift of the same release": (
        [alert("a2", 2, kind="labels"), alert("a1", 1)],
        [proposal("a1")],
        YES,
        None,
    ),
    "the same release elsewhere": (
        [alert("a2", 2, environment="staging"), alert("a1", 1)],
        [proposal("a1")],
        YES,
        "a2",
    ),
}


@pytest.mark.parametrize(("alerts", "proposals", "table", "due"), DUE.values(), ids=DUE)
def test_which_alert_deserves_a_proposal(alerts, proposals, table, due):
    found = rules.proposal_due(alerts, proposals, table)
    assert (found.id if found else None) == due


MOVES = LearningTable(parameters={"month_to": MoveTable(by=2, at_most=12)})
MOVED = {
    "by its step": (3, 5),
    "never above": (11, 12),
    "at the end it stays": (12, 12),
}


@pytest.mark.parametrize(("last", "after"), MOVED.values(), ids=MOVED)
def test_parameters_of_the_next_run(last, after):
    given = {"month_from": 1, "month_to": last}
    assert rules.next_parameters(given, MOVES) == {"month_from": 1, "month_to": after}
    assert given["month_to"] == last


@pytest.mark.parametrize("given", [{}, {"month_to": "3"}, {"month_to": True}, {"month_to": 3.0}])
def test_a_parameter_that_cannot_move_is_refused_by_name(given):
    with pytest.raises(FalajError, match="month_to") as caught:
        rules.next_parameters(given, MOVES)
    assert caught.value.code == "learning.parameter"

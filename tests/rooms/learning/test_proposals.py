from __future__ import annotations

from datetime import UTC, datetime

import pytest

from falaj.base.errors import Conflict, NotFound
from falaj.facts.monitoring import Alert, AlertState, Proposal
from falaj.learning import service

AT = datetime(2026, 2, 1, tzinfo=UTC)
ALERT = Alert(
    id="a1",
    kind="drift",
    environment="production",
    model="delay",
    release="sha256:a",
    state=AlertState.OPEN,
    title="drift in wind",
    reasons=("wind: PSI 0.4",),
    at=AT,
)


def events(ground):
    ground.store.integrate()
    return [(event.type, event.subject, event.data) for _, event in ground.store.events()]


def test_a_proposal_is_written_with_its_event(ground):
    made = service.propose(ground, ALERT)
    assert ground.store.get(Proposal, made.id).fact == made
    assert (made.alert, made.model, made.run, made.verdict) == ("a1", "delay", "", "")
    assert made.reason == "drift: drift in wind"
    ((kind, subject, data),) = events(ground)
    assert (kind, subject) == ("retraining.proposed", f"proposal/{made.id}")
    assert data["alert"] == "a1"


def test_asked_again_it_is_the_same_proposal(ground):
    made = service.propose(ground, ALERT)
    assert service.propose(ground, ALERT, reason="another") == made
    assert len(events(ground)) == 1


def test_it_is_followed_to_its_change(ground):
    made = service.propose(ground, ALERT, reason="spring is over")
    run = service.advance(ground, made, run="RUN-1")
    service.advance(ground, made, verdict="pass")
    last = service.advance(ground, run, release="sha256:b", change="CHG-0002")
    assert (last.run, last.verdict, last.release, last.change) == (
        "RUN-1",
        "pass",
        "sha256:b",
        "CHG-0002",
    )
    assert last.reason == "spring is over"
    assert ground.store.get(Proposal, made.id).fact == last
    assert [kind for kind, _, _ in events(ground)] == ["retraining.proposed"] + [
        "retraining.advanced"
    ] * 3


def test_saying_the_same_again_writes_nothing(ground):
    made = service.propose(ground, ALERT)
    run = service.advance(ground, made, run="RUN-1")
    assert service.advance(ground, made, run="RUN-1") == run
    assert service.advance(ground, made) == run
    assert len(events(ground)) == 2


@pytest.mark.parametrize("name", ["run", "release", "change"])
def test_what_a_proposal_stands_on_never_becomes_another(ground, name):
    made = service.advance(ground, service.propose(ground, ALERT), **{name: "one"})
    with pytest.raises(Conflict) as caught:
        service.advance(ground, made, verdict="pass", **{name: "two"})
    assert caught.value.code == "learning.set-once"
    assert ground.store.get(Proposal, made.id).fact == made


def test_other_fields_do_not_move(ground):
    made = service.propose(ground, ALERT)
    with pytest.raises(TypeError, match="alert"):
        service.advance(ground, made, alert="a2")


def test_a_proposal_that_is_not_there_is_not_made(ground):
    stranger = Proposal(id="p9", alert="a1", model="m", run="", verdict="", reason="", at=AT)
    with pytest.raises(NotFound):
        service.advance(ground, stranger, run="RUN-1")

"""What an auditor's verifier holds against a change that went live without being allowed to."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest

from falaj.audit.allowed import lacking
from falaj.audit.told import Approved, Changed
from falaj.base import dsse, time
from falaj.changes.templates import digest_of
from falaj.facts.attestations import PREAPPROVAL, statement
from falaj.facts.governance import TemplateTable
from falaj.facts.trust import keys_for
from falaj.facts.wire import plain

NOW = datetime.now(UTC)
TABLE = TemplateTable(environment="production", owner="sara", expires="2099-06-30")
WORDS = digest_of("monthly", TABLE)


class Event(NamedTuple):
    idx: int
    type: str
    time: datetime
    subject: str
    data: dict[str, object]


def change(**more):
    base = {
        "id": "CHG-0001", "kind": "normal", "state": "closed", "release": "r", "evidence": "e",
        "authors": ("ali",), "approvals_needed": 2, "opened": NOW,
    }  # fmt: skip
    return Changed(**(base | more))


def approval(person, **more):
    base = {
        "id": f"a-{person}", "change": "CHG-0001", "release": "r", "evidence": "e",
        "person": person, "principal": person, "decision": "approve", "at": NOW, "expires": NOW,
        "envelope": "",
    }  # fmt: skip
    return Approved(**(base | more))


BOTH = [approval("omar", groups=("risk",)), approval("layla", groups=("risk",), validator=True)]
COUNTED = {
    "two of two": (change(), BOTH, ""),
    "one of two": (change(), BOTH[:1], "1 approvals that hold, needed were 2"),
    "one person twice": (change(), [BOTH[0], BOTH[0]], "1 approvals"),
    "one that was taken back": (change(), [BOTH[0], BOTH[1]._replace(void="x")], "1 approvals"),
    "one over other evidence": (change(), [BOTH[0], BOTH[1]._replace(evidence="f")], "1 approvals"),
    "two of the group": (change(groups_needed={"risk": 2}), BOTH, ""),
    "one of the group": (
        change(groups_needed={"risk": 2}), [BOTH[0], approval("noor"), approval("hind")],
        "1 approvals of group risk, needed were 2"),
    "with a validator": (change(validator=True), BOTH, ""),
    "without a validator": (
        change(validator=True), [BOTH[0], approval("noor")], "without the approval of a validator"),
    "an emergency with its one": (change(kind="emergency", approvals_needed=1), BOTH[:1], ""),
    "an emergency without": (change(kind="emergency", approvals_needed=1), [], "0 approvals"),
    "a rollback": (change(kind="emergency", approvals_needed=0), [], ""),
}  # fmt: skip


@pytest.mark.parametrize(("one", "given", "why"), COUNTED.values(), ids=COUNTED)
def test_persons_groups_and_validators(one, given, why):
    found = list(lacking(one, given, [], lambda _: {}))
    assert bool(found) is bool(why)
    assert why in " ".join(found)


def test_a_kind_that_the_log_does_not_know():
    """Calling a normal change an emergency afterwards saves nobody its approvals."""
    opened = Event(0, "falaj.change.opened", NOW, "change/CHG-0001", {"kind": "normal"})
    renamed = change(kind="emergency", approvals_needed=0)
    (why,) = lacking(renamed, [], [opened], lambda _: {})
    assert "the log says normal" in why


def test_a_rollback_for_which_a_rollout_was_started():
    begun = Event(7, "falaj.rollout.started", NOW, "rollout/RO-1", {})
    (why,) = lacking(change(kind="emergency", approvals_needed=0), [], [begun], lambda _: {})
    assert "event 7" in why


@pytest.fixture(scope="module")
def sealed(key_ring):
    key_ring.create("signer-of-templates", ("approval",))
    key_ring.create("runner-of-gates", ("gate",))

    def seal(*, by="signer-of-templates", kind=PREAPPROVAL, subject=WORDS, **claim):
        said = {
            "template": "monthly", "words": plain(TABLE), "person": "layla", "owner": "sara",
            "at": time.text(NOW - timedelta(days=1)), "expires": time.text(NOW + timedelta(days=1)),
        }  # fmt: skip
        made = statement(kind, "template monthly", subject, said | claim)
        return json.dumps(dsse.seal(made, key_ring.signer(by)), sort_keys=True)

    return seal


def judged(key_ring, *envelopes):
    one = change(kind="standard", approvals_needed=0, template_digest=WORDS, preapproval=envelopes)
    trust = key_ring.trust()
    return list(lacking(one, [], [], lambda at: keys_for(trust, "approval", at)))


def test_a_standard_change_rests_on_a_signed_template(sealed, key_ring):
    assert judged(key_ring, sealed()) == []
    assert judged(key_ring, sealed(person="sara"), sealed()) == [], "one that holds is enough"


TEMPLATES = {
    "no signature": (None, "there is none"),
    "its owner's": ({"person": "sara"}, "its owner signed it"),
    "another key's": ({"by": "runner-of-gates"}, ""),
    "over another template": ({"subject": "sha256:" + "0" * 64}, "over another template"),
    "over other words": ({"words": {"environment": "staging"}}, "over another template"),
    "of another kind": ({"kind": "falaj:approval/v1"}, "a statement of type"),
    "over": ({"expires": time.text(NOW - timedelta(hours=1))}, "not in force"),
    "signed afterwards": ({"at": time.text(NOW + timedelta(hours=1))}, "not in force"),
    "without words": ({"words": None}, "over another template"),
    "without a time": ({"at": 7}, "malformed"),
}


@pytest.mark.parametrize(("how", "why"), TEMPLATES.values(), ids=TEMPLATES)
def test_a_template_that_does_not_hold(sealed, key_ring, how, why):
    found = judged(key_ring, *([] if how is None else [sealed(**how)]))
    assert len(found) == 1
    assert found[0].startswith("no signature over its template holds")
    assert why in found[0]


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"payload": 7}'])
def test_what_is_no_envelope(key_ring, text):
    assert len(judged(key_ring, text)) == 1

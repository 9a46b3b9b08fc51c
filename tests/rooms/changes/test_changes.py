from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from falaj.base.errors import Conflict, FalajError, GateFailed, GateInconclusive, Waits
from falaj.changes import rules
from falaj.facts.changes import Approval, Change, ChangeKind, ChangeState, Decision, Risk
from falaj.facts.checks import CheckResult, GateReport, Verdict, Waiver

NOW = datetime(2026, 11, 24, tzinfo=UTC)
S = ChangeState
CHANGE = Change(
    id="CHG-0001", kind=ChangeKind.NORMAL, state=S.AWAITING_APPROVAL, title="t", reason="r",
    model="m", release="sha256:r", version="1.0.0", environment="production", evidence="sha256:e",
    author="ali", authors=("ali", "sara"), risk=Risk.MEDIUM, approvals_needed=2, opened=NOW, since=NOW,
)  # fmt: skip


def approval(person: str, **more) -> Approval:
    base = {
        "id": f"a-{person}", "change": CHANGE.id, "release": CHANGE.release,
        "evidence": CHANGE.evidence, "person": person, "principal": person,
        "decision": Decision.APPROVE, "comment": "", "at": NOW, "expires": NOW + timedelta(days=1),
        "envelope": "",
    }  # fmt: skip
    return Approval(**(base | more))


@pytest.mark.parametrize(("before", "after"), list(product(S, S)))
def test_every_move_that_the_table_does_not_hold_is_refused(before, after):
    change = replace(CHANGE, state=before)
    if after in rules.MOVES[before]:
        rules.may_move(change, after)
    else:
        with pytest.raises(Conflict, match=str(before)):
            rules.may_move(change, after)


def test_no_path_reaches_implementing_without_approved():
    reach = {S.PROPOSED, S.ASSESSING, S.AWAITING_APPROVAL}
    for _ in S:
        reach |= {to for at in reach - {S.APPROVED} for to in rules.MOVES[at]}
    assert S.IMPLEMENTING not in reach


COUNTS = {
    "two other persons": (["omar", "layla"], {}, 2),
    "one person twice counts once": (["omar", "omar"], {}, 1),
    "an author does not count": (["ali", "omar"], {}, 1),
    "another evidence does not count": (["omar"], {"evidence": "sha256:other"}, 0),
    "another release does not count": (["omar"], {"release": "sha256:other"}, 0),
    "an expired one does not count": (["omar"], {"expires": NOW}, 0),
    "a void one does not count": (["omar"], {"void": "new evidence"}, 0),
    "a rejection is no approval": (["omar"], {"decision": Decision.REJECT}, 0),
}


@pytest.mark.parametrize(("people", "more", "count"), COUNTS.values(), ids=COUNTS)
def test_approvals_that_count(people, more, count):
    given_ = [replace(approval(p, **more), id=f"{p}-{i}") for i, p in enumerate(people)]
    assert len(rules.live_approvals(CHANGE, given_, now=NOW)) == count


def test_a_rejection_ends_it_whatever_else_was_said():
    said = [approval("omar"), approval("layla"), approval("noor", decision=Decision.REJECT)]
    assert rules.state_after(CHANGE, said, now=NOW) is S.REJECTED


def test_one_of_two_still_waits_and_two_of_two_is_approved():
    assert rules.state_after(CHANGE, [approval("omar")], now=NOW) is S.AWAITING_APPROVAL
    both = [approval("omar"), approval("layla")]
    assert rules.state_after(CHANGE, both, now=NOW) is S.APPROVED


@given(st.lists(st.sampled_from(["ali", "sara", "omar"]), max_size=10))
def test_no_number_of_approvals_by_authors_and_one_other_is_enough(people):
    said = [replace(approval(p), id=str(i)) for i, p in enumerate(people)]
    assert rules.state_after(CHANGE, said, now=NOW) is not S.APPROVED


def test_an_approved_change_whose_approvals_expired_waits_again():
    change = replace(CHANGE, state=S.APPROVED)
    both = [approval("omar"), approval("layla")]
    rules.must_be_approved(change, both, now=NOW)
    with pytest.raises(Waits, match="0 of 2"):
        rules.must_be_approved(change, both, now=NOW + timedelta(days=2))


@pytest.mark.parametrize("state", [s for s in S if s is not S.APPROVED])
def test_a_change_that_is_not_approved_is_not_implemented(state):
    both = [approval("omar"), approval("layla")]
    with pytest.raises(FalajError):
        rules.must_be_approved(replace(CHANGE, state=state), both, now=NOW)


def report(
    *verdicts: tuple[str, Verdict], waived: tuple[str, ...] = (), life: int = 1
) -> GateReport:
    return GateReport(
        subject="sha256:t", policy="sha256:p", at=NOW, required=("quality", "bias"),
        results=tuple(
            CheckResult(check=f"{gate}.x", gate=gate, verdict=verdict, reason="because")
            for gate, verdict in verdicts
        ),
        waivers=tuple(
            Waiver(check=c, owner="risk", reason="r", expires=NOW + timedelta(days=life)) for c in waived
        ),
    )  # fmt: skip


GATES = {
    "all pass": (report(("quality", Verdict.PASS), ("bias", Verdict.PASS)), None),
    "one fails": (report(("quality", Verdict.PASS), ("bias", Verdict.FAIL)), GateFailed),
    "an error is no pass": (report(("quality", Verdict.PASS), ("bias", Verdict.ERROR)), GateFailed),
    "inconclusive is no pass": (
        report(("quality", Verdict.PASS), ("bias", Verdict.INCONCLUSIVE)), GateInconclusive),
    "skipped is no pass": (
        report(("quality", Verdict.PASS), ("bias", Verdict.SKIPPED)), GateInconclusive),
    "silence is no pass": (report(("quality", Verdict.PASS)), GateInconclusive),
    "no report at all": (None, GateInconclusive),
    "a waiver lets it through": (
        report(("quality", Verdict.PASS), ("bias", Verdict.INCONCLUSIVE), waived=("bias.x",)), None),
    "an expired waiver does not": (
        report(("quality", Verdict.PASS), ("bias", Verdict.INCONCLUSIVE), waived=("bias.x",), life=0),
        GateInconclusive),
    "no waiver lets a failure through": (
        report(("quality", Verdict.PASS), ("bias", Verdict.FAIL), waived=("bias.x",)), GateFailed),
    "a gate that nobody asked for may fail": (
        report(("quality", Verdict.PASS), ("bias", Verdict.PASS), ("latency", Verdict.FAIL)), None),
}  # fmt: skip


@pytest.mark.parametrize(("found", "refusal"), GATES.values(), ids=GATES)
def test_required_gates_must_hold(found, refusal):
    if refusal is None:
        rules.hold_gates(found, ("quality", "bias"), release="1.0.0", now=NOW)
    else:
        with pytest.raises(refusal):
            rules.hold_gates(found, ("quality", "bias"), release="1.0.0", now=NOW)

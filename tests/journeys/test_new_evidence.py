"""Approvals are given over evidence; newer evidence makes them void."""

from __future__ import annotations

import loans
import pytest
import walks
from walks import falaj


def view(by, change):
    return by.owner.get(f"/changes/{change['id']}")


def gated_again(by, version):
    run = by.owner.get(f"/releases/{version}")["release"]["run"]
    return by.owner.post("/gates", {"run": run, "environment": loans.PLACE})


def test_new_evidence_voids_what_was_approved(project):
    change = walks.opened(project, "1.0.0")
    assert walks.approve(project.reader, change)["state"] == "approved"
    gated_again(project, "1.0.0")

    now = view(project, change)
    assert now["change"]["state"] == "awaiting-approval"
    assert [given["void"] for given in now["approvals"]] == ["new evidence"]
    code, _, err = falaj(project.root, "rollout", "start", change["id"])
    assert code == 4, err
    assert "waits" in err
    assert project.owner.get("/rollouts") == []
    assert walks.told(project, "change.approvals-voided") == [f"change/{change['id']}"]

    # Read again and signed again, it counts; the void one stays in the record.
    assert walks.approve(project.reader, change)["state"] == "approved"
    assert [given["void"] for given in view(project, change)["approvals"]] == ["", "new evidence"]
    walks.turn(project, project.owner.post(f"/changes/{change['id']}/rollout"))


def test_evidence_on_another_model_voids_nothing(project):
    change = walks.opened(project, "1.0.0")
    walks.approve(project.reader, change)
    gated_again(project, "1.1.0")
    assert view(project, change)["change"]["state"] == "approved"


@pytest.mark.parametrize("part", ["shown_release", "shown_evidence", "shown_report"])
def test_what_was_not_seen_is_not_signed(project, part):
    change = walks.opened(project, "1.0.0")
    stale = "sha256:" + "0" * 64
    refusal = walks.refused(walks.approve, project.reader, change, **{part: stale})
    assert (refusal.status, refusal.exit) == (409, 8)
    assert refusal.code == "changes.evidence-changed"
    now = view(project, change)
    assert now["change"]["state"] == "awaiting-approval"
    assert now["approvals"] == []


def test_a_rollout_that_runs_is_not_stopped_by_new_evidence(live):
    """It was approved over what there was; people can end it."""
    rollout = walks.start(live, "1.1.0")
    gated_again(live, "1.1.0")
    assert view(live, {"id": rollout["change"]})["change"]["state"] == "implementing"
    walks.turn(live, rollout, when=lambda now: now["phase"] == "progressing")


def test_who_made_it_cannot_approve_it_under_another_name(project):
    """Four eyes are two persons, not two accounts."""
    project.owner.post(
        "/identities", {"name": "second-account", "roles": ["approver"], "person": "owner"}
    )
    change = walks.opened(project, "1.0.0")
    code, _, err = falaj(
        project.root, "approve", change["id"], "-m", "mine", identity="second-account"
    )
    assert code == 6, err
    assert view(project, change)["approvals"] == []


def test_a_rejected_change_stays_rejected(project):
    change = walks.opened(project, "1.0.0")
    project.reader.post(f"/changes/{change['id']}/reject", {"comment": "not yet"})
    assert view(project, change)["change"]["state"] == "rejected"
    assert walks.refused(walks.approve, project.reader, change).exit == 8
    assert walks.refused(project.owner.post, f"/changes/{change['id']}/rollout").exit == 6

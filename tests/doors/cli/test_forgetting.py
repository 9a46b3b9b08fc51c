"""`falaj access forget`: a person is erased, and the log verifies as before."""

from __future__ import annotations

import sqlite3

import pytest

from falaj.base.errors import Exit


def raw(root):
    return b"".join(path.read_bytes() for path in (root / ".falaj").glob("store.db*"))


@pytest.fixture
def remarked(here, workspace):
    """omar has revoked a key, with a reason."""
    assert here(workspace, "access", "add", "nadia", "--role", "owner").code == 0
    done = here(
        workspace, "--as", "nadia", "keys", "revoke", "zayed", "--kind", "retired", "-m",
        "Zayed Al Farsi has left us",
    )  # fmt: skip
    assert done.code == 0, done.err
    return workspace


def person_of(here, root, name):
    listed = here(root, "access", "list", "--json").json()["data"]
    return next(p["person"] for p in listed if p["name"] == name)


def test_a_person_is_forgotten_and_the_log_verifies(here, remarked):
    person = person_of(here, remarked, "nadia")
    before = here(remarked, "audit", "verify", "--json").json()["data"]
    done = here(remarked, "access", "forget", "nadia")
    assert done.code == 0, done.err
    assert "with 1 remarks" in done.out
    after = here(remarked, "audit", "verify", "--json").json()["data"]
    assert after["findings"] == []
    assert after["size"] > before["size"]
    assert "nadia" not in here(remarked, "access", "list").out
    told = here(remarked, "audit", "list", "--who", person, "--json").json()["data"]["events"]
    assert told, "what was done stays, under the pseudonym"
    assert here(remarked, "--as", "nadia", "status").code != 0


def test_what_a_person_wrote_is_in_no_file_of_the_store(here, remarked):
    assert b"Al Farsi" not in raw(remarked)
    rows = sqlite3.connect(remarked / ".falaj" / "store.db").execute("SELECT * FROM remark")
    assert len(rows.fetchall()) >= 1


def test_an_earlier_proof_still_holds_after_the_erasure(here, remarked):
    from falaj.app import Works
    from falaj.audit.offline import check_proof
    from falaj.base.checkpoints import Signers

    events = here(remarked, "audit", "list", "--type", "key.", "--json").json()["data"]["events"]
    proof = remarked / "event.tlog-proof"
    assert here(remarked, "audit", "prove", events[0]["id"], "-o", str(proof)).code == 0
    assert here(remarked, "access", "forget", "nadia").code == 0
    works = Works.open(remarked)
    assert check_proof(proof.read_bytes(), Signers(works.log.trusted())).holds
    works.close()


def test_who_gave_evidence_is_kept(here, workspace):
    assert here(workspace, "--as", "layla", "approve", "CHG-0001", "-m", "read it").code == 0
    done = here(workspace, "access", "forget", "layla")
    assert done.code == Exit.CONFLICT
    assert "error[access.still-needed]" in done.err
    assert "layla" in here(workspace, "access", "list").out


@pytest.mark.parametrize("name", ["owner", "worker", "owner-2"])
def test_the_workspace_itself_is_not_forgotten(here, workspace, name):
    done = here(workspace, "access", "forget", name)
    assert done.code == Exit.CONFLICT
    assert "error[access.still-needed]" in done.err


def test_who_may_not_manage_access_forgets_nobody(here, workspace):
    assert here(workspace, "--as", "zayed", "access", "forget", "omar").code == Exit.NOT_ALLOWED
    assert here(workspace, "access", "forget", "nobody").code != 0


def test_the_comment_of_an_approval_is_bound_by_its_event(here, workspace):
    from falaj.app import Works
    from falaj.ports.log import Asked

    assert here(workspace, "--as", "layla", "approve", "CHG-0001", "-m", "I read it all").code == 0
    works = Works.open(workspace)
    (found,) = works.log.log.search(Asked(type="change.approved"), limit=1)
    assert works.log.log.remark(found[1].id) == "I read it all"
    assert found[1].data["remark"] != "I read it all"
    works.close()

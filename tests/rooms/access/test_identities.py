"""Accounts, persons, tokens: on the real store and the real key ring."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from falaj.access import service
from falaj.access.service import OWNER, WORKER, Access, NotSignedIn
from falaj.base import tokens
from falaj.base.errors import Conflict, FalajError, NotAllowed
from falaj.facts.access import Action, Principal, Resource, ResourceKind, Role
from falaj.links.keyring.keys import KeyRing
from falaj.links.sql.store import SqlStore

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Place:
    """One project's identities, with a clock that the test moves."""

    def __init__(self, folder: Path, project: str = "small") -> None:
        self.now = START
        self.store = SqlStore.open(folder / "store.db")
        self.keys = KeyRing(folder / "keys", clock=lambda: self.now)
        self.access = Access(self.store, self.keys, project, lambda: self.now)
        self.access.ensure_local()

    def events(self, kind):
        self.store.integrate()
        return [event for _, event in self.store.events() if event.type == kind]

    def roles_of(self, identity):
        return {r for key in self.keys.trust().keys if key.identity == identity for r in key.roles}


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path / "here")
    yield made
    made.store.close()


def change(*authors):
    return Resource(kind=ResourceKind.CHANGE, id="CHG-0001", authors=authors)


def refused(work, code, kind=FalajError):
    with pytest.raises(kind) as caught:
        work()
    assert caught.value.code == code
    return caught.value


def test_a_workspace_starts_with_its_owner_and_its_worker(place):
    place.access.ensure_local()
    found = {p.name: p.roles for p in place.store.find(Principal)}
    assert found == {OWNER: (Role.OWNER,), WORKER: (Role.WORKER,)}
    assert place.roles_of(OWNER) == {"approval"}
    assert place.roles_of(WORKER) == set(), "a machine signs no approval"
    assert len(place.events("principal.added")) == 2


def test_two_accounts_are_two_persons_unless_said(place):
    owner = place.access.principal(OWNER)
    layla = place.access.add("layla", (Role.APPROVER,), actor="t")
    again = place.access.add("owner-2", (Role.APPROVER,), actor="t", person=owner.person)
    assert layla.person != owner.person
    assert again.person == owner.person
    assert again.key != owner.key


def test_four_eyes_look_at_the_person_not_at_the_account(place):
    owner = place.access.principal(OWNER)
    second = place.access.add("owner-2", (Role.APPROVER,), actor="t", person=owner.person)
    layla = place.access.add("layla", (Role.APPROVER,), actor="t")
    asked = change(owner.person)
    for account in (owner, second):
        refused(
            lambda account=account: place.access.permit(account, Action.APPROVE, asked),
            "access.four-eyes",
            NotAllowed,
        )
    assert place.access.permit(layla, Action.APPROVE, asked).person == layla.person


def test_an_account_that_was_not_made_is_nobody(place):
    error = refused(lambda: place.access.principal("nobody"), "access.unknown-identity")
    assert isinstance(error, NotSignedIn)
    assert (error.status, error.exit) == (401, 6)


def test_a_refusal_leaves_an_event(place):
    viewer = place.access.add("zayed", (Role.VIEWER,), actor="t")
    project = Resource(kind=ResourceKind.PROJECT, id="small")
    refused(lambda: place.access.permit(viewer, Action.RUN_PIPELINE, project), "access.denied")
    (event,) = place.events("access.denied")
    assert event.actor == viewer.person
    assert event.subject == "Project/small"
    assert (event.data["action"], event.data["code"]) == ("run-pipeline", "access.denied")
    permit = place.access.permit(viewer, Action.READ, project)
    assert event.data["policy"] == permit.policy
    assert len(place.events("access.denied")) == 1, "what is permitted is told by what it does"


BAD_NAMES = [
    "", ".", "..", "-x", ".hidden", "a/b", "a b", "a\nb", "x" * 65, "ليلى", "a\x00", "é", "A@b",
    *sorted(service.RESERVED),
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_could_be_taken_for_something_else_is_refused(place, name):
    before = place.keys.trust()
    refused(lambda: place.access.add(name, (Role.APPROVER,), actor="t"), "access.bad-name")
    assert place.keys.trust() == before


@pytest.mark.parametrize("name", ["a", "A.b-c_9", "x" * 64, "0"])
def test_plain_names_are_taken(place, name):
    assert place.access.add(name, (Role.VIEWER,), actor="t").name == name


def test_all_keys_of_the_workspace_are_reserved():
    source = Path(service.__file__).parents[1]
    known = {
        found[1]
        for path in source.rglob("*.py")
        for found in re.finditer(
            r'^(?:\w+_SIGNER|ISSUER_KEY): Final = "([^"]+)"$', path.read_text(), re.MULTILINE
        )
    }
    assert len(known) >= 6
    assert known | {"root"} == service.RESERVED


def test_a_second_account_of_the_same_name_changes_nothing(place):
    before = place.keys.trust()
    refused(lambda: place.access.add(WORKER, (Role.APPROVER,), actor="t"), "store.exists", Conflict)
    assert place.roles_of(WORKER) == set()
    assert place.keys.trust() == before


def test_a_token_leads_back_to_its_account(place):
    place.access.add("layla", (Role.APPROVER,), actor="t")
    token = place.access.token("layla", timedelta(minutes=15))
    assert place.access.bearer(token) == place.access.principal("layla")
    (event,) = place.events("token.issued")
    assert token not in str(event.data)


LIFETIMES = [timedelta(0), timedelta(seconds=-5), timedelta(milliseconds=999), timedelta(hours=13)]


@pytest.mark.parametrize("lifetime", LIFETIMES, ids=str)
def test_a_token_dies_soon(place, lifetime):
    refused(lambda: place.access.token(OWNER, lifetime), "access.token-lifetime")


def test_an_expired_token_is_refused(place):
    token = place.access.token(OWNER, timedelta(minutes=15))
    place.now = START + timedelta(minutes=15, seconds=31)
    error = refused(lambda: place.access.bearer(token), "access.bad-token", NotSignedIn)
    assert "expired" in str(error)


def test_a_token_of_another_project_is_refused(place, tmp_path):
    other = Place(tmp_path / "there", "other")
    token = other.access.token(OWNER, timedelta(minutes=15))
    refused(lambda: place.access.bearer(token), "access.bad-token", NotSignedIn)
    other.store.close()


def test_a_token_of_another_project_on_the_same_ring_is_refused(place):
    other = Access(place.store, place.keys, "other", lambda: place.now)
    token = other.token(OWNER, timedelta(minutes=15))
    error = refused(lambda: place.access.bearer(token), "access.bad-token", NotSignedIn)
    assert "issuer" in str(error)


def test_the_key_of_an_approver_makes_no_token(place):
    place.access.token(OWNER, timedelta(minutes=1))
    forged = tokens.issue(
        place.keys.signer(OWNER),
        issuer="falaj:small",
        audience=service.AUDIENCE,
        subject=OWNER,
        now=START,
        lifetime=timedelta(minutes=5),
    )
    error = refused(lambda: place.access.bearer(forged), "access.bad-token", NotSignedIn)
    assert "kid" in str(error)


def test_a_token_outlives_neither_its_account_nor_its_key(place):
    """The subject must be somebody here; the issuer's key must be trusted at this time."""
    token = tokens.issue(
        issuing(place),
        issuer="falaj:small",
        audience=service.AUDIENCE,
        subject="ghost",
        now=START,
        lifetime=timedelta(minutes=5),
    )
    refused(lambda: place.access.bearer(token), "access.unknown-identity", NotSignedIn)
    place.now = START + timedelta(days=731)
    late = tokens.issue(
        issuing(place, renew=False),
        issuer="falaj:small",
        audience=service.AUDIENCE,
        subject=OWNER,
        now=place.now,
        lifetime=timedelta(minutes=5),
    )
    refused(lambda: place.access.bearer(late), "access.bad-token", NotSignedIn)


def issuing(place, *, renew=True):
    if renew:
        place.keys.create(service.ISSUER_KEY, ("token",))
    return place.keys.signer(service.ISSUER_KEY)

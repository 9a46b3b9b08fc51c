"""Every answer of the policy engine against a plain table, and every rule against its absence."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from importlib.resources import files
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.access import engine
from falaj.base.errors import NotAllowed
from falaj.facts.access import Action, Principal, Resource, ResourceKind, Role

NOW = datetime(2026, 3, 1, tzinfo=UTC)
POLICY = files("falaj.access").joinpath("policy")
POLICIES = POLICY.joinpath("base.cedar").read_text()
SCHEMA = POLICY.joinpath("falaj.cedarschema").read_text()

A, K = Action, ResourceKind
MODELS = {K.PROJECT, K.MODEL}
ON = {  # what an action can be asked on at all
    A.READ: set(K),
    A.RUN_PIPELINE: MODELS,
    A.CHECK_GATE: MODELS,
    A.WAIVE: {K.PROJECT},
    A.CREATE_RELEASE: MODELS,
    A.OPEN_CHANGE: {K.ENVIRONMENT},
    A.TAKE_UP: {K.CHANGE},
    A.APPROVE: {K.CHANGE},
    A.REJECT: {K.CHANGE},
    A.START_ROLLOUT: {K.CHANGE},
    A.STEER_ROLLOUT: {K.ENVIRONMENT},
    A.ROLL_BACK: {K.ENVIRONMENT},
    A.RECONCILE: {K.PROJECT},
    A.MONITOR: MODELS,
    A.RETRAIN: MODELS,
    A.EXPORT_EVIDENCE: MODELS,
    A.MANAGE_ACCESS: {K.PROJECT},
    A.SWEEP: {K.PROJECT},
    A.IMPORT_MODEL: {K.PROJECT},
    A.IMPORT_ADVISORIES: {K.PROJECT},
    A.PUSH_RELEASE: {K.PROJECT},
    A.SIGN_RELEASE: {K.PROJECT},
    A.WITNESS_LOG: {K.PROJECT},
    A.WITHDRAW: {K.CHANGE},
    A.RETRACT: {K.CHANGE},
    A.REVIEW: {K.CHANGE},
    A.PREAPPROVE: {K.PROJECT},
    A.SCORE: {K.PROJECT},
}
MAY = {  # besides reading
    Role.OWNER: set(A) - {A.WAIVE},
    Role.AUTHOR: {
        A.RUN_PIPELINE, A.CHECK_GATE, A.CREATE_RELEASE, A.OPEN_CHANGE, A.TAKE_UP, A.EXPORT_EVIDENCE,
        A.IMPORT_MODEL, A.PUSH_RELEASE, A.SIGN_RELEASE, A.WITHDRAW, A.SCORE,
    },
    Role.APPROVER: {
        A.APPROVE, A.REJECT, A.EXPORT_EVIDENCE, A.SIGN_RELEASE, A.RETRACT, A.REVIEW, A.PREAPPROVE,
    },
    Role.VALIDATOR: {
        A.APPROVE, A.REJECT, A.EXPORT_EVIDENCE, A.RETRACT, A.REVIEW, A.CHECK_GATE,
    },
    Role.OPERATOR: {A.START_ROLLOUT, A.STEER_ROLLOUT, A.ROLL_BACK, A.RECONCILE, A.MONITOR, A.IMPORT_ADVISORIES, A.SCORE},
    Role.RISK: {A.WAIVE, A.REVIEW, A.PREAPPROVE},
    Role.VIEWER: set(),
    Role.WORKER: {A.RECONCILE, A.MONITOR, A.RETRAIN, A.ROLL_BACK},
    Role.LOG: {A.WITNESS_LOG},
}  # fmt: skip


def expected(roles, person, action, kind, authors):
    if kind not in ON[action]:
        return False
    if action in (A.APPROVE, A.REVIEW) and person in authors:
        return False
    if action is A.WAIVE and Role.RISK not in roles:
        return False
    if Role.LOG in roles and action is not A.WITNESS_LOG:
        return False
    return action is A.READ or any(action in MAY[role] for role in roles)


def who(*roles, name="aisha", person="p-1"):
    return Principal(name=name, person=person, roles=roles, created=NOW)


def allowed(principal, action, resource, rules=None):
    try:
        engine.decide(principal, action, resource, now=NOW, rules=rules or engine.bundle())
    except NotAllowed:
        return False
    return True


def thing(kind, authors=()):
    return Resource(kind=kind, id="x-1", authors=authors)


def differences(rules):
    """Where the rules answer otherwise than the table, for one role at a time and for nobody."""
    found = []
    for roles in [(), *((role,) for role in Role)]:
        for action, kind in product(Action, ResourceKind):
            for authors in ((), ("p-1", "p-2")) if kind is K.CHANGE else ((),):
                wanted = expected(roles, "p-1", action, kind, authors)
                if allowed(who(*roles), action, thing(kind, authors), rules) is not wanted:
                    found.append((roles, action, kind, authors))
    return found


def test_every_role_action_and_kind():
    assert set(ON) == set(Action), "a new action needs its line here"
    assert set(MAY) == set(Role), "a new role needs its line here"
    assert differences(engine.bundle()) == []


PERSONS = st.sampled_from(["p-1", "p-2", "p-3", "شخص", 'p"] };', "p-1 "])


@given(
    roles=st.lists(st.sampled_from(Role), max_size=4).map(tuple),
    person=PERSONS,
    action=st.sampled_from(Action),
    kind=st.sampled_from(ResourceKind),
    authors=st.lists(PERSONS, max_size=3).map(tuple),
)
def test_any_mix_of_roles_and_authors(roles, person, action, kind, authors):
    principal = who(*roles, person=person)
    wanted = expected(roles, person, action, kind, authors)
    assert allowed(principal, action, thing(kind, authors)) is wanted


NAMES = re.findall(r'@id\("([^"]+)"\)', POLICIES)


@pytest.mark.parametrize("name", NAMES)
def test_no_rule_can_vanish_unseen(name):
    parts = re.split(r'(?=@id\(")', POLICIES)
    without = "".join(part for part in parts if not part.startswith(f'@id("{name}")'))
    assert len(re.findall("@id", without)) == len(NAMES) - 1
    assert differences(engine.compiled(without, SCHEMA)) != []


def test_the_table_of_policies_is_the_one_we_know():
    assert NAMES == [
        "everyone-reads", "owner", "author", "approver", "validator", "operator", "risk", "worker",
        "log", "a-log-sees-nothing", "four-eyes", "independent-review", "risk-alone-waives",
    ]  # fmt: skip


FORBID = 'forbid(principal is Falaj::User, action == Falaj::Action::"approve", resource is Falaj::Change) '
BROKEN = {
    "an action that is not declared": (
        'permit(principal, action == Falaj::Action::"aprove", resource);',
        "aprove",
    ),
    "an attribute that no resource has": (
        FORBID + "when { resource.writers.contains(principal.person) };",
        "writers",
    ),
    "a type that is not declared": (
        "permit(principal is Falaj::Robot, action, resource);",
        "Robot",
    ),
    "no policy language at all": ("let everybody in", ""),
    "a condition on another type": (
        FORBID + "when { resource.authors < 3 };",
        "",
    ),
}


@pytest.mark.parametrize(("policy", "named"), BROKEN.values(), ids=BROKEN)
def test_a_policy_that_does_not_fit_its_schema_is_no_policy(policy, named):
    with pytest.raises(ValueError) as caught:
        engine.compiled(f"{POLICIES}\n{policy}", SCHEMA)
    assert named in str(caught.value)


def test_the_permit_says_who_what_and_by_which_rules():
    permit = engine.decide(
        who(Role.APPROVER), A.APPROVE, thing(K.CHANGE, ("p-2",)), now=NOW, rules=engine.bundle()
    )
    assert (permit.principal, permit.person, permit.action) == ("aisha", "p-1", A.APPROVE)
    assert (permit.resource, permit.at) == ("Change/x-1", NOW)
    assert permit.policy == engine.bundle().digest
    other = engine.compiled(POLICIES + "// a remark\n", SCHEMA)
    assert permit.policy != other.digest, "another text is another policy"


REFUSALS = {
    "an own change": (who(Role.OWNER), thing(K.CHANGE, ("p-1",)), "access.four-eyes"),
    "an own change under another account": (
        who(Role.APPROVER, name="aisha-2"), thing(K.CHANGE, ("p-9", "p-1")), "access.four-eyes",
    ),
    "somebody without the role": (who(Role.VIEWER), thing(K.CHANGE), "access.denied"),
    "somebody without any role": (who(), thing(K.CHANGE), "access.denied"),
    "a thing that cannot be approved": (who(Role.OWNER), thing(K.PROJECT), "access.denied"),
    "a release, which only a change may carry": (
        who(Role.OWNER), thing(K.RELEASE), "access.denied",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("principal", "resource", "code"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_names_its_rule(principal, resource, code):
    with pytest.raises(NotAllowed) as caught:
        engine.decide(principal, A.APPROVE, resource, now=NOW, rules=engine.bundle())
    assert caught.value.code == code
    assert caught.value.problems[0].fix


HOSTILE = ['"', "\\", "a\nb", "::", 'Falaj::Role::"owner"', "\x00", "\u202e", "ل" * 300]


@pytest.mark.parametrize("text", HOSTILE)
def test_names_of_others_cannot_change_the_answer(text):
    principal = who(Role.VIEWER, name=text, person=text)
    resource = Resource(kind=K.CHANGE, id=text, authors=(text,))
    assert allowed(principal, A.READ, resource)
    assert not allowed(principal, A.APPROVE, resource)
    owner = who(Role.OWNER, name=text, person=text)
    assert not allowed(owner, A.APPROVE, resource)
    assert allowed(owner, A.REJECT, resource)

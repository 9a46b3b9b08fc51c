"""What must not happen to a change, asked for at the door: refused, the rule named, in the audit log.

Each case prepares a project, asks for one thing, and finds that nothing has come of it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import loans
import pytest
import walks
from loans import PLACE

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
NOW = datetime.now(UTC)
LATER = DAYS[(NOW.weekday() + 3) % 7]
SEEN = ("release", "evidence", "report")

STAGING = """
[environments.staging]
target = "local"
requires = ["data", "quality"]
approvals = 1

[environments.production]"""
TEMPLATE = """
[changes.templates.monthly]
environment = "production"
owner = "sara"
expires = "{expires}"
max_per_month = {most}

[changes.templates.monthly.bounds]
parameters = [{parameters}]
datasets = ["rows"]
"""


def template(*, expires="2099-06-30", most=10, parameters=""):
    return TEMPLATE.format(expires=expires, most=most, parameters=parameters)


def inside(words):
    """Settings of the production environment."""
    return loans.TOML.replace(
        "[environments.production]\n", f"[environments.production]\n{words}\n"
    )


FREEZE = f"""
[[changes.freezes]]
name = "year end"
starts = "{NOW - timedelta(days=1):%Y-%m-%d}"
ends = "{NOW + timedelta(days=1):%Y-%m-%d}"
"""
CALENDAR = f"""BEGIN:VCALENDAR
BEGIN:VEVENT
SUMMARY:Elections
DTSTART;VALUE=DATE:{NOW - timedelta(days=1):%Y%m%d}
DTEND;VALUE=DATE:{NOW + timedelta(days=2):%Y%m%d}
END:VEVENT
END:VCALENDAR
"""


# --- what is prepared, and what is asked for ---


def identity(by, name, *roles, groups=(), person=""):
    by.owner.post("/identities", {"name": name, "roles": roles, "groups": groups, "person": person})
    return walks.Embedded(by.works, name)


def asked(by, version="1.0.0", place=PLACE, **more):
    return by.owner.post(f"/environments/{place}/changes", {"release": version, **more})


def agreed(by, version="1.0.0"):
    change = asked(by, version)
    walks.approve(by.reader, change)
    return change


def start(by, change):
    return by.owner.post(f"/changes/{change['id']}/rollout")


def at_time(by, later):
    """The same project, later: the clock is given by the wiring."""
    by.works.ground = replace(by.works.ground, now=lambda: datetime.now(UTC) + later)


def signed(by, name="monthly"):
    by.reader.post(f"/templates/{name}/preapprove", {"comment": "small"})


def rewritten(by, toml):
    """The project file is another one from now on."""
    (by.root / "falaj.toml").write_text(toml)
    from falaj.links.files.project import read_project

    by.works.ground = replace(by.works.ground, project=read_project(by.root / "falaj.toml"))


def own_change(by):
    change = asked(by)
    return lambda: walks.approve(by.owner, change)


def own_change_second_account(by):
    second = identity(by, "owner-2", "approver", person="owner")
    change = asked(by)
    return lambda: walks.approve(second, change)


def two_names_in_one_group(by):
    identity(by, "hind", "approver", groups=["model-risk"])
    one = walks.Embedded(by.works, "hind")
    other = identity(by, "hind-2", "approver", groups=["model-risk"], person="hind")
    change = asked(by)
    walks.approve(one, change)
    return lambda: walks.approve(other, change)


def the_same_name_twice(by):
    change = asked(by)
    walks.approve(by.reader, change)
    return lambda: walks.approve(by.reader, change)


def stale(part):
    def prepare(by):
        change = asked(by)
        digest = "sha256:" + "0" * 64
        return lambda: walks.approve(by.reader, change, **{f"shown_{part}": digest})

    return prepare


def evidence_came_between(by):
    change = asked(by)
    seen = by.reader.get(f"/changes/{change['id']}")["change"]
    run = by.owner.get("/releases/1.0.0")["release"]["run"]
    by.owner.post("/gates", {"run": run, "environment": PLACE})
    shown = {f"shown_{name}": seen[name] for name in SEEN}
    body = {"comment": "read it before", **shown}
    return lambda: by.reader.post(f"/changes/{change['id']}/approve", body)


def starting(by):
    change = agreed(by)
    return lambda: start(by, change)


def with_calendar(by):
    (by.root / "freezes.ics").write_text(CALENDAR)
    return starting(by)


def with_calendar_that_repeats(by):
    text = CALENDAR.replace("END:VEVENT", "RRULE:FREQ=YEARLY\nEND:VEVENT")
    (by.root / "freezes.ics").write_text(text)
    return starting(by)


def planned_for_tomorrow(by):
    change = asked(by, not_before=f"{NOW + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}")
    walks.approve(by.reader, change)
    return lambda: start(by, change)


def planned_for_yesterday(by):
    change = asked(by, not_after=f"{NOW - timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}")
    walks.approve(by.reader, change)
    return lambda: start(by, change)


def opening(by):
    return lambda: asked(by)


def region_changed_after_the_approval(by):
    change = agreed(by)
    rewritten(by, inside('region = "bh"'))
    return lambda: start(by, change)


def staging_added_after_the_approval(by):
    change = agreed(by)
    rewritten(by, loans.TOML.replace("[environments.production]", STAGING.strip(), 1))
    return lambda: start(by, change)


def the_approval_expired(by):
    change = agreed(by)
    at_time(by, timedelta(days=2))
    return lambda: start(by, change)


def the_approval_was_taken_back(by):
    change = agreed(by)
    by.reader.post(f"/changes/{change['id']}/retract", {"comment": "the wrong report"})
    return lambda: start(by, change)


def retracting_what_was_not_given(by):
    change = agreed(by)
    other = identity(by, "hind", "approver")
    return lambda: other.post(f"/changes/{change['id']}/retract", {"comment": "not mine"})


def the_change_was_withdrawn(by):
    change = agreed(by)
    by.owner.post(f"/changes/{change['id']}/withdraw", {"comment": "a better one comes"})
    return lambda: start(by, change)


def nobody_decided_in_time(by):
    change = asked(by)
    at_time(by, timedelta(days=40))
    by.works.turn(frozenset({"monitors"}))
    return lambda: walks.approve(by.reader, change)


def by_template(by):
    identity(by, "sara", "author")
    return lambda: asked(by, template="monthly")


def by_signed_template(by):
    identity(by, "sara", "author")
    signed(by)
    return lambda: asked(by, template="monthly")


def by_template_that_is_over(by):
    identity(by, "sara", "author")
    signed(by)
    at_time(by, timedelta(days=3))
    return lambda: asked(by, template="monthly")


def signing_what_is_over(by):
    identity(by, "sara", "author")
    return lambda: signed(by)


def by_template_with_other_words(by):
    identity(by, "sara", "author")
    signed(by)
    rewritten(by, loans.TOML + template(parameters='"month"'))
    return lambda: asked(by, template="monthly")


def signing_other_words(by):
    identity(by, "sara", "author")
    body = {"comment": "fine", "shown": "sha256:" + "0" * 64}
    return lambda: by.reader.post("/templates/monthly/preapprove", body)


def signing_the_own_template(by):
    who = identity(by, "sara", "author", "approver")
    return lambda: who.post("/templates/monthly/preapprove", {"comment": "mine"})


def signing_the_own_template_under_another_name(by):
    identity(by, "sara", "author")
    who = identity(by, "sara-2", "approver", person="sara")
    return lambda: who.post("/templates/monthly/preapprove", {"comment": "mine"})


def a_template_of_another_environment(by):
    identity(by, "sara", "author")
    signed(by)
    return lambda: asked(by, place="staging", template="monthly")


def no_such_template(by):
    return lambda: asked(by, template="weekly")


def a_template_that_nobody_owns(by):
    return lambda: asked(by, template="monthly")


def both_kinds(by):
    return lambda: asked(by, template="monthly", incident="INC-7")


def an_author_starts(by):
    change = agreed(by)
    rewritten(by, inside("protected = true"))
    return lambda: start(by, change)


def too_few_of_a_group(by):
    change = agreed(by)  # layla is in no group
    return lambda: start(by, change)


def without_a_validator(by):
    identity(by, "hind", "approver")
    change = asked(by)
    walks.approve(by.reader, change)
    walks.approve(walks.Embedded(by.works, "hind"), change)
    return lambda: start(by, change)


def a_validator_from_the_authors_team(by):
    """The owner made the release; a second account puts that person into the team."""
    identity(by, "owner-2", "author", groups=["credit"], person="owner")
    near = identity(by, "hind", "validator", groups=["credit"])
    change = asked(by)
    walks.approve(by.reader, change)
    walks.approve(near, change)
    return lambda: start(by, change)


def reviewing_before_the_end(by):
    change = agreed(by)
    body = {"conclusion": "it went well"}
    return lambda: by.reader.post(f"/changes/{change['id']}/review", body)


def an_author_reviews(by):
    change = agreed(by)
    body = {"conclusion": "it went well"}
    return lambda: by.owner.post(f"/changes/{change['id']}/review", body)


class Case(NamedTuple):
    prepare: object
    code: str
    rule: str
    status: int = 403
    exit: int = 6
    toml: str = loans.TOML


WAITS = {"status": 409, "exit": 4}
CONFLICT = {"status": 409, "exit": 8}
USAGE = {"status": 400, "exit": 2}
CASES = {
    "an own change": Case(own_change, "access.four-eyes", "four-eyes"),
    "an own change under a second name": Case(
        own_change_second_account, "access.four-eyes", "four-eyes"),
    "one person under two names in one group": Case(
        two_names_in_one_group, "changes.same-person", "one-person-one-approval",
        toml=inside("groups = { model-risk = 2 }")),
    "the same name twice": Case(
        the_same_name_twice, "changes.same-person", "one-person-one-approval"),
    **{
        f"approving a stale {part}": Case(
            stale(part), "changes.evidence-changed", "same-evidence", **CONFLICT)
        for part in SEEN
    },
    "evidence came between look and signature": Case(
        evidence_came_between, "changes.evidence-changed", "same-evidence", **CONFLICT),
    "outside the windows": Case(
        starting, "changes.outside-window", "window",
        toml=inside(f'timezone = "Asia/Dubai"\nwindows = [{{ days = ["{LATER}"] }}]')),
    "during a freeze": Case(starting, "changes.frozen", "freeze", toml=loans.TOML + FREEZE),
    "during a freeze of the calendar": Case(
        with_calendar, "changes.frozen", "freeze", toml=inside('calendar = "freezes.ics"')),
    "with a calendar that is not understood": Case(
        with_calendar_that_repeats, "changes.bad-calendar", "freeze", **USAGE,
        toml=inside('calendar = "freezes.ics"')),
    "with a calendar that is not there": Case(
        starting, "changes.bad-calendar", "freeze", **USAGE,
        toml=inside('calendar = "freezes.ics"')),
    "before its own time": Case(
        planned_for_tomorrow, "changes.outside-own-window", "planned-window"),
    "after its own time": Case(
        planned_for_yesterday, "changes.outside-own-window", "planned-window"),
    "to a wrong region": Case(
        opening, "changes.wrong-region", "residency", toml=inside('region = "bh"')),
    "to a region that is wrong by now": Case(
        region_changed_after_the_approval, "changes.wrong-region", "residency"),
    "past an environment": Case(
        opening, "changes.skipped-environment", "promotion-order",
        toml=loans.TOML.replace("[environments.production]", STAGING.strip(), 1)),
    "past an environment that came later": Case(
        staging_added_after_the_approval, "changes.skipped-environment", "promotion-order"),
    "with an approval that expired": Case(
        the_approval_expired, "changes.approvals-void", "live-approvals", **WAITS,
        toml=loans.TOML + '\n[changes.approvals]\nlife = "1d"\n'),
    "with an approval that was taken back": Case(
        the_approval_was_taken_back, "changes.waits-for-approval", "taken back by layla", **WAITS),
    "taking back what another gave": Case(
        retracting_what_was_not_given, "changes.nothing-to-retract", "own-approval"),
    "of a change that was withdrawn": Case(
        the_change_was_withdrawn, "changes.not-approved", "only an approved change"),
    "approving what nobody decided about in time": Case(
        nobody_decided_in_time, "changes.wrong-state", "nothing", **CONFLICT),
    "by a template that nobody signed": Case(
        by_template, "changes.template-not-signed", "template-signed",
        toml=loans.TOML + template()),
    "by a template that is over": Case(
        by_template_that_is_over, "changes.template-expired", "template-expired",
        toml=loans.TOML + template(expires=f"{NOW + timedelta(days=1):%Y-%m-%d}")),
    "signing a template that is over": Case(
        signing_what_is_over, "changes.template-expired", "template-expired",
        toml=loans.TOML + template(expires="2026-01-01")),
    "by a template that was signed with other words": Case(
        by_template_with_other_words, "changes.template-not-signed", "template-signed",
        toml=loans.TOML + template()),
    "signing a template that was not read": Case(
        signing_other_words, "changes.template-changed", "same-template",
        toml=loans.TOML + template()),
    "signing an own template": Case(
        signing_the_own_template, "changes.own-template", "four-eyes",
        toml=loans.TOML + template()),
    "signing an own template under another name": Case(
        signing_the_own_template_under_another_name, "changes.own-template", "four-eyes",
        toml=loans.TOML + template()),
    "by a template of another environment": Case(
        a_template_of_another_environment, "changes.template-environment", "template-environment",
        toml=loans.TOML.replace("[environments.production]", STAGING.strip(), 1) + template()),
    "by a template, and nothing is live to compare with": Case(
        by_signed_template, "changes.beyond-template", "template-bounds",
        toml=loans.TOML + template()),
    "by a template that is none": Case(
        no_such_template, "changes.no-template", "monthly", status=404, exit=2,
        toml=loans.TOML + template()),
    "by a template whose owner is nobody": Case(
        a_template_that_nobody_owns, "changes.no-owner", "template-owner", status=404, exit=2,
        toml=loans.TOML + template()),
    "by a template and as an emergency": Case(
        both_kinds, "changes.two-kinds", "", **USAGE, toml=loans.TOML + template()),
    "from code that is in no commit": Case(
        opening, "changes.uncommitted-code", "committed-code", toml=inside("protected = true")),
    "started by an author, where that is protected": Case(
        an_author_starts, "changes.own-rollout", "author-does-not-deploy"),
    "without the group that is asked for": Case(
        too_few_of_a_group, "changes.waits-for-approval", "", **WAITS,
        toml=inside("groups = { model-risk = 1 }")),
    "without a validator": Case(
        without_a_validator, "changes.waits-for-approval", "", **WAITS,
        toml=loans.TOML + '\n[changes.approvals]\nvalidator = "always"\n'),
    "with a validator of the authors' own team": Case(
        a_validator_from_the_authors_team, "changes.waits-for-approval", "", **WAITS,
        toml=loans.TOML + '\n[changes.approvals]\nvalidator = "always"\n'),
    "reviewing what has not ended": Case(
        reviewing_before_the_end, "changes.wrong-state", "", **CONFLICT),
    "reviewing what one has made": Case(
        an_author_reviews, "access.independent-review", "independent-review"),
}  # fmt: skip


@pytest.fixture
def with_rules(prepared, tmp_path, at):
    """The prepared project under another falaj.toml."""

    def open_(toml):
        root = walks.copied(prepared, tmp_path / "loans")
        (root / "falaj.toml").write_text(toml)
        return at(root)

    return open_


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_refused_named_and_written_down(with_rules, case):
    by = with_rules(case.toml)
    ask = case.prepare(by)
    before = by.owner.get("/changes")
    found = walks.refused(ask)
    codes = [problem.code for problem in found.problems]
    assert (found.status, found.exit) == (case.status, case.exit), found.problems
    assert case.code in codes, found.problems
    problem = found.problems[codes.index(case.code)]
    assert case.rule in problem.why + problem.message
    assert problem.fix or problem.why
    assert by.owner.get("/rollouts") == [], "nothing has begun"
    assert by.owner.get("/changes") == before, "and nothing was decided"
    told = [e for e in walks.history(by) if e["type"].endswith((".refused", ".denied"))]
    data = told[-1]["data"]
    assert data.get("codes", [data["code"]]) == codes
    assert told[-1]["data"]["policy"].startswith("sha256:")


def test_people_read_the_rule_and_what_to_do(with_rules):
    """The same at the command line, by another process."""
    by = with_rules(loans.TOML + FREEZE)
    change = agreed(by)
    code, _, err = walks.falaj(by.root, "rollout", "start", change["id"])
    assert code == 6
    for words in ("changes.frozen", "year end", "rule freeze", "next opening", "--emergency"):
        assert words in " ".join(err.split()), err
    code, out, _ = walks.falaj(by.root, "audit", "list", "--type", "change.refused")
    assert code == 0
    assert change["id"] in out


def test_every_rule_that_forbids_is_told_at_once(with_rules):
    """Nobody mends one thing to hear of the next."""
    closed = f'region = "bh"\nwindows = [{{ days = ["{LATER}"] }}]'
    by = with_rules(loans.TOML)
    change = agreed(by)
    rewritten(by, inside(closed) + FREEZE)
    found = walks.refused(start, by, change)
    codes = [problem.code for problem in found.problems]
    assert codes == ["changes.wrong-region", "changes.frozen", "changes.outside-window"]
    assert walks.history(by)[-1]["data"]["codes"] == codes

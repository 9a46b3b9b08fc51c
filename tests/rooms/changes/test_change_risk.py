"""Risk from what differs; approvals from risk; what a template lets through."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from falaj.changes import risk, rules, templates
from falaj.facts.access import Principal, Role
from falaj.facts.changes import ChangeKind, Preapproval, Risk, RiskFactor
from falaj.facts.checks import CheckResult, GateReport, Verdict, Waiver
from falaj.facts.data import Classification
from falaj.facts.governance import (
    ApprovalsTable,
    BoundsTable,
    ChangesTable,
    TemplateTable,
)
from falaj.facts.releases import DiffRow, Release, ReleaseDiff

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def release(tree="t", **more):
    base = {
        "id": f"sha256:{tree}", "model": "m", "version": "1", "model_version": "m/1", "run": "r",
        "tree": tree, "folder": "f", "evidence": "sha256:e", "authors": ("ali",), "created": NOW,
    }  # fmt: skip
    return Release(**(base | more))


def report(*results, required=("quality",), waivers=()):
    found = results or (result("quality.roc_auc", 0.8),)
    return GateReport(
        subject="s", policy="p", at=NOW, results=tuple(found), required=required, waivers=waivers
    )


def result(check, value, *, gate="quality", metric="roc_auc", verdict=Verdict.PASS):
    return CheckResult(
        check=check, gate=gate, verdict=verdict, reason="because", metric=metric, value=value
    )


def differs(*rows, findings=()):
    return ReleaseDiff(
        one="sha256:a", other="sha256:b", one_version="1", other_version="2", one_model="m",
        other_model="m", rows=tuple(rows), findings=findings,
    )  # fmt: skip


def row(section, what, before="x", after="y", note="", change="changed"):
    return DiffRow(section=section, what=what, change=change, before=before, after=after, note=note)


COLUMN = ("place 0, -3 to 4 AED", "place 0, -3.5 to 5 AED")
WEIGHED = {
    "other code": (row("code", "code files"), Risk.MEDIUM),
    "another commit of the same code": (row("code", "commit"), Risk.LOW),
    "code that is in no commit": (
        row("code", "changes that are not committed"), Risk.MEDIUM),
    "other rows": (row("data", "flights: content"), Risk.LOW),
    "another source": (row("data", "flights: source"), Risk.MEDIUM),
    "a dataset more": (row("data", "weather", "", "9 rows", change="added"), Risk.HIGH),
    "another class of data": (
        row("data", "label: classification", "internal", "personal"), Risk.HIGH),
    "a column's range": (row("features", "in x.a", *COLUMN), Risk.LOW),
    "a column's unit": (row("features", "in x.a", COLUMN[0], "place 0, -3 to 4 USD"), Risk.HIGH),
    "a column's place": (row("features", "in x.a", COLUMN[0], "place 1, -3 to 4 AED"), Risk.HIGH),
    "a column more": (row("features", "in x.b", "", COLUMN[0], change="added"), Risk.HIGH),
    "the threshold": (row("features", "threshold", "0.5", "0.4"), Risk.MEDIUM),
    "a parameter": (row("parameters", "depth", "6", "9"), Risk.MEDIUM),
    "the seed": (row("parameters", "seed", "0", "1"), Risk.LOW),
    "another pipeline": (row("parameters", "pipeline"), Risk.HIGH),
    "a package": (row("dependencies", "numpy", "1", "2"), Risk.MEDIUM),
    "the same version with other files": (
        row("dependencies", "numpy 1: hashes", note="x"), Risk.HIGH),
    "a metric inside its interval": (
        row("metrics", "quality.auc", note="the intervals overlap"), Risk.LOW),
    "a metric outside its interval": (
        row("metrics", "quality.auc", note="the intervals lie apart"), Risk.MEDIUM),
    "the rules of the gates": (row("gates", "digest of the rules"), Risk.MEDIUM),
    "a gate that is no longer required": (
        row("gates", "bias", "pass (required)", "pass (not required)"), Risk.HIGH),
    "a gate that is gone": (
        row("gates", "bias", "pass (required)", "", change="removed"), Risk.HIGH),
    "a statement that is missing": (
        row("evidence", "vulns.dsse.json", "d", "", change="removed"), Risk.MEDIUM),
}  # fmt: skip


@pytest.mark.parametrize(("one", "expected"), WEIGHED.values(), ids=WEIGHED)
def test_what_a_difference_weighs(one, expected):
    found = risk.factors(release("t"), release("t"), report(), differs(one))
    own = [factor for factor in found if factor.what == one.section]
    assert [factor.risk for factor in own] == [expected]
    assert own[0].reason
    assert own[0].points > 0


GENERAL = {
    "the same file": (release("t"), report(), differs(), {}, Risk.LOW),
    "a new file": (release("u"), report(), differs(), {}, Risk.MEDIUM),
    "the first one": (None, report(), None, {}, Risk.MEDIUM),
    "nobody can say what differs": (release("u"), report(), None, {}, Risk.HIGH),
    "a folder that does not hold": (
        release("u"), report(), differs(findings=("1: a file differs",)), {}, Risk.HIGH),
    "a check that was waived": (
        release("u"),
        report(waivers=(Waiver(check="bias.x", owner="n", reason="r", expires=NOW),)),
        differs(), {}, Risk.HIGH),
    "made from personal data": (
        release("t"), report(), differs(), {"classification": Classification.PERSONAL},
        Risk.MEDIUM),
}  # fmt: skip


@pytest.mark.parametrize(
    ("old", "evidence", "apart", "more", "expected"), GENERAL.values(), ids=GENERAL
)
def test_the_risk_is_that_of_the_highest_factor(old, evidence, apart, more, expected):
    found = risk.factors(release("t"), old, evidence, apart, **more)
    assert risk.risk_of(found) is expected
    assert found[0].risk is expected, "the highest stands first"


def test_more_differences_score_higher_at_the_same_risk():
    few = risk.factors(release("u"), release("t"), report(), differs(row("parameters", "depth")))
    many = risk.factors(
        release("u"), release("t"), report(),
        differs(row("parameters", "depth"), row("code", "code files"), row("dependencies", "numpy")),
    )  # fmt: skip
    assert risk.risk_of(few) is risk.risk_of(many) is Risk.MEDIUM
    assert risk.score_of(many) > risk.score_of(few)


def assessed(level, **more):
    factor = RiskFactor(what="x", risk=level, points=3, reason="because")
    base = {"floor": 1, "groups": {}, "table": ChangesTable()}
    return rules.assess([factor], **(base | more))


def test_approvals_follow_the_risk_and_the_floor_is_no_ceiling():
    assert assessed(Risk.LOW).approvals == 1
    assert assessed(Risk.HIGH).approvals == 2
    assert assessed(Risk.HIGH).validator
    assert assessed(Risk.LOW, floor=3).approvals == 3
    asked = ChangesTable(approvals=ApprovalsTable(medium=2, validator="medium"))
    found = assessed(Risk.MEDIUM, table=asked, groups={"risk": 1})
    assert (found.approvals, found.groups, found.validator) == (2, {"risk": 1}, True)
    assert not assessed(Risk.LOW, table=asked).validator


def test_an_emergency_asks_for_fewer_and_a_standard_one_for_nobody():
    found = assessed(Risk.HIGH, floor=3, groups={"risk": 1}, kind=ChangeKind.EMERGENCY)
    assert (found.approvals, found.groups, found.validator) == (1, {}, False)
    assert assessed(Risk.LOW, floor=3, kind=ChangeKind.STANDARD).approvals == 0


def who(*roles):
    return Principal(name="v", person="v", roles=roles, created=NOW)


def test_a_validator_is_of_another_group_than_every_author():
    yes = who(Role.VALIDATOR)
    assert rules.independent(yes, frozenset({"risk"}), frozenset({"credit"}))
    assert rules.independent(yes, frozenset(), frozenset())
    assert not rules.independent(yes, frozenset({"risk", "credit"}), frozenset({"credit"}))
    assert not rules.independent(who(Role.APPROVER), frozenset({"risk"}), frozenset())


# --- templates ---

TABLE = TemplateTable(environment="production", owner="sara", expires="2027-06-30")
BOUNDS = BoundsTable(parameters=("month",), datasets=("rows",), rows_change=0.1, metric_drop=0.02)
BEYOND = {
    "other code": row("code", "code files"),
    "a column more": row("features", "in x.b", "", COLUMN[0], change="added"),
    "the threshold": row("features", "threshold", "0.5", "0.4"),
    "a parameter that is not named": row("parameters", "depth", "6", "9"),
    "another pipeline": row("parameters", "pipeline", "a", "b"),
    "a package": row("dependencies", "numpy", "1", "2"),
    "a dataset that is not named": row("data", "weather: content"),
    "a dataset more": row("data", "weather", "", "9 rows", change="added"),
    "another source": row("data", "rows: source"),
    "a column of the data more": row("data", "rows: column z", "", "d", change="added"),
    "another label": row("data", "label: countries", "ae", "ae, bh"),
    "too many rows more": row("data", "rows: rows", "1000", "1101"),
    "too many rows less": row("data", "rows: rows", "1000", "899"),
    "a gate that is no longer required": row(
        "gates", "bias", "pass (required)", "pass (not required)"
    ),
    "other rules": row("gates", "digest of the rules"),
}
INSIDE = {
    "nothing but the model": (),
    "a parameter that is named": (row("parameters", "month", "3", "4"),),
    "another seed": (row("parameters", "seed", "0", "1"),),
    "other rows of a dataset that is named": (
        row("data", "rows: content"), row("data", "rows: rows", "1000", "1100"),
        row("data", "rows: column a"),
    ),
    "the range of a column": (row("features", "in x.a", *COLUMN),),
    "another commit of the same code": (row("code", "commit"),),
    "metrics and evidence, which are judged otherwise": (
        row("metrics", "quality.auc"), row("evidence", "provenance.dsse.json"),
    ),
}  # fmt: skip


def outside(*rows, new=None, live=None, returns=True, bounds=BOUNDS):
    return list(
        templates.outside(
            bounds, release("u"), release("t"), differs(*rows), new or report(), live or report(),
            returns=returns,
        )
    )  # fmt: skip


@pytest.mark.parametrize("one", BEYOND.values(), ids=BEYOND)
def test_beyond_the_bounds(one):
    found = outside(one)
    assert found
    assert {problem.code for problem in found} == {"changes.beyond-template"}
    assert all("template-bounds" in problem.why for problem in found)


@pytest.mark.parametrize("rows", INSIDE.values(), ids=INSIDE)
def test_inside_the_bounds(rows):
    assert outside(*rows) == []


def test_packages_may_differ_where_the_template_says_so():
    allowed = replace(BOUNDS, packages=True)
    assert outside(row("dependencies", "numpy", "1", "2"), bounds=allowed) == []


def test_a_metric_may_be_worse_by_so_much():
    live = report(result("quality.roc_auc", 0.80))
    assert outside(new=report(result("quality.roc_auc", 0.781)), live=live) == []
    assert outside(new=report(result("quality.roc_auc", 0.95)), live=live) == []
    (found,) = outside(new=report(result("quality.roc_auc", 0.77)), live=live)
    assert "worse by 0.03" in found.message
    losses = [report(result("quality.log_loss", v, metric="log_loss")) for v in (0.5, 0.4, 0.6)]
    assert outside(new=losses[1], live=losses[0]) == []
    assert outside(new=losses[2], live=losses[0])


def test_a_standard_change_is_green_by_itself_and_comes_back_by_itself():
    waiver = Waiver(check="quality.roc_auc", owner="n", reason="r", expires=NOW)
    assert outside(new=report(waivers=(waiver,)))
    assert outside(new=report(result("quality.roc_auc", 0.8, verdict=Verdict.INCONCLUSIVE)))
    assert outside(returns=False)
    assert list(
        templates.outside(BOUNDS, release("u"), None, None, report(), None, returns=True)
    ), "a first release has nothing to be compared with"


def signature(person="layla", **more):
    base = {
        "id": f"p-{person}", "template": "monthly", "digest": templates.digest_of("monthly", TABLE),
        "owner": "sara", "person": person, "principal": person, "comment": "", "at": NOW,
        "expires": NOW + timedelta(days=30), "envelope": "",
    }  # fmt: skip
    return Preapproval(**(base | more))


SIGNED = {
    "by another person": (signature(), 1),
    "by its owner": (signature("sara"), 0),
    "over other words": (signature(digest="sha256:other"), 0),
    "of another template": (signature(template="weekly"), 0),
    "expired": (signature(expires=NOW), 0),
    "void": (signature(void="left"), 0),
    "more than a year ago": (
        signature(at=NOW - timedelta(days=367), expires=NOW + timedelta(days=1)), 0),
}  # fmt: skip


@pytest.mark.parametrize(("one", "count"), SIGNED.values(), ids=SIGNED)
def test_signatures_that_count(one, count):
    found = templates.live_signatures("monthly", TABLE, [one, one], "sara", now=NOW)
    assert len(found) == count


def test_each_word_of_a_template_is_signed():
    known = templates.digest_of("monthly", TABLE)
    for other in (
        replace(TABLE, expires="2027-07-01"), replace(TABLE, owner="omar"),
        replace(TABLE, bounds=BOUNDS), replace(TABLE, max_per_month=11),
        replace(TABLE, about="x"),
    ):  # fmt: skip
        assert templates.digest_of("monthly", other) != known
    assert templates.digest_of("weekly", TABLE) != known


def test_the_last_day_of_a_template_is_a_whole_day():
    over = templates.last_moment(TABLE, UTC)
    assert over == datetime(2027, 7, 1, tzinfo=UTC)

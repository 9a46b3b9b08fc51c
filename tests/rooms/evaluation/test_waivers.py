"""Only doubt is waived, by somebody else, with a reason and an end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from falaj.base.errors import FalajError, NotAllowed, NotFound
from falaj.evaluation import rules
from falaj.facts.checks import CheckResult, GateReport, Verdict

NOW = datetime(2026, 11, 24, tzinfo=UTC)
MONTH = timedelta(days=30)
REPORT = GateReport(
    subject="t", policy="p", at=NOW, required=("bias",),
    results=tuple(
        CheckResult(check=f"bias.{verdict}", gate="bias", verdict=verdict, reason="")
        for verdict in Verdict
    ),
)  # fmt: skip


def test_an_inconclusive_check_can_be_waived():
    rules.may_waive(REPORT, "bias.inconclusive", "10 rows a month", MONTH, is_author=False)


@pytest.mark.parametrize("verdict", [v for v in Verdict if v is not Verdict.INCONCLUSIVE])
def test_nothing_else_can(verdict):
    with pytest.raises(NotAllowed, match=str(verdict)):
        rules.may_waive(REPORT, f"bias.{verdict}", "please", MONTH, is_author=False)


REFUSED = {
    "an own model": ("bias.inconclusive", "why", MONTH, True, NotAllowed),
    "a check that is not there": ("bias.other", "why", MONTH, False, NotFound),
    "no reason": ("bias.inconclusive", "  ", MONTH, False, FalajError),
    "no life": ("bias.inconclusive", "why", timedelta(0), False, FalajError),
    "more than a year": ("bias.inconclusive", "why", timedelta(days=366), False, FalajError),
}


@pytest.mark.parametrize(
    ("check", "reason", "life", "is_author", "error"), REFUSED.values(), ids=REFUSED
)
def test_refused(check, reason, life, is_author, error):
    with pytest.raises(error):
        rules.may_waive(REPORT, check, reason, life, is_author=is_author)

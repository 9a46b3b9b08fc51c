"""When a retraining is proposed, and with which parameters. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from falaj.base.errors import FalajError
from falaj.facts.monitoring import Alert, AlertState, Proposal
from falaj.facts.project import LearningTable

__all__ = ["next_parameters", "proposal_due"]


def proposal_due(
    alerts: Sequence[Alert], proposals: Iterable[Proposal], table: LearningTable
) -> Alert | None:
    """The oldest alert that a retraining should be proposed for.

    1. Nothing where the project does not want proposals.
    2. Only open alerts of the kinds that the project names.
    3. One proposal an alert; and one a release and environment: a second alert about the same
       release asks for the same retraining.
    """
    if not table.retrain:
        return None
    proposed = {one.alert for one in proposals}
    answered = {_about(one) for one in alerts if one.id in proposed}
    due = [
        one
        for one in alerts
        if one.state is AlertState.OPEN and one.kind in table.on and _about(one) not in answered
    ]
    return min(due, key=lambda one: (one.at, one.id), default=None)


def next_parameters(last: Mapping[str, Any], table: LearningTable) -> dict[str, Any]:
    """Parameters of the next run from those of the last one.

    Raises FalajError `learning.parameter` when one that should move is no whole number.
    """
    try:
        return table.moved(dict(last))
    except TypeError as error:
        raise FalajError(
            "learning.parameter",
            str(error),
            why="the last run has no such parameter, or it is of another kind",
            fix="name a whole-number parameter of the pipeline in [learning.parameters]",
        ) from None


def _about(alert: Alert) -> tuple[str, str, str]:
    return alert.environment, alert.model, alert.release

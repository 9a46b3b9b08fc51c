"""Walk (d), last part: an alert proposes a retraining, with evidence, as a change for people.

One step a call over the stored proposal; `next_step` says which. Running, gating and releasing are
the other journeys': whoever works this off calls them and writes down here how far it is.
"""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

from falaj.facts.monitoring import Alert, AlertState, Proposal
from falaj.facts.releases import Release
from falaj.facts.runs import Run
from falaj.learning import rules, service
from falaj.ports.ground import Ground

__all__ = ["Due", "Step", "due", "propose", "record"]


class Step(enum.StrEnum):
    RUN = "run"
    GATE = "gate"
    RELEASE = "release"
    CHANGE = "change"


class Due(NamedTuple):
    """The next step of one proposal, with what it needs."""

    step: Step
    proposal: Proposal
    alert: Alert
    parameters: dict[str, Any]


def propose(ground: Ground) -> Proposal | None:
    """Write down a proposal when an open alert asks for one."""
    found = rules.proposal_due(
        ground.store.find(Alert, state=AlertState.OPEN),
        ground.store.find(Proposal),
        ground.project.learning,
    )
    if found is None:
        return None
    return service.propose(ground, found, reason=found.title)


def due(ground: Ground) -> Due | None:
    """The next step of the oldest proposal that is not at its end."""
    for proposal in reversed(ground.store.find(Proposal)):
        step = next_step(proposal)
        if step is None:
            continue
        alert = ground.store.get(Alert, proposal.alert).fact
        release = ground.store.get(Release, alert.release).fact
        last = ground.store.get(Run, release.run).fact
        # Parameters of an imported model are words of another program; the pipeline's own begin.
        known = {} if last.origin is not None else last.parameters
        parameters = rules.next_parameters(known, ground.project.learning)
        return Due(step, proposal, alert, parameters)
    return None


def next_step(proposal: Proposal) -> Step | None:
    """Run, gate, release, change; a verdict other than pass ends it."""
    if proposal.change or proposal.verdict not in ("", "pass"):
        return None
    if not proposal.run:
        return Step.RUN
    if not proposal.verdict:
        return Step.GATE
    return Step.CHANGE if proposal.release else Step.RELEASE


def record(ground: Ground, proposal: Proposal, **fields: str) -> Proposal:
    """Write down what a step made."""
    return service.advance(ground, proposal, **fields)

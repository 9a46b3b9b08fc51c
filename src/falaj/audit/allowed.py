"""Whether a change that went live was allowed to: by approvals, a signed template, or as a rollback. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from falaj.audit.told import Approved, Changed
from falaj.base import bundle, canonical, digests, dsse, time
from falaj.base.predicates import PREAPPROVAL

__all__ = ["LIVE", "lacking"]

# Whatever came after it had begun.
LIVE: Final = frozenset({"implementing", "implemented", "rolled-back", "failed", "closed"})
Keys = Callable[[datetime], Mapping[str, bytes]]


def lacking(
    change: Changed, approvals: Sequence[Approved], events: Sequence[Any], keys: Keys
) -> Iterator[str]:
    """Why it may not have gone live, each reason.

    approvals: those of this change whose signature holds. events: of the log about this change and its
    rollouts. keys: of role `approval` that were good at a time.

    1. Its kind is the one that the log last said. 2. A normal change and an emergency have their
    persons, of the groups and with the validator that were asked for. 3. A standard one rests on a
    template that another person than its owner had signed. 4. An emergency that asked for nobody is a
    rollback: no rollout was started for it.
    """
    said = [
        e.data["kind"] for e in events if "kind" in e.data and e.subject == f"change/{change.id}"
    ]
    if said and said[-1] != change.kind:
        yield f"told is a {change.kind} change, the log says {said[-1]}"
    if change.kind == "standard":
        yield from _template(change, keys)
        return
    live = [
        approval
        for approval in approvals
        if approval.decision == "approve"
        and not approval.void
        and approval.release == change.release
        and approval.evidence == change.evidence
    ]
    people = {approval.person for approval in live}
    if len(people) < change.approvals_needed:
        yield (
            f"went live with {len(people)} approvals that hold, needed were "
            f"{change.approvals_needed}"
        )
    for group, number in sorted(change.groups_needed.items()):
        those = {approval.person for approval in live if group in approval.groups}
        if len(those) < number:
            yield f"went live with {len(those)} approvals of group {group}, needed were {number}"
    if change.validator and not any(approval.validator for approval in live):
        yield "went live without the approval of a validator"
    begun = [e for e in events if e.type == "falaj.rollout.started"]
    if change.kind == "emergency" and not change.approvals_needed and begun:
        yield f"asked for no approval, and event {begun[0].idx} of the log started a rollout for it"


def _template(change: Changed, keys: Keys) -> Iterator[str]:
    reasons = []
    for text in change.preapproval:
        why = _unsigned(change, text, keys)
        if not why:
            return
        reasons.append(why)
    yield f"no signature over its template holds: {'; '.join(reasons) or 'there is none'}"


def _unsigned(change: Changed, text: str, keys: Keys) -> str:
    """Why one envelope is no signature over the template that the change stands on."""
    try:
        statement, _ = bundle.statement_of(canonical.loads(text.encode()), keys(change.opened))
        claim = statement["predicate"]
        over = digests.of_bytes(
            canonical.dumps({"template": claim["template"], "table": claim["words"]})
        )
        signed, ends = time.parse_instant(claim["at"]), time.parse_instant(claim["expires"])
    except (canonical.NotCanonical, dsse.BadEnvelope) as error:
        return str(error)
    except (KeyError, TypeError, ValueError):
        return "its words are malformed"
    if statement["predicateType"] != PREAPPROVAL:
        return f"it is a statement of type {statement['predicateType']}"
    if bundle.subject_of(statement) != change.template_digest or over != change.template_digest:
        return "it is over another template"
    if claim["person"] == claim.get("owner"):
        return "its owner signed it"
    if not signed <= change.opened < ends:
        return f"it was not in force at {time.text(change.opened)}"
    return ""

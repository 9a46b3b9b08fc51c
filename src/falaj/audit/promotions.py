"""Whether what policy allowed is what was done: the signed grounds of a rollout's start. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from falaj.audit.told import PROMOTION, Approved, Changed, Started
from falaj.base import bundle, canonical, digests, dsse, time
from falaj.base.predicates import PROVENANCE

__all__ = ["Grounds", "file_of", "misgivings", "starts"]

APPROVALS: Final = "approvals/"
TRAINED: Final = "falaj:train/v1"
LEVELS: Final = ("SLSA_BUILD_LEVEL_1", "SLSA_BUILD_LEVEL_UNEVALUATED")


class Grounds(NamedTuple):
    """What a pack holds for a promotion to rest on.

    approvals: file -> the approval that holds. evidence: of the release, path -> digest; empty when
    the release is not here. statements: those of the evidence whose signature held.
    """

    project: str
    change: Changed | None
    approvals: Mapping[str, Approved]
    hashes: Mapping[str, str]
    evidence: Mapping[str, str]
    statements: Mapping[str, dict[str, Any]]


def file_of(rollout: Started) -> str:
    return f"promotions/{rollout.id}.dsse.json"


def misgivings(
    data: bytes, rollout: Started, keys: Mapping[str, bytes], grounds: Grounds
) -> Iterator[str]:
    """Why these bytes are no permission for this start; each reason.

    1. They are those kept with the rollout, signed by a key of role `policy`. 2. They speak about its
    release, change, environment and time. 3. Policy said yes, and says no more than is proved here.
    4. They rest on all evidence of the release and leave none out. 5. Each gate that they say was
    required has passed. 6. The approvals that they rest on hold, held at that time, and are enough.
    """
    if data.decode(errors="replace") != rollout.promotion:
        yield "the envelope is not the one in rollouts.json"
    try:
        statement, _ = bundle.statement_of(canonical.loads(data), keys)
    except (canonical.NotCanonical, dsse.BadEnvelope) as error:
        yield str(error)
        return
    if statement["predicateType"] != PROMOTION:
        yield f"it is a statement of type {statement['predicateType']}"
        return
    if bundle.subject_of(statement) != rollout.release:
        yield f"it speaks about release {bundle.subject_of(statement)}, not {rollout.release}"
    said = statement["predicate"]
    place = f"{rollout.environment}/{rollout.model}/{rollout.version}"
    told = {
        "timeVerified": time.text(rollout.started),
        "resourceUri": f"falaj:{grounds.project}/{place}",
        "verificationResult": "PASSED",
        "falaj_rollout": rollout.id,
        "falaj_change": rollout.change,
        "falaj_environment": rollout.environment,
    }
    for key, value in told.items():
        if said.get(key) != value:
            yield f"signed is {key} {said.get(key)!r}, told is {value!r}"
    match said.get("policy"):
        case {"digest": {"sha256": str(digest)}} if digests.is_digest(f"sha256:{digest}"):
            pass
        case _:
            yield "it names no digest of the policy that decided"
    yield from _levels(said.get("verifiedLevels"), grounds)
    rests_on = _named(said.get("inputAttestations"))
    if rests_on is None:
        yield "its inputAttestations are malformed, or name one thing twice"
        return
    yield from _evidence(rests_on, said.get("falaj_requires"), grounds)
    yield from _approvals(rests_on, rollout, grounds)


def _levels(levels: object, grounds: Grounds) -> Iterator[str]:
    if not isinstance(levels, list) or len(levels) != 1 or levels[0] not in LEVELS:
        yield f"verifiedLevels: got {levels!r}, expected one of {', '.join(LEVELS)}"
    elif levels[0] == LEVELS[0] and grounds.evidence:
        made = [
            statement["predicate"].get("buildDefinition")
            for statement in grounds.statements.values()
            if statement["predicateType"] == PROVENANCE
        ]
        if not any(isinstance(how, dict) and how.get("buildType") == TRAINED for how in made):
            yield f"it claims {levels[0]}, and no provenance that holds says how the model was made"


def _named(given: object) -> dict[str, str] | None:
    """What it rests on: name -> digest."""
    if not isinstance(given, list):
        return None
    found: dict[str, str] = {}
    for one in given:
        match one:
            case {"uri": str(name), "digest": {"sha256": str(digest)}} if name not in found:
                found[name] = f"sha256:{digest}"
            case _:
                return None
    return found


def _evidence(rests_on: Mapping[str, str], requires: object, grounds: Grounds) -> Iterator[str]:
    if not grounds.evidence:
        return
    seen = {name: d for name, d in rests_on.items() if not name.startswith(APPROVALS)}
    for name in sorted(seen.keys() - grounds.evidence.keys()):
        yield f"it rests on {name}, which is not in the release"
    for name in sorted(grounds.evidence.keys() - seen.keys()):
        yield f"it leaves out {name} of the release"
    for name in sorted(grounds.evidence.keys() & seen.keys()):
        if grounds.evidence[name] != seen[name]:
            yield f"it rests on another {name} than the release holds"
    if not isinstance(requires, list):
        yield "it does not say which gates were required"
        return
    for finding in bundle.required(grounds.statements, [str(gate) for gate in requires], None):
        yield f"it says that gate was required: {finding.message}"


def _approvals(rests_on: Mapping[str, str], rollout: Started, grounds: Grounds) -> Iterator[str]:
    people = set()
    for name in sorted(name for name in rests_on if name.startswith(APPROVALS)):
        if grounds.hashes.get(name) != rests_on[name]:
            yield f"it rests on another {name} than lies here"
            continue
        approval = grounds.approvals.get(name)
        if approval is None:
            yield f"it rests on {name}, which does not hold"
        elif (
            approval.change != rollout.change
            or approval.release != rollout.release
            or approval.decision != "approve"
            or approval.void
        ):
            yield f"it rests on {name}, which approves something else"
        elif not approval.at <= rollout.started < approval.expires:
            yield f"it rests on {name}, which was not in force at {time.text(rollout.started)}"
        else:
            people.add(approval.person)
    if grounds.change is None:
        yield f"change {rollout.change} is not in the pack"
    elif len(people) < grounds.change.approvals_needed:
        yield (
            f"it rests on {len(people)} approvals that hold, needed were "
            f"{grounds.change.approvals_needed}"
        )


def starts(events: Sequence[Any]) -> dict[str, Any]:
    """Rollout -> the event of its start."""
    return {
        event.subject.removeprefix("rollout/"): event
        for event in events
        if event.type == "falaj.rollout.started" and event.subject.startswith("rollout/")
    }

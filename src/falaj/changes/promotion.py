"""What policy allowed when a rollout began, as SLSA's summary of a verification (VSA). Pure.

Source: https://slsa.dev/spec/v1.1/verification_summary. What the standard has no word for stands
under names that begin with `falaj_`, as it asks of extensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from falaj.base import bundle, digests, time
from falaj.facts.access import Permit
from falaj.facts.attestations import DECISION, statement
from falaj.facts.changes import Approval, Change
from falaj.facts.rollouts import Rollout

__all__ = ["promotion"]


def promotion(
    rollout: Rollout,
    change: Change,
    permit: Permit,
    approvals: Sequence[Approval],
    *,
    project: str,
    files: Mapping[str, str],
    requires: Sequence[str],
    trained_here: bool,
    version: str,
) -> dict[str, Any]:
    """Policy lets this release walk into this environment now; the statement of it, unsigned.

    approvals: those that count. files: of the release, path -> digest; it rests on all evidence among
    them. requires: gates that the environment asks for, each of which has just been verified.
    trained_here: a signed provenance says how the model was made. version: Falaj's own.
    """
    grounds = bundle.evidence_of(files) | {
        f"approvals/{one.id}.dsse.json": digests.of_bytes(one.envelope.encode())
        for one in approvals
    }
    return statement(
        DECISION,
        f"{change.model} {change.version}",
        change.release,
        {
            "verifier": {"id": f"falaj:policy/{project}", "version": {"falaj": version}},
            "timeVerified": time.text(rollout.started),
            "resourceUri": f"falaj:{project}/{change.environment}/{change.model}/{change.version}",
            "policy": {"uri": "falaj:policy/cedar", "digest": _sha256(permit.policy)},
            "inputAttestations": [
                {"uri": name, "digest": _sha256(digest)} for name, digest in sorted(grounds.items())
            ],
            "verificationResult": "PASSED",
            # Training and signing share a user here: no more can be said (slsa.dev, build track).
            "verifiedLevels": [
                "SLSA_BUILD_LEVEL_1" if trained_here else "SLSA_BUILD_LEVEL_UNEVALUATED"
            ],
            "slsaVersion": "1.1",
            "falaj_rollout": rollout.id,
            "falaj_change": change.id,
            "falaj_environment": change.environment,
            "falaj_requires": sorted(requires),
            "falaj_person": permit.person,
        },
    )


def _sha256(digest: str) -> dict[str, str]:
    return {"sha256": digest.removeprefix("sha256:")}

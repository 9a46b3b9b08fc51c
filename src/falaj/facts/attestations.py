"""in-toto Statements: what is said about which bytes. Signed as DSSE envelopes."""

from __future__ import annotations

from typing import Any, Final

from falaj.facts.wire import plain

__all__ = [
    "APPROVAL",
    "CODE_SCAN",
    "DECISION",
    "GATE",
    "MODEL_SIGNING",
    "PROVENANCE",
    "PUBLISHED",
    "STATEMENT_TYPE",
    "TEST_RESULT",
    "VULNERABILITIES",
    "statement",
]

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PROVENANCE: Final = "https://slsa.dev/provenance/v1"
GATE: Final = "falaj:gate/v1"
APPROVAL: Final = "falaj:approval/v1"
DECISION: Final = "https://slsa.dev/verification_summary/v1"
TEST_RESULT: Final = "https://in-toto.io/attestation/test-result/v0.1"
VULNERABILITIES: Final = "https://in-toto.io/attestation/vulns/v0.2"
CODE_SCAN: Final = "falaj:code-scan/v1"
PUBLISHED: Final = "falaj:published/v1"
MODEL_SIGNING: Final = "https://model_signing/signature/v1.0"


def statement(kind: str, name: str, digest: str, predicate: object) -> dict[str, Any]:
    """Say `predicate` about the thing called `name` whose SHA-256 is `digest`."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}],
        "predicateType": kind,
        "predicate": plain(predicate),
    }

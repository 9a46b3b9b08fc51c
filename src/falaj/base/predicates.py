"""Names of the statements that are signed here, the form of in-toto. One spelling for all that read them."""

from __future__ import annotations

from typing import Final

__all__ = [
    "APPROVAL",
    "CODE_SCAN",
    "DECISION",
    "GATE",
    "MODEL_SIGNING",
    "PREAPPROVAL",
    "PROVENANCE",
    "PUBLISHED",
    "REVIEW",
    "STATEMENT_TYPE",
    "TEST_RESULT",
    "VULNERABILITIES",
]

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PROVENANCE: Final = "https://slsa.dev/provenance/v1"
GATE: Final = "falaj:gate/v1"
APPROVAL: Final = "falaj:approval/v1"
PREAPPROVAL: Final = "falaj:preapproval/v1"
REVIEW: Final = "falaj:review/v1"
DECISION: Final = "https://slsa.dev/verification_summary/v1"  # what policy allowed
TEST_RESULT: Final = "https://in-toto.io/attestation/test-result/v0.1"
VULNERABILITIES: Final = "https://in-toto.io/attestation/vulns/v0.2"
CODE_SCAN: Final = "falaj:code-scan/v1"
PUBLISHED: Final = "falaj:published/v1"
MODEL_SIGNING: Final = "https://model_signing/signature/v1.0"

"""in-toto Statements: what is said about which bytes. Signed as DSSE envelopes."""

from __future__ import annotations

from typing import Any

from falaj.base.predicates import (
    APPROVAL,
    CODE_SCAN,
    DECISION,
    GATE,
    MODEL_SIGNING,
    PREAPPROVAL,
    PROVENANCE,
    PUBLISHED,
    REVIEW,
    STATEMENT_TYPE,
    TEST_RESULT,
    VULNERABILITIES,
)
from falaj.facts.wire import plain

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
    "statement",
]


def statement(kind: str, name: str, digest: str, predicate: object) -> dict[str, Any]:
    """Say `predicate` about the thing called `name` whose SHA-256 is `digest`."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}],
        "predicateType": kind,
        "predicate": plain(predicate),
    }

"""What scans of dependencies and code found, and the advisories that they were held against.

Wire rules as for all facts: fields are only added, at the end, with a default.
"""

from __future__ import annotations

from typing import Literal

from falaj.base.time import Instant
from falaj.facts.checks import CheckResult, Verdict
from falaj.facts.wire import Fact

__all__ = [
    "AdvisoryDatabase",
    "AdvisoryStatement",
    "CodeFinding",
    "Declared",
    "Licence",
    "Scan",
    "Severity",
    "Vulnerability",
]

Severity = Literal["critical", "high", "medium", "low", "unrated"]


class AdvisoryStatement(Fact, frozen=True, kw_only=True):
    """What the signature of a bundle says about the database inside it.

    built_at: when the export was read. newest: the last change of any record. source: name of the
    archive, source_sha256 its digest. sha256: digest of the database, bytes its size.
    """

    v: int = 1
    ecosystem: str
    records: int
    withdrawn: int
    built_at: Instant
    newest: Instant | None = None
    source: str
    source_sha256: str
    sha256: str
    bytes: int
    licence: str = ""


class AdvisoryDatabase(Fact, frozen=True, kw_only=True):
    """A database that was taken in. Never one that is older than one before it.

    id: digest of its file. signer: identity whose key signed the bundle, key: its hint. trust:
    version of the trust root that said so, roots: hints of its root keys.
    """

    id: str
    ecosystem: str
    records: int
    built_at: Instant
    newest: Instant | None = None
    source: str
    source_sha256: str
    signer: str
    key: str
    person: str
    at: Instant
    trust: int = 0
    roots: tuple[str, ...] = ()


class Vulnerability(Fact, frozen=True, kw_only=True):
    """One advisory about one pinned package.

    id: its own name; ids: with every alias, so that one flaw under two names is one finding.
    state: `unknown` where version or range cannot be compared; why says so. cvss: base score.
    """

    package: str
    version: str
    id: str
    ids: tuple[str, ...]
    severity: Severity
    state: Literal["affected", "unknown"] = "affected"
    why: str = ""
    summary: str = ""
    fixed: tuple[str, ...] = ()
    cvss: float | None = None
    line: int = 1  # of the lock


class Declared(Fact, frozen=True, kw_only=True):
    """What the metadata of an installed package says about its licence."""

    package: str
    version: str
    expression: str = ""
    text: str = ""
    classifiers: tuple[str, ...] = ()


class Licence(Fact, frozen=True, kw_only=True):
    """expression: SPDX, nothing where it is not known; why says what stands there instead."""

    package: str
    version: str
    expression: str = ""
    why: str = ""


class CodeFinding(Fact, frozen=True, kw_only=True):
    """What a scanner says about a line of the project's code. Never the line itself."""

    tool: str
    rule: str
    file: str
    line: int
    severity: Severity
    message: str
    confidence: str = ""


class Scan(Fact, frozen=True, kw_only=True):
    """One look at a lock and, where it is asked for, at licences and code.

    lock: digest; lock_file: its name in the project. database: id of the advisories, built_at their
    date; nothing where there were none. release: whose bill of material was looked at, when it was
    not the project itself. tools: scanner -> version. trouble: why nothing could be said at all.
    new: `package advisory` of what no earlier scan of this release had found: what opened an alert.
    """

    id: str
    at: Instant
    person: str
    lock: str
    lock_file: str = ""
    packages: int = 0
    unread: tuple[str, ...] = ()
    database: str = ""
    built_at: Instant | None = None
    vulnerabilities: tuple[Vulnerability, ...] = ()
    licences: tuple[Licence, ...] = ()
    tree: str = ""
    commit: str = ""
    tools: dict[str, str] = {}
    findings: tuple[CodeFinding, ...] = ()
    results: tuple[CheckResult, ...] = ()
    verdict: Verdict = Verdict.INCONCLUSIVE
    release: str = ""
    trouble: str = ""
    new: tuple[str, ...] = ()

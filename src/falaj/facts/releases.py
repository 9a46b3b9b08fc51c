"""Releases: an immutable folder whose id is the digest of its release.json."""

from __future__ import annotations

import enum
from typing import Annotated

from msgspec import Meta

from falaj.base.time import Instant
from falaj.facts.data import Label
from falaj.facts.models import Schema
from falaj.facts.runs import Code
from falaj.facts.wire import Fact

__all__ = [
    "Authority",
    "DatasetRef",
    "DiffRow",
    "Manifest",
    "Release",
    "ReleaseDiff",
    "Revocation",
    "RevocationKind",
    "RoleRule",
    "Trust",
    "TrustedKey",
]


class DatasetRef(Fact, frozen=True, kw_only=True):
    dataset: str
    content: str
    bytes: str
    rows: int


class Manifest(Fact, frozen=True, kw_only=True):
    """release.json. files: every file of the folder but release.json itself and the signatures."""

    model: str
    version: str
    files: dict[str, str]
    runtime: str
    task: str
    schema: Schema
    threshold: str | None  # decimal text: release.json is canonical JSON and holds no floats
    tree: str  # digest of model/, the subject of the evidence
    environment: str  # digest of environment.lock
    code: Code
    run: str
    datasets: tuple[DatasetRef, ...]
    label: Label
    created: Instant


class Release(Fact, frozen=True, kw_only=True):
    """The registry's row for a release. `authors`: persons who may not approve it."""

    id: str
    model: str
    version: str
    model_version: str
    run: str
    tree: str
    folder: str  # where the folder lies, relative to the workspace
    evidence: str  # digest over the evidence files, what approvals bind to
    authors: tuple[str, ...]
    created: Instant


class DiffRow(Fact, frozen=True, kw_only=True):
    """One part in which two releases differ.

    section: data | features | code | parameters | dependencies | metrics | gates | evidence.
    """

    section: str
    what: str
    change: str  # added | removed | changed
    before: str
    after: str
    note: str = ""


class ReleaseDiff(Fact, frozen=True, kw_only=True):
    """From one release to another; no row: they are equal.

    findings: what does not hold of their folders; then the rows are no proof.
    """

    one: str
    other: str
    one_version: str
    other_version: str
    one_model: str
    other_model: str
    rows: tuple[DiffRow, ...]
    findings: tuple[str, ...] = ()


class TrustedKey(Fact, frozen=True, kw_only=True):
    """A public key and the roles it may sign in: release, gate, build, approval, plan, log."""

    identity: str
    public: str  # PEM
    roles: tuple[str, ...]
    not_before: Instant
    not_after: Instant


class Authority(Fact, frozen=True, kw_only=True):
    """A certificate authority that is trusted for one name: whoever carries it signs as `identity`.

    name: a URI such as spiffe://org/ns/models/sa/releaser, a DNS name or an address of e-mail, which
    the subject alternative name of the certificate must hold exactly.
    """

    identity: str
    certificate: str  # PEM
    name: str
    roles: tuple[str, ...]
    not_before: Instant
    not_after: Instant


class RoleRule(Fact, frozen=True, kw_only=True):
    """How many distinct identities must sign in a role: everywhere, and where it must be more.

    witnessed: environments that refuse a time of signing that only the signer says.
    """

    threshold: Annotated[int, Meta(ge=1, le=64)] = 1
    environments: dict[str, Annotated[int, Meta(ge=1, le=64)]] = {}
    witnessed: tuple[str, ...] = ()


class RevocationKind(enum.StrEnum):
    COMPROMISED = "compromised"  # somebody else may sign with it
    RETIRED = "retired"  # what it signed before stays good
    WITHDRAWN = "withdrawn"  # a release that is never loaded again


class Revocation(Fact, frozen=True, kw_only=True):
    """subject: hint of a key, SHA-256 of a certificate, or the id of a withdrawn release.

    since: compromised: from when on, nothing: always; retired: from when on it signs no more.
    releases: made with a compromised key and good all the same, by the word of the root.
    """

    kind: RevocationKind
    subject: str
    since: Instant | None = None
    reason: str = ""
    releases: tuple[str, ...] = ()


class Trust(Fact, frozen=True, kw_only=True):
    """The trust root: given to a verifier separately, never taken from what it verifies.

    next_update: until when the list of revocations counts as new; nothing: as long as the whole.
    """

    version: int
    keys: tuple[TrustedKey, ...]
    expires: Instant
    authorities: tuple[Authority, ...] = ()
    rules: dict[str, RoleRule] = {}
    revocations: tuple[Revocation, ...] = ()
    next_update: Instant | None = None

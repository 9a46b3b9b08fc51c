"""Releases: an immutable folder whose id is the digest of its release.json."""

from __future__ import annotations

from falaj.base.time import Instant
from falaj.facts.data import Label
from falaj.facts.models import Schema
from falaj.facts.runs import Code
from falaj.facts.wire import Fact

__all__ = [
    "DatasetRef",
    "DiffRow",
    "Manifest",
    "Release",
    "ReleaseDiff",
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


class Trust(Fact, frozen=True, kw_only=True):
    """The trust root: given to a verifier separately, never taken from what it verifies."""

    version: int
    keys: tuple[TrustedKey, ...]
    expires: Instant

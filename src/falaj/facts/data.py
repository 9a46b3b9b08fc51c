"""Datasets, their versions and what is promised about them."""

from __future__ import annotations

import enum
from typing import Any, Final

from falaj.base.time import Instant
from falaj.facts.checks import CheckResult
from falaj.facts.wire import Fact

__all__ = [
    "PROTECTED",
    "Classification",
    "ContractReport",
    "DatasetVersion",
    "Label",
    "Quarantine",
    "QuarantinedRow",
    "SetAside",
    "SuiteReport",
]


class Classification(enum.StrEnum):
    PUBLIC = "public"
    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"
    PERSONAL = "personal"
    SENSITIVE = "sensitive"


# With such data even loopback is not spoken in the clear.
PROTECTED: Final = (Classification.PERSONAL, Classification.SENSITIVE)


class Label(Fact, frozen=True, kw_only=True):
    """Where data may be and what for (COMPLIANCE: residency). countries: ISO 3166 alpha-2."""

    classification: Classification = Classification.INTERNAL
    countries: tuple[str, ...] = ()
    purposes: tuple[str, ...] = ()


class DatasetVersion(Fact, frozen=True, kw_only=True):
    """Immutable. `bytes`: digest of the files; `content`: digest of the values, codec-free.

    engine: what another engine calls these rows (`engine`, `version` or `snapshot`, `table`); it
    means something only together with that engine's store.
    """

    dataset: str
    bytes: str
    content: str
    schema: str
    columns: dict[str, str]  # column -> digest of its values, so that a diff names the column
    rows: int
    source: str
    contract: str = ""  # digest of the contract file
    label: Label = Label()
    at: Instant
    engine: dict[str, str] = {}


class ContractReport(Fact, frozen=True, kw_only=True):
    """Every check of one contract on one dataset version.

    notes: what the contract says and nobody evaluates. seconds: of the checks alone. rows: that
    steps read; set_aside: others that break the contract. sample_pct: checks about single rows
    looked at so many of them alone; nothing: at all.
    """

    dataset: str
    version: str  # content digest
    contract: str
    results: tuple[CheckResult, ...]
    rows: int = 0
    contract_id: str = ""
    contract_version: str = ""
    notes: tuple[str, ...] = ()
    engine: str = ""
    seconds: float = 0.0
    set_aside: int = 0
    sample_pct: float | None = None


class SetAside(Fact, frozen=True, kw_only=True):
    """Rows of one dataset version that a run did not read, as they broke the contract.

    version: content digest of the rows that were read. rows: set aside, `of` so many in all.
    checks: check -> rows that break it. artifact: digest of a Parquet file with these rows, their
    checks, and their values as they may be shown.
    """

    dataset: str
    version: str
    contract: str
    rows: int
    of: int
    checks: dict[str, int]
    artifact: str = ""


class QuarantinedRow(Fact, frozen=True, kw_only=True):
    """One of them. row: from 1, as in a file. values: in the order of the columns."""

    row: int
    checks: tuple[str, ...]
    values: tuple[Any, ...]


class Quarantine(Fact, frozen=True, kw_only=True):
    """Rows that break the contract now, the first ones as they may be shown.

    limit_pct: that may be set aside; nothing: none is, and one such row stops a run.
    """

    dataset: str
    rows: int
    of: int
    limit_pct: float | None
    checks: dict[str, int]
    columns: tuple[str, ...]
    shown: tuple[QuarantinedRow, ...]


class SuiteReport(Fact, frozen=True, kw_only=True):
    """Results of another tool's suite, taken in from a file for one dataset version.

    version: content digest of the dataset when it was taken in; nothing proves which rows the tool
    saw, so `person` answers for it. file: digest; the file itself may hold values and is not kept.
    """

    id: str
    at: Instant
    person: str
    dataset: str
    version: str
    tool: str
    file: str
    results: tuple[CheckResult, ...]

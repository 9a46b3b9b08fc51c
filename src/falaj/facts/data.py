"""Datasets, their versions and what is promised about them."""

from __future__ import annotations

import enum
from typing import Final

from falaj.base.time import Instant
from falaj.facts.checks import CheckResult
from falaj.facts.wire import Fact

__all__ = [
    "PROTECTED",
    "Classification",
    "ContractReport",
    "DatasetVersion",
    "Label",
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

    notes: what the contract says and nobody evaluates. seconds: of the checks alone.
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

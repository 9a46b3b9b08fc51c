"""Hold a dataset against its contract."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from time import perf_counter
from typing import Final

import polars as pl

from falaj.base.errors import FalajError
from falaj.base.time import now
from falaj.data.checks import checks_of
from falaj.data.datasets import DatasetHandle
from falaj.data.quarantine import quarantine_check
from falaj.data.scan import Draw, Masks, scan
from falaj.facts.data import ContractReport
from falaj.ports.datasets import Dataset
from falaj.ports.queries import SqlEngine

__all__ = ["validate"]

WHOLE: Final = 100.0


def validate(
    dataset: DatasetHandle,
    *,
    references: Mapping[str, Dataset] | None = None,
    mask_key: bytes = b"",
    at: datetime | None = None,
    sql: SqlEngine | None = None,
    sample_pct: float | None = None,
) -> ContractReport:
    """Make every check of the dataset's contract on all its rows, or on a sample of them.

    With a quarantine the checks are made on the rows that are left, and one more says how many
    rows are set aside and whether so many may be.

    Args:
        dataset: with a contract.
        references: other declared datasets, for foreign keys.
        mask_key: the project's key; tokens of personal values are made with it.
        at: the time that freshness is measured at; now when left out.
        sql: answers SQL rules; without it they are skipped, which is no pass.
        sample_pct: of the rows, instead of what the dataset's declaration says.

    Raises FalajError when the dataset has no contract.
    """
    contract = dataset.contract
    if contract is None:
        raise FalajError(
            "data.no-contract",
            f"dataset {dataset.name} has no contract",
            fix='say what it promises: contract = "contracts/....odcs.yaml" in falaj.toml',
        )
    table = contract.table(dataset.name)
    version = dataset.version
    checks = checks_of(contract, dataset.name)
    wanted = {check.said["dataset"] for check in checks if check.kind == "reference"}
    queries = [check.requirement for check in checks if check.kind == "sql"]
    named = set(re.findall(r"[\w-]+", " ".join(queries)))
    wanted |= named & set(references or {}) - {dataset.name}
    given = references or {}
    draw = drawn(dataset, sample_pct)
    begun = perf_counter()
    results = scan(
        checks,
        dataset.scan(),
        references={name: given[name].scan() for name in wanted if name in given},
        unreadable=dataset.unreadable,
        masks=Masks(
            classes={p.name: p.classification for p in table.properties if p.classification},
            default=dataset.label.classification,
            key=mask_key,
        ),
        key=table.key,
        now=at or now(),
        name=dataset.name,
        sql=sql,
        draw=draw,
    )
    set_aside = 0
    if dataset.quarantine_pct is not None:
        set_aside = len(dataset.broken)
        results = (*results, quarantine_check(dataset, mask_key))
    return ContractReport(
        dataset=dataset.name,
        version=version.content,
        contract=contract.digest,
        results=results,
        rows=version.rows,
        contract_id=contract.id,
        contract_version=contract.version,
        notes=contract.notes,
        engine=f"polars {pl.__version__}" + (f", {sql.version}" if sql and queries else ""),
        seconds=round(perf_counter() - begun, 3),
        set_aside=set_aside,
        sample_pct=None if draw is None else draw.pct,
    )


def drawn(dataset: DatasetHandle, pct: float | None) -> Draw | None:
    """Which rows are looked at; the same ones whenever the same files are."""
    pct = dataset.sample_pct if pct is None else pct
    if pct is None or pct >= WHOLE:
        return None
    if dataset.quarantine_pct is not None:
        raise FalajError(
            "data.sample-of-quarantine",
            f"dataset {dataset.name} has a quarantine, so its checks look at all rows",
            why="which rows are set aside is not known from a sample of them",
            fix="leave out the sample, or quarantine_pct in falaj.toml",
        )
    seed = int(dataset.bytes_digest.rpartition(":")[2][:16], 16)
    return Draw(pct=pct, seed=seed, tolerance_pct=dataset.sample_tolerance_pct)

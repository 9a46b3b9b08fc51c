"""Hold a dataset against its contract."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from time import perf_counter

import polars as pl

from falaj.base.errors import FalajError
from falaj.base.time import now
from falaj.data.checks import checks_of
from falaj.data.datasets import DatasetHandle
from falaj.data.scan import Masks, scan
from falaj.facts.data import ContractReport
from falaj.ports.datasets import Dataset
from falaj.ports.queries import SqlEngine

__all__ = ["validate"]


def validate(
    dataset: DatasetHandle,
    *,
    references: Mapping[str, Dataset] | None = None,
    mask_key: bytes = b"",
    at: datetime | None = None,
    sql: SqlEngine | None = None,
) -> ContractReport:
    """Make every check of the dataset's contract on all its rows.

    Args:
        dataset: with a contract.
        references: other declared datasets, for foreign keys.
        mask_key: the project's key; tokens of personal values are made with it.
        at: the time that freshness is measured at; now when left out.
        sql: answers SQL rules; without it they are skipped, which is no pass.

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
    )
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
    )

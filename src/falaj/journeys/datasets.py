"""Look at declared datasets: hold them against their contracts, profile them, propose a contract."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from falaj.base import digests, ids
from falaj.base.errors import FalajError, NotFound
from falaj.data import masking
from falaj.data.datasets import DatasetHandle, open_dataset
from falaj.data.odcs import read_contract
from falaj.data.service import validate
from falaj.facts.access import Permit
from falaj.facts.checks import of_dataset
from falaj.facts.data import ContractReport, Label, Quarantine, QuarantinedRow, SuiteReport
from falaj.facts.profiles import Profile
from falaj.facts.project import DatasetTable
from falaj.facts.wire import digest
from falaj.ports.ground import Ground

__all__ = ["check", "profiled", "proposed", "quarantine", "take_in"]

MOST_ROWS: Final = 10_000  # that are shown at once


def check(
    ground: Ground, name: str = "", *, sample_pct: float | None = None
) -> tuple[ContractReport, ...]:
    """Every check of the dataset's contract; without a name of all datasets that have one.

    sample_pct: look at so many of the rows, whatever the declaration says. Lakes and databases are asked again. Nothing is remembered: a check is what is true now.
    """
    tables = [known(ground, name)] if name else [t for t in ground.project.datasets if t.contract]
    if not tables:
        raise NotFound(
            "data.no-contract",
            "no dataset of this project has a contract",
            fix="propose one: falaj data contract init DATASET",
        )
    everything = every(ground)
    return tuple(
        validate(
            everything[table.name],
            references=everything,
            mask_key=ground.mask_key,
            at=ground.now(),
            sql=ground.sql,
            sample_pct=sample_pct,
        )
        for table in tables
    )


def quarantine(ground: Ground, name: str, *, most: int = MOST_ROWS) -> Quarantine:
    """The rows that break the contract, as they may be shown, also where none are set aside."""
    from falaj.data.quarantine import counts, rejected
    from falaj.data.scan import BROKEN, ROW

    known(ground, name)
    handle = every(ground)[name]
    if handle.contract is None:
        raise NotFound(
            "data.no-contract",
            f"dataset {name} has no contract",
            fix=f"propose one: falaj data contract init {name}",
        )
    found = rejected(handle, ground.mask_key)
    columns = [column for column in found.columns if column not in (ROW, BROKEN)]
    return Quarantine(
        dataset=name,
        rows=len(found),
        of=handle.rows_in_all,
        limit_pct=handle.quarantine_pct,
        checks=counts(handle.broken),
        columns=tuple(columns),
        shown=tuple(
            QuarantinedRow(
                row=row[ROW],
                checks=tuple(row[BROKEN]),
                values=tuple(masking.plain(row[column]) for column in columns),
            )
            for row in found.head(most).iter_rows(named=True)
        ),
    )


def every(ground: Ground) -> dict[str, DatasetHandle]:
    """All declared datasets; lakes and databases are asked again."""
    made: dict[str, DatasetHandle] = {}
    for table in ground.project.datasets:
        made[table.name] = opened(ground, table, made)
    return made


def profiled(ground: Ground, name: str, *, by: str = "") -> Profile:
    from falaj.data.profile import profile

    known(ground, name)
    return profile(every(ground)[name], at=ground.now(), by=by)


def proposed(ground: Ground, name: str) -> str:
    """A first contract as YAML. With a contract there already, its types and classes are kept."""
    from falaj.data.propose import propose

    known(ground, name)
    return propose(every(ground)[name])


def take_in(ground: Ground, permit: Permit, name: str, text: str) -> SuiteReport:
    """Keep the report that another tool wrote about a dataset; the gate `data` counts it.

    It stands for the rows as they are now: runs on other rows do not see it. Raises FalajError for
    what is no report of a known tool.
    """
    known(ground, name)
    handle = every(ground)[name]
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    readers = ground.evidence()
    reader = next((one for one in readers if one.takes_document(document)), None)
    if reader is None:
        raise FalajError(
            "data.evidence-unreadable",
            "the file is no report that is known",
            why=f"read are JSON reports of: {', '.join(one.tool for one in readers)}; "
            "an empty list of failures proves nothing",
            fix="write it with the tool: see docs, how to bring results of other suites",
        )
    version = handle.version
    file = digests.of_bytes(text.encode())
    results = of_dataset(reader.read_document(document, version.rows), name)
    told = {"file": file, "person": permit.person}
    report = SuiteReport(
        id=ids.new(),
        at=ground.now(),
        person=permit.person,
        dataset=name,
        version=version.content,
        tool=reader.tool,
        file=file,
        results=tuple(replace(one, details={**one.details, **told}) for one in results),
    )
    with ground.store.begin() as unit:
        unit.add(report)
        unit.append(
            ground.event(
                "evidence.taken-in",
                permit.person,
                f"dataset/{name}",
                {
                    "report": report.id,
                    "digest": digest(report),
                    "tool": report.tool,
                    "version": report.version,
                    "file": file,
                    "checks": len(results),
                },
            )
        )
    return report


def known(ground: Ground, name: str) -> DatasetTable:
    tables: Mapping[str, DatasetTable] = {table.name: table for table in ground.project.datasets}
    if name not in tables:
        raise NotFound(
            "data.unknown-dataset",
            f"there is no dataset {name!r}",
            why=f"falaj.toml declares: {', '.join(tables) or 'none'}",
            fix="name one of them",
        )
    return tables[name]


def opened(
    ground: Ground, table: DatasetTable, others: Mapping[str, DatasetHandle]
) -> DatasetHandle:
    region = ground.project.project.region.split("-")[0]
    said = table.contract
    return open_dataset(
        table.name,
        table.source,
        root=ground.root,
        contract=read_contract(ground.root / said, root=ground.root) if said else None,
        label=Label(
            classification=table.classification,
            countries=tuple(c.lower() for c in table.countries) or (region,),
            purposes=table.purpose,
        ),
        memo=ground.cache,
        clock=ground.now,
        tables=ground.tables,
        fresh=True,
        others=others,
        quarantine_pct=table.quarantine_pct,
        sample_pct=table.sample_pct,
        sample_tolerance_pct=table.sample_tolerance_pct,
    )

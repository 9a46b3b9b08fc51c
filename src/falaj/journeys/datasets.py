"""Look at declared datasets: hold them against their contracts, profile them, propose a contract."""

from __future__ import annotations

import json
from collections.abc import Mapping

from msgspec.structs import replace

from falaj.base import digests, ids
from falaj.base.errors import FalajError, NotFound
from falaj.data.datasets import DatasetHandle, open_dataset
from falaj.data.odcs import read_contract
from falaj.data.service import validate
from falaj.facts.access import Permit
from falaj.facts.checks import of_dataset
from falaj.facts.data import ContractReport, Label, SuiteReport
from falaj.facts.profiles import Profile
from falaj.facts.project import DatasetTable
from falaj.facts.wire import digest
from falaj.ports.ground import Ground

__all__ = ["check", "profiled", "proposed", "take_in"]


def check(ground: Ground, name: str = "") -> tuple[ContractReport, ...]:
    """Every check of the dataset's contract; without a name of all datasets that have one.

    Lakes and databases are asked again. Nothing is remembered: a check is what is true now.
    """
    tables = [known(ground, name)] if name else [t for t in ground.project.datasets if t.contract]
    if not tables:
        raise NotFound(
            "data.no-contract",
            "no dataset of this project has a contract",
            fix="propose one: falaj data contract init DATASET",
        )
    everything = {table.name: opened(ground, table) for table in ground.project.datasets}
    return tuple(
        validate(
            everything[table.name],
            references=everything,
            mask_key=ground.mask_key,
            at=ground.now(),
            sql=ground.sql,
        )
        for table in tables
    )


def profiled(ground: Ground, name: str, *, by: str = "") -> Profile:
    from falaj.data.profile import profile

    return profile(opened(ground, known(ground, name)), at=ground.now(), by=by)


def proposed(ground: Ground, name: str) -> str:
    """A first contract as YAML. With a contract there already, its types and classes are kept."""
    from falaj.data.propose import propose

    return propose(opened(ground, known(ground, name)))


def take_in(ground: Ground, permit: Permit, name: str, text: str) -> SuiteReport:
    """Keep the report that another tool wrote about a dataset; the gate `data` counts it.

    It stands for the rows as they are now: runs on other rows do not see it. Raises FalajError for
    what is no report of a known tool.
    """
    handle = opened(ground, known(ground, name))
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


def opened(ground: Ground, table: DatasetTable) -> DatasetHandle:
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
    )

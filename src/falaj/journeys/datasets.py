"""Look at declared datasets: hold them against their contracts, profile them, propose a contract."""

from __future__ import annotations

from collections.abc import Mapping

from falaj.base.errors import NotFound
from falaj.data.datasets import DatasetHandle, open_dataset
from falaj.data.odcs import read_contract
from falaj.data.service import validate
from falaj.facts.data import ContractReport, Label
from falaj.facts.profiles import Profile
from falaj.facts.project import DatasetTable
from falaj.ports.ground import Ground

__all__ = ["check", "profiled", "proposed"]


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

"""Iceberg tables behind a catalog in a SQLite file: `iceberg:<catalog>.<namespace>.<table>[@<snapshot>]`.

The catalog's file is `<catalog>.db` beside falaj.toml.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from falaj.base.errors import FalajError
from falaj.base.snapshots import Snapshot, keep, kept

__all__ = ["IcebergTables"]

NAME: Final = r"[A-Za-z_][\w-]*"
FORM: Final = re.compile(
    rf"iceberg:(?P<catalog>{NAME})\.(?P<table>{NAME}(?:\.{NAME})+)(@(?P<snapshot>\d{{1,19}}))?"
)


class IcebergTables:
    """The port TableReader over the package pyiceberg."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def takes(self, source: str) -> bool:
        return source.startswith("iceberg:")

    def snapshot(self, source: str, *, name: str, root: Path, fresh: bool) -> Snapshot:
        found = FORM.fullmatch(source)
        if not found:
            raise FalajError(
                "data.bad-source",
                f"dataset {name}: got {source!r}, expected "
                "iceberg:<catalog>.<namespace>.<table>[@<snapshot>]",
                fix="write it as iceberg:lake.traffic.flights@3051729675574597004",
            )
        old = kept(self._folder, source)
        if old is not None and (found["snapshot"] or not fresh):
            return old
        table = _opened(name, root / f"{found['catalog']}.db", found["catalog"], found["table"])
        known = {one.snapshot_id for one in table.snapshots()}
        current = table.current_snapshot()
        wanted = int(found["snapshot"]) if found["snapshot"] else getattr(current, "snapshot_id", 0)
        if wanted not in known:
            raise _unreadable(name, source, "no such snapshot" if known else "no snapshot yet")

        def write(part: Path) -> dict[str, str]:
            import polars as pl

            try:
                frame = pl.from_arrow(table.scan(snapshot_id=wanted).to_arrow())
                assert isinstance(frame, pl.DataFrame)  # noqa: S101 a table, not a column
                frame.write_parquet(part, compression="zstd", compression_level=1)
            except (pl.exceptions.PolarsError, OSError, ValueError) as error:
                raise _unreadable(name, source, type(error).__name__) from None
            said = {"engine": "iceberg", "snapshot": str(wanted)}
            return said | {"table": str(table.metadata.table_uuid)}

        return keep(self._folder, source, write)


def _opened(name: str, file: Path, catalog: str, table: str) -> Any:
    try:
        from pyiceberg.catalog.sql import SqlCatalog
        from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError
    except ImportError:
        raise FalajError(
            "data.extra-missing",
            f"dataset {name}: Iceberg tables need the extra falaj[iceberg]",
            fix="pip install 'falaj[iceberg]'",
        ) from None
    if not file.is_file():  # SQLite would make an empty one
        raise _unreadable(name, f"iceberg:{catalog}.{table}", f"there is no catalog {file.name}")
    try:
        return SqlCatalog(catalog, uri=f"sqlite:///{file}", init_catalog_tables="false").load_table(
            table
        )
    except (NoSuchTableError, NoSuchNamespaceError):
        raise _unreadable(name, f"iceberg:{catalog}.{table}", "no such table") from None


def _unreadable(name: str, source: str, why: str) -> FalajError:
    return FalajError(
        "data.table-unreadable",
        f"dataset {name}: {source} cannot be read",
        why=why,
        fix="name a table and a snapshot that the catalog has",
    )

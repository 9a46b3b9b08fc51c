"""SQL rules of data contracts, answered by DuckDB inside this process."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from falaj.base.errors import FalajError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["DuckDb", "duckdb_engine"]


def duckdb_engine() -> DuckDb | None:
    """The engine, or None without the extra falaj[duckdb]."""
    return DuckDb() if find_spec("duckdb") else None


class DuckDb:
    """The port SqlEngine. A database of its own for each query; files are closed before it runs."""

    @property
    def version(self) -> str:
        import duckdb

        return f"duckdb {duckdb.__version__}"

    def number(self, query: str, tables: Mapping[str, pl.LazyFrame]) -> float:
        import duckdb

        try:
            statements = duckdb.extract_statements(query)
        except duckdb.Error as error:
            raise _refused("it is no SQL", error) from None
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise _refused("a rule is one SELECT")
        with TemporaryDirectory() as scratch, duckdb.connect(":memory:") as database:
            database.execute("SET autoinstall_known_extensions = false")
            database.execute("SET autoload_known_extensions = false")
            for number, (name, frame) in enumerate(tables.items()):
                if not re.search(rf"\b{re.escape(name)}\b", query, re.IGNORECASE):
                    continue
                file = Path(scratch, f"{number}.parquet")
                frame.sink_parquet(file, compression="zstd", compression_level=1)
                quoted = name.replace('"', '""')
                database.execute(
                    f'CREATE TABLE "{quoted}" AS SELECT * FROM read_parquet(?)',  # noqa: S608 quoted
                    [str(file)],
                )
                file.unlink()
            # From here on: no file, no network, no way to ask for them again.
            database.execute("SET enable_external_access = false")
            database.execute("SET lock_configuration = true")
            try:
                rows = database.execute(query).fetchmany(2)
            except duckdb.Error as error:
                raise _refused("the engine refused it", error) from None
        if len(rows) != 1 or len(rows[0]) != 1:
            raise _refused("it gave more or less than one number")
        try:
            return float(rows[0][0])
        except (TypeError, ValueError):
            raise _refused("it gave no number") from None


def _refused(why: str, error: Exception | None = None) -> FalajError:
    """DuckDB quotes values in its messages; the kind of the error must do."""
    told = f" ({type(error).__name__})" if error else ""
    return FalajError(
        "data.sql-rule",
        f"an SQL rule cannot be answered: {why}{told}",
        fix="write one SELECT that gives one number, such as SELECT count(*) FROM t WHERE a < 0",
    )

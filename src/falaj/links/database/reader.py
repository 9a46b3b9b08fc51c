"""Tables and queries of SQL databases: `sqlite:///<file>?table=..` or `?query=..`, PostgreSQL too.

A source is an address as SQLAlchemy writes it. Its query part is ours: `table` or `query`, and
`password_file`, the address of the secret; a password in the source itself is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from falaj.base.errors import FalajError
from falaj.base.snapshots import Snapshot, keep, kept

__all__ = ["DatabaseTables"]

SCHEMES: Final = ("sqlite", "postgresql")
BATCH: Final = 65_536
SAFE: Final = re.compile(r"\s*(select|with)\b", re.IGNORECASE)
KNOWN: Final = frozenset(("table", "query", "password_file"))


class DatabaseTables:
    """The port TableReader over SQLAlchemy Core. Databases are opened for reading only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def takes(self, source: str) -> bool:
        return bool(re.match(rf"({'|'.join(SCHEMES)})(\+\w+)?://", source))

    def snapshot(self, source: str, *, name: str, root: Path, fresh: bool) -> Snapshot:
        asked = _parsed(name, source)
        old = kept(self._folder, source)
        if old is not None and not fresh:
            return old

        def write(part: Path) -> dict[str, str]:
            import sqlalchemy as sa

            try:
                with _connected(name, asked, root) as connection:
                    _write(name, connection, asked, part)
            except sa.exc.SQLAlchemyError as error:
                raise _failed(name, error) from None
            return {"engine": str(asked["url"].get_backend_name())}

        # SQLite keeps no types for columns of a query, and any value in any column of a table.
        weak = asked["url"].get_backend_name() == "sqlite"
        return keep(self._folder, source, write, weak=weak)


def _parsed(name: str, source: str) -> dict[str, Any]:
    """The url without our own words, table or query, password_file."""
    import sqlalchemy as sa

    try:
        url = sa.make_url(source)
    except (sa.exc.ArgumentError, ValueError):
        raise _bad(name, "it is no address of a database") from None
    if url.password is not None:
        raise FalajError(
            "data.secret-in-source",
            f"dataset {name}: the source holds a password",
            why="the project file is kept in git; it holds addresses of secrets, never secrets",
            fix="put it into a file that only you can read: ...?password_file=/path/of/it",
        )
    words = {key: value for key, value in url.query.items() if key in KNOWN}
    others = sorted(set(url.query) - KNOWN)
    if others or any(not isinstance(value, str) for value in words.values()):
        raise _bad(name, f"unknown words: {', '.join(others)}" if others else "a word stands twice")
    if ("table" in words) == ("query" in words):
        raise _bad(name, "it asks for neither or both of table and query")
    query = str(words.get("query", ""))
    if query and (not SAFE.match(query) or ";" in query.rstrip().rstrip(";")):
        raise _bad(name, "a query is one SELECT")
    bare = query.rstrip().rstrip(";")
    return {"url": url.set(query={}), "table": "", **words, "query": bare}


def _bad(name: str, why: str) -> FalajError:
    return FalajError(
        "data.bad-source",
        f"dataset {name}: the source cannot be used",
        why=why,
        fix="write it as sqlite:///data/flights.db?table=flights",
    )


@contextmanager
def _connected(name: str, asked: dict[str, Any], root: Path) -> Iterator[Any]:
    import sqlalchemy as sa

    url = asked["url"]
    is_sqlite = url.get_backend_name() == "sqlite"
    if is_sqlite:
        file = root / str(url.database or "")
        if not url.database or not file.is_file():
            raise _bad(name, f"there is no file {url.database!r}")
        # As a URI, so that it is opened for reading only and never made.
        quoted = str(file).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        url = sa.make_url("sqlite://").set(
            database=f"file:{quoted}", query={"mode": "ro", "uri": "true"}
        )
    elif asked.get("password_file"):
        try:
            url = url.set(password=(root / asked["password_file"]).read_text().strip())
        except OSError as error:
            raise _bad(name, f"password_file: {error.strerror}") from None
    try:
        engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    except ImportError:
        raise FalajError(
            "data.extra-missing",
            f"dataset {name}: the driver of {url.drivername} is not installed",
            fix="install it into this environment",
        ) from None
    try:
        with engine.connect() as connection:
            if not is_sqlite:
                connection.execute(sa.text("SET TRANSACTION READ ONLY"))
            yield connection
    finally:
        engine.dispose()


def _write(name: str, connection: Any, asked: dict[str, Any], part: Path) -> None:
    import polars as pl
    import sqlalchemy as sa

    if asked["query"]:
        # exec_driver_sql: a colon or percent sign in the query is a sign, not a parameter.
        statement = asked["query"]
        result = connection.execution_options(stream_results=True).exec_driver_sql(statement)
    else:
        table = _table(connection, asked["table"])
        # In the order of the key: rows have no order of their own, and identity needs one.
        chosen = sa.select(table).order_by(*table.primary_key.columns)
        result = connection.execution_options(stream_results=True).execute(chosen)
    names = list(result.keys())
    if len(set(names)) < len(names):
        raise _bad(name, "two columns have one name; give them others with AS")
    parts: list[list[pl.Series]] = [[] for _ in names]
    kinds: list[set[type]] = [set() for _ in names]
    for batch in result.partitions(BATCH):
        for at, cells in enumerate(zip(*batch, strict=True)):
            kinds[at] |= _kinds(cells)
            parts[at].append(_series(name, names[at], cells))
    columns = [
        _joined(name, column, pieces, found)
        for column, pieces, found in zip(names, parts, kinds, strict=True)
    ]
    pl.DataFrame(columns).write_parquet(part, compression="zstd", compression_level=1)


def _table(connection: Any, name: str) -> Any:
    import sqlalchemy as sa

    schema, _, bare = name.rpartition(".")
    # Dates of SQLite are texts; the contract says what they are, not the declared type.
    found = sa.Table(bare, sa.MetaData(), schema=schema or None, autoload_with=connection)
    if connection.dialect.name == "sqlite":
        for column in found.columns:
            column.type = sa.types.NullType()
    return found


def _series(name: str, column: str, cells: Sequence[Any]) -> Any:
    import polars as pl

    kinds = _kinds(cells)
    dtype = _dtype(kinds)
    if dtype is None:
        raise _mixed(name, column, kinds)
    try:
        if dtype == pl.Datetime("us", "UTC"):
            cells = [cell if cell is None else cell.astimezone(UTC) for cell in cells]
        if dtype in (pl.Int64, pl.Float64):
            kind = int if dtype == pl.Int64 else float
            cells = [cell if cell is None else kind(cell) for cell in cells]
        return pl.Series(column, cells, dtype=dtype, strict=True)
    except (OverflowError, TypeError, ValueError, AttributeError, pl.exceptions.PolarsError):
        raise _mixed(name, column, kinds) from None


def _joined(name: str, column: str, pieces: list[Any], kinds: set[type]) -> Any:
    import polars as pl

    dtype = _dtype(kinds)
    if dtype is None:
        raise _mixed(name, column, kinds)
    if not pieces:
        return pl.Series(column, [], dtype=dtype)
    return pl.concat([piece.cast(dtype) for piece in pieces])


class _Zoned(datetime):
    """Stands for times with a zone, which are another kind than those without."""


def _kinds(cells: Sequence[Any]) -> set[type]:
    return {
        _Zoned if isinstance(cell, datetime) and cell.tzinfo else type(cell)
        for cell in cells
        if cell is not None
    }


def _dtype(kinds: set[type]) -> Any:
    """The one type that holds all values exactly enough; None when there is none."""
    import polars as pl

    if not kinds:
        return pl.Null
    for members, dtype in (
        ({bool}, pl.Boolean),
        ({bool, int}, pl.Int64),
        ({bool, int, float, Decimal}, pl.Float64),
        ({str}, pl.String),
        ({bytes, memoryview}, pl.Binary),
        ({date}, pl.Date),
        ({time}, pl.Time),
        ({datetime}, pl.Datetime("us")),
        ({_Zoned}, pl.Datetime("us", "UTC")),
    ):
        if kinds <= members:
            return dtype
    return None


def _mixed(name: str, column: str, kinds: set[type]) -> FalajError:
    words = ", ".join(sorted(kind.__name__ for kind in kinds))
    return FalajError(
        "data.mixed-types",
        f"dataset {name}: column {column!r} holds values that have no type in common",
        why=f"it holds: {words}",
        fix=f"choose one in the query: CAST({column} AS TEXT)",
    )


def _failed(name: str, error: Exception) -> FalajError:
    """Drivers quote rows and addresses in their messages; the kind of the error must do."""
    cause = getattr(error, "orig", None) or error
    return FalajError(
        "data.table-unreadable",
        f"dataset {name}: the database refused ({type(cause).__name__})",
        why="no such table or column, no right to read it, or it does not answer",
        fix="try the query with the database's own tool",
    )

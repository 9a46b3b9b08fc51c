"""A process that answers SQL rules: `python -m falaj.links.duckdb.child`, JSON lines in and out.

It reaches the files of the tables that it was started with and nothing else: no other file, no
network, no extension, and no way to ask for them again.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import threading
from typing import Any, Final

import duckdb

__all__ = ["main"]

MIB: Final = 1024**2
OVERHEAD_MB: Final = 1024  # of Python, of the library, of what it does not count
WRITES: Final = MIB  # bytes of a file that it may write: a few words of complaint


def main() -> None:
    """Answer until nobody asks any more."""
    said = json.loads(sys.stdin.readline())
    _bound(int(said["memory_mb"]))
    with _opened(said["tables"], int(said["memory_mb"]), int(said["threads"])) as database:
        _answer(said["id"], {"ok": True})
        for line in sys.stdin:
            asked = json.loads(line)
            _answer(asked["id"], _asked(database, asked["query"], asked["timeout_s"]))


def _answer(number: int, found: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"id": number, **found}) + "\n")
    sys.stdout.flush()


def _bound(memory_mb: int) -> None:
    """What the engine does not count itself ends the process, and with it the query alone."""
    most = (memory_mb + OVERHEAD_MB) * MIB
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (WRITES, WRITES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _opened(tables: dict[str, str], memory_mb: int, threads: int) -> duckdb.DuckDBPyConnection:
    database = duckdb.connect(
        ":memory:",
        config={
            "memory_limit": f"{memory_mb}MiB",
            "threads": threads,
            "temp_directory": "",  # more than the memory is refused, not written to a disk
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "allow_unsigned_extensions": False,
            "allow_persistent_secrets": False,
        },
    )
    files = list(tables.values())
    listed = ", ".join(_text(file) for file in files)
    database.execute(f"SET allowed_paths = [{listed}]")
    for name, file in tables.items():
        quoted = name.replace('"', '""')
        database.execute(
            f'CREATE VIEW "{quoted}" AS SELECT * FROM read_parquet({_text(file)})'  # noqa: S608 quoted
        )
    database.execute("SET enable_external_access = false")
    database.execute("SET lock_configuration = true")
    return database


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _asked(database: duckdb.DuckDBPyConnection, query: str, timeout_s: float) -> dict[str, Any]:
    """`number`, or why there is none. The engine quotes values in its messages; its kinds must do."""
    late = threading.Event()

    def interrupt() -> None:
        late.set()
        database.interrupt()

    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error as error:
        return {"refused": "it is no SQL", "kind": type(error).__name__}
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        return {"refused": "a rule is one SELECT"}
    clock = threading.Timer(timeout_s, interrupt)
    clock.daemon = True
    clock.start()
    try:
        rows = database.execute(query).fetchmany(2)
    except (duckdb.OutOfMemoryException, MemoryError):
        return {"memory": True}
    except (duckdb.Error, RuntimeError) as error:
        if late.is_set():
            return {"late": True}
        return {"refused": "the engine refused it", "kind": type(error).__name__}
    finally:
        clock.cancel()
    if len(rows) != 1 or len(rows[0]) != 1:
        return {"refused": "it gave more or less than one number"}
    try:
        number = float(rows[0][0])
    except (TypeError, ValueError):
        number = math.nan
    return {"number": number} if math.isfinite(number) else {"refused": "it gave no number"}


if __name__ == "__main__":
    main()
    os._exit(0)  # what a query left running is not waited for

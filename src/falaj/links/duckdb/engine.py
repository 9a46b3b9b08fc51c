"""SQL rules of data contracts, answered by DuckDB in a process with bounds on all that it takes."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from falaj.base.errors import FalajError

if TYPE_CHECKING:
    import polars as pl

    from falaj.base.childlines import ChildLines
    from falaj.facts.project import DuckdbTable

__all__ = ["DuckDb", "duckdb_engine"]

START_S: Final = 60.0
GRACE_S: Final = 2.0  # between asking a query to end and ending its process
PASSED: Final = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "TZ")


def duckdb_engine(said: DuckdbTable) -> DuckDb | None:
    """The engine, or None without the extra falaj[duckdb]."""
    if not find_spec("duckdb"):
        return None
    return DuckDb(timeout_s=said.timeout_s, memory_mb=said.memory_mb, threads=said.threads)


class DuckDb:
    """The port SqlEngine. What a query does wrong ends its process, never ours.

    timeout_s: of each query. memory_mb: that all tables and steps of a query may hold at once.
    """

    def __init__(self, *, timeout_s: float = 60.0, memory_mb: int = 2048, threads: int = 2) -> None:
        self._timeout_s, self._memory_mb, self._threads = timeout_s, memory_mb, threads

    @property
    def version(self) -> str:
        from importlib.metadata import version

        return f"duckdb {version('duckdb')}"

    def numbers(
        self, queries: Sequence[str], tables: Mapping[str, pl.LazyFrame]
    ) -> tuple[float | FalajError, ...]:
        named = {
            name: frame
            for name, frame in tables.items()
            if any(re.search(rf"\b{re.escape(name)}\b", query, re.IGNORECASE) for query in queries)
        }
        from tempfile import TemporaryDirectory

        with TemporaryDirectory(prefix="falaj-sql-") as folder:
            files = {}
            for number, (name, frame) in enumerate(named.items()):
                files[name] = str(Path(folder, f"{number}.parquet"))
                frame.sink_parquet(files[name], compression="zstd", compression_level=1)
            asking = _Asking(self, files, Path(folder))
            try:
                return tuple(asking.number(query) for query in queries)
            finally:
                asking.end()

    def started(self, files: Mapping[str, str], folder: Path) -> ChildLines:
        """A process that has opened the tables."""
        from falaj.base.childlines import ChildDied, ChildLate, ChildLines

        child = ChildLines(
            (sys.executable, "-m", "falaj.links.duckdb.child"),
            cwd=folder,
            # Its home is empty: no extensions and no secrets that somebody keeps there.
            environment={n: os.environ[n] for n in PASSED if n in os.environ}
            | {"HOME": str(folder)},
            log=folder / "said.txt",
        )
        given = {"tables": files, "memory_mb": self._memory_mb, "threads": self._threads}
        try:
            child.ask(given, within=START_S)
        except (ChildDied, ChildLate) as error:
            child.end()
            raise _refused(f"its process did not start: {error}") from None
        return child

    def answered(self, child: ChildLines, query: str) -> float | FalajError:
        """Raises ChildLate, ChildDied: the process is of no more use."""
        asked = {"query": query, "timeout_s": self._timeout_s}
        answer = child.ask(asked, within=self._timeout_s + GRACE_S)
        if "number" in answer:
            return float(answer["number"])
        if "late" in answer:
            return self.late()
        if "memory" in answer:
            return self.too_large()
        return _refused(answer.get("refused", "it did not answer"), answer.get("kind", ""))

    def late(self) -> FalajError:
        return FalajError(
            "data.sql-late",
            f"an SQL rule did not answer within {self._timeout_s:g} s",
            why="a check that never ends would hold up every run",
            fix="join on a key instead of all rows with all, or raise `timeout` of [links.duckdb]",
        )

    def too_large(self) -> FalajError:
        return FalajError(
            "data.sql-memory",
            f"an SQL rule needs more than {self._memory_mb} MiB of memory",
            why="the machine has other work to do, and nothing is written to its disks instead",
            fix="aggregate before joining and sorting, or raise `memory_mb` of [links.duckdb]",
        )


class _Asking:
    """One query after another; one that ends its process costs the next a new process."""

    def __init__(self, engine: DuckDb, files: Mapping[str, str], folder: Path) -> None:
        self._engine, self._files, self._folder = engine, files, folder
        self._child: ChildLines | None = None

    def number(self, query: str) -> float | FalajError:
        from falaj.base.childlines import ChildDied, ChildLate

        try:
            if self._child is None:
                self._child = self._engine.started(self._files, self._folder)
            return self._engine.answered(self._child, query)
        except ChildLate:
            self.end()
            return self._engine.late()
        except ChildDied:
            # With its files and network closed there is one way left to end: no more memory.
            self.end()
            return self._engine.too_large()
        except FalajError as error:
            return error

    def end(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None


def _refused(why: str, kind: Any = "") -> FalajError:
    told = f" ({kind})" if kind else ""
    return FalajError(
        "data.sql-rule",
        f"an SQL rule cannot be answered: {why}{told}",
        fix="write one SELECT that gives one number, such as SELECT count(*) FROM t WHERE a < 0",
    )

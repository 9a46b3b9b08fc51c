"""Tables of other engines: lakes and databases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

from falaj.base.snapshots import Snapshot
from falaj.ports.datasets import Dataset

__all__ = ["JoiningReader", "TableReader"]


class TableReader(Protocol):
    """Makes snapshots of tables. Every adapter passes tests/contracts/test_tables.py.

    It reads and never changes a table. Errors are FalajErrors that show no value of a row and no
    secret; secrets are read from the addresses that a source names.
    """

    def takes(self, source: str) -> bool:
        """Whether the source is written in this adapter's form. Looks at the text alone."""

    def snapshot(self, source: str, *, name: str, root: Path, fresh: bool) -> Snapshot:
        """Rows of the source. name: of the dataset, for errors. root: relative paths begin there.

        fresh: ask the engine again. Otherwise the snapshot that is kept, whoever made it; so that
        the processes of one run see the same rows. A source that names its version never changes.
        """


@runtime_checkable
class JoiningReader(TableReader, Protocol):
    """Its rows are those of another declared dataset, with columns more."""

    def asks(self, source: str) -> str:
        """The name of that dataset. Raises FalajError when the source is not well written."""

    def joined(
        self, source: str, *, name: str, root: Path, fresh: bool, rows: Callable[[], Dataset]
    ) -> Snapshot:
        """As `snapshot`. A snapshot that was made of other rows is never given.

        rows: the dataset, as it is in this run.
        """

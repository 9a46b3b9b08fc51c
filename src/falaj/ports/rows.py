"""Tables of any size, piece by piece, for batch scoring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

__all__ = ["Block", "Piece", "RowFormats", "RowSink", "RowSource"]


class Piece(NamedTuple):
    """What becomes one part. where: plain data by which the source finds it again, anywhere.

    rows: how many it has; -1 when only reading it tells.
    """

    name: str
    rows: int
    where: tuple[Any, ...]


class Block(NamedTuple):
    """Some rows in memory. columns: those that were asked for, numbers or objects of text.

    nulls: where a column has no value; only columns with such rows are in it. wrong: (row, column)
    -> words about a value that is not what its column promises. kept: the columns that go through,
    as the sink of the same family takes them.
    """

    n: int
    columns: Mapping[str, NDArray[Any]]
    nulls: Mapping[str, NDArray[Any]]
    wrong: Mapping[tuple[int, str], str]
    kept: Any


class RowSource(Protocol):
    """One table. Reading the same piece twice gives the same rows. tests/contracts/test_rows.py."""

    @property
    def columns(self) -> Sequence[str]:
        """Names, in their order."""

    def digest(self) -> str:
        """Of all bytes that are read. Raises FalajError."""

    def pieces(self, rows: int) -> Sequence[Piece]:
        """Cut into pieces of about so many rows; never fewer than one row group of the file each."""

    def blocks(
        self, piece: Piece, wanted: Mapping[str, str], keep: Sequence[str]
    ) -> Iterator[Block]:
        """Rows in their order, at most 16,384 a block. wanted: column -> `number`, `bool` or `text`.

        Raises FalajError when the file cannot be read, or has changed since `digest`.
        """


class RowSink(Protocol):
    """One part that is being written. Whole only after `close`."""

    def write(
        self, kept: Any, outputs: Mapping[str, NDArray[Any]], good: NDArray[Any] | None
    ) -> None:
        """Rows of a block: what goes through and what the model says. good: mask; all when None."""

    def aside(self, kept: Any, bad: NDArray[Any], about: Mapping[str, NDArray[Any]]) -> None:
        """The bad rows of a block alone. bad: their mask. about: as many values as bad rows."""

    def close(self) -> None: ...


class RowFormats(Protocol):
    """Sources and sinks by address and format."""

    def source(self, address: str) -> RowSource:
        """Raises FalajError."""

    def sink(self, path: Path, format: str, about: Mapping[str, str]) -> RowSink:
        """about: words that the file carries, where its format can."""

"""Tables as files of Parquet and Arrow, and Delta tables: cut along their row groups and batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from falaj.base import digests
from falaj.base.errors import FalajError
from falaj.links.arrow.columns import BLOCK, block_of, unreadable
from falaj.ports.rows import Block, Piece

__all__ = ["ArrowRows", "ParquetRows", "digest_of", "unchanged"]


def digest_of(files: Sequence[Path]) -> str:
    """Of all bytes, file by file, in their order; their names do not count."""
    whole = hashlib.sha256()
    for path in files:
        try:
            whole.update(bytes.fromhex(digests.of_file(path).removeprefix("sha256:")))
        except OSError as error:
            raise unreadable(path.name, error.strerror or "it cannot be opened") from None
    return f"sha256:{whole.hexdigest()}"


def mark_of(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def unchanged(path: Path, mark: Sequence[int]) -> None:
    """Raises FalajError when the file is not the one that was cut into pieces."""
    if mark_of(path) != tuple(mark):
        raise FalajError(
            "score.input-changed",
            f"{path.name} has changed since the job began",
            why="parts of two inputs would lie side by side",
            fix="run it again into a new folder",
        )


class ParquetRows:
    """files: of one schema, in their order."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = [path.resolve() for path in files]
        self._opened: tuple[Path, Any] | None = None

    @property
    def columns(self) -> Sequence[str]:
        return list(self._open(self.files[0]).schema_arrow.names)

    def digest(self) -> str:
        return digest_of(self.files)

    def largest_group(self) -> int:
        """Bytes, unpacked, of the largest row group: what memory follows."""
        found = 0
        for path in self.files:
            about = self._open(path).metadata
            sizes = [about.row_group(at).total_byte_size for at in range(about.num_row_groups)]
            found = max([found, *sizes])
        return found

    def pieces(self, rows: int) -> Sequence[Piece]:
        found: list[Piece] = []
        for path in self.files:
            about = self._open(path).metadata
            groups = range(about.num_row_groups)
            found += grouped(path, [about.row_group(at).num_rows for at in groups], rows)
        return found

    def blocks(
        self, piece: Piece, wanted: Mapping[str, str], keep: Sequence[str]
    ) -> Iterator[Block]:
        import pyarrow as pa

        name, mark, first, last = piece.where
        path = Path(name)
        unchanged(path, mark)
        columns = list(dict.fromkeys([*wanted, *keep]))
        try:
            batches = self._open(path).iter_batches(
                BLOCK, row_groups=list(range(first, last)), columns=columns, use_threads=False
            )
            for batch in batches:
                kept = batch.select(list(keep))
                yield block_of(batch, wanted, kept, path.name)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(path.name, error) from None

    def _open(self, path: Path) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._opened is None or self._opened[0] != path:
            try:
                # Not read ahead: memory follows pages, not the whole row group's columns.
                self._opened = (path, pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20))
            except (pa.ArrowException, OSError) as error:
                raise unreadable(path.name, error) from None
        return self._opened[1]


def grouped(path: Path, sizes: Sequence[int], rows: int) -> Iterator[Piece]:
    """Neighbouring groups of a file taken together until they have about so many rows."""
    first, counted = 0, 0
    for end, size in enumerate(sizes, 1):
        counted += size
        if counted >= rows or end == len(sizes):
            yield Piece(
                f"{path.name}[{first}:{end}]", counted, (str(path), mark_of(path), first, end)
            )
            first, counted = end, 0


class ArrowRows:
    """files: of Arrow's file format, in their order."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = [path.resolve() for path in files]

    @property
    def columns(self) -> Sequence[str]:
        return list(self._open(self.files[0]).schema.names)

    def digest(self) -> str:
        return digest_of(self.files)

    def pieces(self, rows: int) -> Sequence[Piece]:
        found: list[Piece] = []
        for path in self.files:
            reader = self._open(path)
            batches = range(reader.num_record_batches)
            found += grouped(path, [reader.get_batch(at).num_rows for at in batches], rows)
        return found

    def blocks(
        self, piece: Piece, wanted: Mapping[str, str], keep: Sequence[str]
    ) -> Iterator[Block]:
        import pyarrow as pa

        name, mark, first, last = piece.where
        path = Path(name)
        unchanged(path, mark)
        columns = list(dict.fromkeys([*wanted, *keep]))
        try:
            reader = self._open(path)
            for number in range(first, last):
                whole = reader.get_batch(number).select(columns)
                for at in range(0, whole.num_rows, BLOCK):
                    batch = whole.slice(at, BLOCK)
                    yield block_of(batch, wanted, batch.select(list(keep)), path.name)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(path.name, error) from None

    def _open(self, path: Path) -> Any:
        import pyarrow as pa

        try:
            return pa.ipc.open_file(pa.memory_map(str(path)))
        except (pa.ArrowException, OSError) as error:
            raise unreadable(path.name, error) from None

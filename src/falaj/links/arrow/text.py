"""CSV and JSON lines: cut at ends of lines, so that every piece can be read alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from falaj.links.arrow.columns import BLOCK, block_of, unreadable
from falaj.links.arrow.source import digest_of, mark_of, unchanged
from falaj.ports.rows import Block, Piece

__all__ = ["CsvRows", "JsonRows"]

CHUNK: Final = 1 << 22
ROW_BYTES: Final = 100  # about; pieces are cut by bytes, because lines are not counted before
SAMPLE: Final = 1 << 16


def cuts(
    path: Path, begin: int, size: int, *, quoted: bool, chunk_bytes: int = CHUNK
) -> list[tuple[int, int]]:
    """Ranges of about `size` bytes that end behind a line. quoted: not inside quotes (RFC 4180)."""
    found: list[tuple[int, int]] = []
    first = at = begin
    inside = False
    with path.open("rb") as file:
        file.seek(begin)
        while chunk := file.read(chunk_bytes):
            look = 0
            while at + len(chunk) - first >= size and look < len(chunk):
                # The first end of a line behind the wished place, outside of quotes.
                begin_ = max(look, first + size - at - 1, 0)
                open_ = inside ^ bool(chunk.count(b'"', 0, begin_) & 1) if quoted else False
                end = begin_
                while True:
                    end = chunk.find(b"\n", end)
                    if end < 0:
                        break
                    if not (quoted and open_ ^ bool(chunk.count(b'"', begin_, end) & 1)):
                        break
                    end += 1
                if end < 0:
                    break
                found.append((first, at + end + 1))
                first = at + end + 1
                look = end + 1
            if quoted:
                inside ^= bool(chunk.count(b'"') & 1)
            at += len(chunk)
    if at > first:
        found.append((first, at))
    return found


class Texts:
    """Files of lines. What follows is how one family reads a range of bytes."""

    quoted = False

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = [path.resolve() for path in files]

    def digest(self) -> str:
        return digest_of(self.files)

    def pieces(self, rows: int) -> Sequence[Piece]:
        found: list[Piece] = []
        for path in self.files:
            begin = self.begin(path)
            size = rows * self.row_bytes(path, begin)
            for first, last in cuts(path, begin, size, quoted=self.quoted):
                where = (str(path), mark_of(path), first, last)
                found.append(Piece(f"{path.name}@{first}", -1, where))
        return found

    def row_bytes(self, path: Path, begin: int) -> int:
        """Bytes of a line, by the first of them."""
        with path.open("rb") as file:
            file.seek(begin)
            sample = file.read(SAMPLE)
        return max(len(sample) // sample.count(b"\n"), 1) if b"\n" in sample else ROW_BYTES

    def begin(self, _path: Path) -> int:
        return 0


class CsvRows(Texts):
    """Comma-separated, one line of names, quotes as in RFC 4180. An empty cell is no value."""

    quoted = True

    def head(self, path: Path) -> tuple[list[str], int]:
        try:
            with path.open("rb") as file:
                data = file.read(SAMPLE)
        except OSError as error:
            raise unreadable(path.name, error.strerror or "it cannot be opened") from None
        end, inside = 0, False
        while True:
            line = data.find(b"\n", end)
            if line < 0:
                line = len(data)
                break
            inside ^= bool(data.count(b'"', end, line) & 1)
            end = line + 1
            if not inside:
                break
        text = data[: line + 1].decode("utf-8-sig", errors="replace")
        names = next(csv.reader(io.StringIO(text)), [])
        if len(set(names)) != len(names) or not names:
            raise unreadable(path.name, "its first line has no names, or one of them twice")
        return names, min(line + 1, path.stat().st_size)

    @property
    def columns(self) -> Sequence[str]:
        return self.head(self.files[0])[0]

    def begin(self, path: Path) -> int:
        return self.head(path)[1]

    def blocks(
        self, piece: Piece, wanted: Mapping[str, str], keep: Sequence[str]
    ) -> Iterator[Block]:
        import pyarrow as pa
        from pyarrow import csv as arrow_csv

        name, mark, first, last = piece.where
        path = Path(name)
        unchanged(path, mark)
        names, _ = self.head(path)
        columns = list(dict.fromkeys([*wanted, *keep]))
        try:
            with Range(path, first, last) as part:
                reader = arrow_csv.open_csv(
                    pa.PythonFile(part, mode="r"),
                    read_options=arrow_csv.ReadOptions(
                        column_names=names, use_threads=False, block_size=CHUNK
                    ),
                    parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
                    convert_options=arrow_csv.ConvertOptions(
                        include_columns=columns,
                        column_types=dict.fromkeys(names, pa.string()),
                        strings_can_be_null=False,
                    ),
                )
                for whole in reader:
                    for at in range(0, whole.num_rows, BLOCK):
                        batch = whole.slice(at, BLOCK)
                        yield block_of(batch, wanted, batch.select(list(keep)), path.name)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(path.name, error) from None


class Range(io.RawIOBase):
    """Some bytes of a file, as a file."""

    def __init__(self, path: Path, first: int, last: int) -> None:
        self._file = path.open("rb")
        self._file.seek(first)
        self._left = last - first

    def readable(self) -> bool:
        return True

    def readinto(self, to: Any) -> int:
        view = memoryview(to).cast("B")[: self._left]
        got = self._file.readinto(view)
        self._left -= got
        return got

    def close(self) -> None:
        self._file.close()
        super().close()


class JsonRows(Texts):
    """One object a line. What goes through is kept as text: JSON knows no type of a column."""

    @property
    def columns(self) -> Sequence[str]:
        found: dict[str, None] = {}
        for path in self.files[:1]:
            for _, row in self.rows(path, 0, min(path.stat().st_size, SAMPLE), cut=True):
                if isinstance(row, dict):
                    found |= dict.fromkeys(row)
        return list(found)

    def rows(
        self, path: Path, first: int, last: int, *, cut: bool = False
    ) -> Iterator[tuple[int, Any]]:
        decode = msgspec.json.Decoder().decode
        with Range(path, first, last) as part:
            for number, line in enumerate(io.BufferedReader(part, CHUNK)):
                if not line.strip():
                    continue
                try:
                    yield number, decode(line)
                except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                    if not cut:
                        yield number, error

    def blocks(
        self, piece: Piece, wanted: Mapping[str, str], keep: Sequence[str]
    ) -> Iterator[Block]:
        name, mark, first, last = piece.where
        path = Path(name)
        unchanged(path, mark)
        rows: list[Any] = []
        try:
            for _, row in self.rows(path, first, last):
                rows.append(row)
                if len(rows) == BLOCK // 4:
                    yield made(rows, wanted, keep)
                    rows = []
        except OSError as error:
            raise unreadable(path.name, error) from None
        if rows:
            yield made(rows, wanted, keep)


def made(rows: Sequence[Any], wanted: Mapping[str, str], keep: Sequence[str]) -> Block:
    """A block of objects; a line that is none is a bad row, not the end."""
    import numpy as np
    import pyarrow as pa

    wrong: dict[tuple[int, str], str] = {}
    whole: list[Mapping[str, Any]] = []
    for at, row in enumerate(rows):
        if isinstance(row, dict):
            whole.append(row)
        else:
            whole.append({})
            wrong[at, "line"] = f"no JSON object: {str(row)[:100]}"
    columns: dict[str, Any] = {}
    nulls: dict[str, Any] = {}
    for column, kind in wanted.items():
        values: list[Any] = []
        gaps = np.zeros(len(rows), np.bool_)
        for at, row in enumerate(whole):
            value = row.get(column)
            words = "" if value is None else off(kind, value)
            if words:
                wrong[at, column] = words
            gaps[at] = value is None and (at, "line") not in wrong
            values.append(
                {"text": "", "bool": False}.get(kind, 0) if value is None or words else value
            )
        dtype: Any = {"text": np.object_, "bool": np.bool_}.get(kind)
        array = (
            np.array(values, dtype)
            if dtype
            else np.array(values, np.float64 if any(isinstance(v, float) for v in values) else None)
        )
        columns[column] = (
            array.astype(np.float64) if array.dtype == np.object_ and kind == "number" else array
        )
        if gaps.any():
            nulls[column] = gaps
    kept = (
        pa.RecordBatch.from_arrays(
            [pa.array([as_text(row.get(name)) for row in whole], pa.string()) for name in keep],
            names=list(keep),
        )
        if keep
        else pa.RecordBatch.from_pylist([{}] * len(rows))
    )
    return Block(len(rows), columns, nulls, wrong, kept)


def off(kind: str, value: Any) -> str:
    """What is wrong with a value; nothing when it is of its kind."""
    if kind == "text":
        right = isinstance(value, str)
    elif kind == "bool":
        right = isinstance(value, bool)
    else:
        right = isinstance(value, int | float)
    return (
        ""
        if right
        else f"got {str(value)[:60]!r}, expected {'a ' + kind if kind != 'bool' else 'true or false'}"
    )


def as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()

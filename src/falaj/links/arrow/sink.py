"""Parts as Parquet, Arrow, CSV or JSON lines: what goes through, and what the model says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

__all__ = ["Sink"]

GROUP: Final = 262_144  # rows of a row group


class Sink:
    """One file. Blocks are gathered into row groups; equal blocks give equal bytes."""

    def __init__(self, path: Path, format: str, about: Mapping[str, str]) -> None:
        self._path, self._format, self._about = path, format, about
        self._waiting: list[Any] = []
        self._rows = 0
        self._write: Callable[[Any], None] | None = None
        self._close: Callable[[], Any] = lambda: None

    def write(
        self, kept: Any, outputs: Mapping[str, NDArray[Any]], good: NDArray[Any] | None
    ) -> None:
        import pyarrow as pa

        # outputs are those of the good rows alone
        if good is not None:
            kept = kept.filter(pa.array(good))
        arrays = [*kept.columns, *(array_of(column) for column in outputs.values())]
        batch = pa.RecordBatch.from_arrays(arrays, names=[*kept.schema.names, *outputs])
        self._waiting.append(batch)
        self._rows += batch.num_rows
        if self._rows >= GROUP:
            self._flush()

    def aside(self, kept: Any, bad: NDArray[Any], about: Mapping[str, NDArray[Any]]) -> None:
        self.write(kept, about, bad)

    def close(self) -> None:
        self._flush()
        self._close()

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._waiting:
            return
        table = pa.Table.from_batches(self._waiting)
        if self._write is None:
            self._write = self._opened(table.schema)
        self._write(table)
        self._waiting, self._rows = [], 0

    def _opened(self, schema: Any) -> Callable[[Any], None]:
        import pyarrow as pa

        about = {key.encode(): value.encode() for key, value in self._about.items()}
        if self._format == "parquet":
            import pyarrow.parquet as pq

            writer = pq.ParquetWriter(
                self._path, schema.with_metadata(about), compression="zstd", compression_level=1
            )
            self._close = writer.close
            return lambda table: writer.write_table(
                table.replace_schema_metadata(about), row_group_size=GROUP
            )
        if self._format == "arrow":
            file = pa.ipc.new_file(str(self._path), schema.with_metadata(about))
            self._close = file.close
            return lambda table: file.write_table(table.replace_schema_metadata(about))
        if self._format == "csv":
            from pyarrow import csv

            text = csv.CSVWriter(str(self._path), schema.remove_metadata())
            self._close = text.close
            return lambda table: text.write_table(table.replace_schema_metadata(None))
        lines = self._path.open("wb")
        self._close = lines.close
        return lambda table: lines.writelines(lines_of(table))


def lines_of(table: Any) -> Iterator[bytes]:
    import msgspec

    encode = msgspec.json.Encoder(enc_hook=str).encode
    return (encode(row) + b"\n" for row in table.to_pylist())


def array_of(column: NDArray[Any]) -> Any:
    import numpy as np
    import pyarrow as pa

    return (
        pa.array(column.tolist(), pa.string())
        if column.dtype == np.object_
        else pa.array(np.ascontiguousarray(column))
    )

"""pandas frames and Arrow tables as Parquet, through PyArrow (`falaj[pandas]`)."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from falaj.base import digests, frames
from falaj.facts.runs import Artifact
from falaj.ports.blobs import Blobs
from falaj.ports.codecs import BadValue

__all__ = ["ArrowCodec"]


def _class(module: str, name: str) -> Any:
    """The library's class, if somebody has loaded it; an annotation cannot name it otherwise."""
    return getattr(sys.modules.get(module), name, None)


class ArrowCodec:
    """pandas.DataFrame and pyarrow.Table as Parquet, zstd level 1.

    The index and the exact types of pandas lie in the file's own metadata and come back.
    """

    def takes(self, kind: Any) -> bool:
        named = (_class("pandas", "DataFrame"), _class("pyarrow", "Table"))
        asked = kind is not None and any(kind is one for one in named)
        return asked and importlib.util.find_spec("pyarrow") is not None

    def write(self, value: Any, kind: Any, name: str, blobs: Blobs) -> Artifact:
        if not isinstance(value, kind):
            raise BadValue(
                f"got {type(value).__name__}, expected {kind.__module__}.{kind.__name__}"
            )
        table = self._table(value)
        import polars as pl
        from pyarrow import parquet

        try:
            frame = pl.from_arrow(table.schema.empty_table())
            assert isinstance(frame, pl.DataFrame)  # noqa: S101 a table is no array
            schema = frames.schema_of(frame)
        except pl.exceptions.PolarsError as error:
            raise BadValue(f"{error}; cast the column first") from None
        with tempfile.TemporaryDirectory(prefix="falaj-") as folder:
            path = Path(folder, "frame.parquet")
            parquet.write_table(
                table.combine_chunks(), path, compression="zstd", compression_level=1
            )
            size, digest = path.stat().st_size, blobs.put_file(path)
        return Artifact(
            name=name,
            kind="parquet",
            digest=digest,
            files={f"{name}.parquet": digest},
            size=size,
            schema=_with_types(schema, table),
            rows=table.num_rows,
        )

    def _table(self, value: Any) -> Any:
        import pyarrow as pa

        if isinstance(value, pa.Table):
            return value
        doubled = value.columns[value.columns.duplicated()]
        if len(doubled):
            raise BadValue(f"column {doubled[0]!r} stands twice")
        try:
            return pa.Table.from_pandas(value)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            words = " ".join(str(word) for word in error.args)
            raise BadValue(f"{words}; give the column one type first") from None

    def read(self, artifact: Artifact, kind: Any, blobs: Blobs) -> Any:
        from pyarrow import parquet

        table = parquet.read_table(io.BytesIO(blobs.get(artifact.digest)))
        return table.to_pandas() if kind is _class("pandas", "DataFrame") else table


def _with_types(schema: str, table: Any) -> str:
    """The exact schema, with what pandas alone knows: its index, its own types."""
    said = (table.schema.metadata or {}).get(b"pandas")
    if said is None:
        return schema
    known = json.loads(said)
    kept = {name: known.get(name) for name in ("index_columns", "column_indexes", "columns")}
    return digests.of_bytes(json.dumps([schema, kept], sort_keys=True).encode())

"""Frames as Parquet, arrays as npy: what Polars and numpy can read anywhere. Never pickle."""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from falaj.base import frames
from falaj.facts.runs import Artifact
from falaj.links.frames.arrow import ArrowCodec
from falaj.ports.blobs import Blobs
from falaj.ports.codecs import BadValue, Codec

__all__ = ["NpyCodec", "ParquetCodec", "codecs"]

MOST_IN_MEMORY: Final = 512 << 20  # bytes of a frame that is packed, and handed on, in memory
FLAT: Final = frozenset(
    (
        *("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64"),
        *("Float32", "Float64", "Boolean", "String", "Date", "Datetime", "Duration", "Time"),
    )
)


def codecs() -> tuple[Codec, ...]:
    return ParquetCodec(), NpyCodec(), ArrowCodec()


def _is(kind: Any, module: str, *names: str) -> bool:
    """Whether `kind` is one of the library's classes, without loading the library."""
    loaded = sys.modules.get(module)
    return loaded is not None and any(kind is getattr(loaded, name, None) for name in names)


class ParquetCodec:
    """polars.DataFrame and LazyFrame as Parquet, zstd level 1.

    A LazyFrame is collected by the streaming engine; its reader gets a scan. A frame is known by its
    file: equal rows, names and types give equal bytes, whatever their chunks. Files that were
    streamed may be cut elsewhere each time, so those are known by their values.
    """

    def __init__(self) -> None:
        self._last: tuple[str, Any] = "", None

    def takes(self, kind: Any) -> bool:
        return _is(kind, "polars", "DataFrame", "LazyFrame")

    def write(self, value: Any, kind: Any, name: str, blobs: Blobs) -> Artifact:
        import polars as pl

        if not isinstance(value, kind):
            raise BadValue(f"got {type(value).__name__}, expected polars.{kind.__name__}")
        if isinstance(value, pl.LazyFrame):
            return self._streamed(value, name, blobs)
        objects = [column for column, dtype in value.schema.items() if dtype == pl.Object]
        if objects:
            raise BadValue(f"column {objects[0]!r} holds Python objects; cast the column first")
        if value.estimated_size() > MOST_IN_MEMORY:
            with tempfile.TemporaryDirectory(prefix="falaj-") as folder:
                path = Path(folder, "frame.parquet")
                value.rechunk().write_parquet(path, compression="zstd", compression_level=1)
                size, digest = path.stat().st_size, blobs.put_file(path)
        else:
            target = io.BytesIO()
            value.rechunk().write_parquet(target, compression="zstd", compression_level=1)
            size, digest = target.tell(), blobs.put(target.getvalue())
            self._last = digest, value.clone()
        return _parquet(name, digest, size, rows=value.height, schema=frames.schema_of(value))

    def _streamed(self, value: Any, name: str, blobs: Blobs) -> Artifact:
        import polars as pl

        with tempfile.TemporaryDirectory(prefix="falaj-") as folder:
            path = Path(folder, "frame.parquet")
            try:
                value.sink_parquet(path, compression="zstd", compression_level=1)
                content = frames.content_of(pl.scan_parquet(path))
            except (frames.LossyTime, frames.Unhashable) as error:
                raise BadValue(f"{error}; cast the column first") from None
            schema = frames.schema_of(pl.scan_parquet(path))
            size, digest = path.stat().st_size, blobs.put_file(path)
        return _parquet(
            name, digest, size, rows=content.rows, schema=schema, content=content.content
        )

    def read(self, artifact: Artifact, kind: Any, blobs: Blobs) -> Any:
        """The frame that was written last is handed over: nothing that a reader does changes it."""
        import polars as pl

        digest, frame = self._last
        if digest == artifact.digest and kind is pl.DataFrame and _is_flat(frame):
            return frame.clone()
        data = io.BytesIO(blobs.get(artifact.digest))
        return pl.scan_parquet(data) if kind is pl.LazyFrame else pl.read_parquet(data)


def _is_flat(frame: Any) -> bool:
    """Whether Parquet gives back every type as it went in, beyond doubt."""
    return all(str(dtype.base_type()) in FLAT for dtype in frame.dtypes)


def _parquet(
    name: str, digest: str, size: int, *, rows: int, schema: str, content: str = ""
) -> Artifact:
    return Artifact(
        name=name,
        kind="parquet",
        digest=digest,
        files={f"{name}.parquet": digest},
        size=size,
        content=content,
        schema=schema,
        rows=rows,
    )


class NpyCodec:
    """numpy.ndarray as npy; arrays of Python objects are refused both ways."""

    def takes(self, kind: Any) -> bool:
        import typing

        return _is(kind, "numpy", "ndarray") or _is(typing.get_origin(kind), "numpy", "ndarray")

    def write(self, value: Any, kind: Any, name: str, blobs: Blobs) -> Artifact:  # noqa: ARG002 the port's form
        import numpy as np

        if not isinstance(value, np.ndarray):
            raise BadValue(f"got {type(value).__name__}, expected numpy.ndarray")
        if value.dtype.hasobject:
            raise BadValue("the array holds Python objects; give it a numeric or text dtype")
        target = io.BytesIO()
        np.lib.format.write_array(target, np.asarray(value, order="C"), allow_pickle=False)
        data = target.getvalue()
        digest = blobs.put(data)
        return Artifact(
            name=name,
            kind="npy",
            digest=digest,
            files={f"{name}.npy": digest},
            size=len(data),
            rows=value.shape[0] if value.ndim else None,
        )

    def read(self, artifact: Artifact, kind: Any, blobs: Blobs) -> Any:  # noqa: ARG002 the port's form
        import numpy as np

        array = np.load(io.BytesIO(blobs.get(artifact.digest)), allow_pickle=False)
        array.flags.writeable = False
        return array

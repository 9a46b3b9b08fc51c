"""Frames as Parquet, arrays as npy: what Polars and numpy can read anywhere. Never pickle."""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from falaj.base import frames
from falaj.facts.runs import Artifact
from falaj.links.frames.arrow import ArrowCodec
from falaj.ports.blobs import Blobs
from falaj.ports.codecs import BadValue, Codec

__all__ = ["NpyCodec", "ParquetCodec", "codecs"]


def codecs() -> tuple[Codec, ...]:
    return ParquetCodec(), NpyCodec(), ArrowCodec()


def _is(kind: Any, module: str, *names: str) -> bool:
    """Whether `kind` is one of the library's classes, without loading the library."""
    loaded = sys.modules.get(module)
    return loaded is not None and any(kind is getattr(loaded, name, None) for name in names)


class ParquetCodec:
    """polars.DataFrame and LazyFrame as Parquet, zstd level 1.

    A LazyFrame is collected by the streaming engine; its reader gets a scan.
    """

    def takes(self, kind: Any) -> bool:
        return _is(kind, "polars", "DataFrame", "LazyFrame")

    def write(self, value: Any, kind: Any, name: str, blobs: Blobs) -> Artifact:
        import polars as pl

        if not isinstance(value, kind):
            raise BadValue(f"got {type(value).__name__}, expected polars.{kind.__name__}")
        with tempfile.TemporaryDirectory(prefix="falaj-") as folder:
            path = Path(folder, "frame.parquet")
            try:
                if isinstance(value, pl.LazyFrame):
                    value.sink_parquet(path, compression="zstd", compression_level=1)
                    content = frames.content_of(pl.scan_parquet(path))
                    schema = frames.schema_of(pl.scan_parquet(path))
                else:
                    content, schema = frames.content_of(value), frames.schema_of(value)
                    # The same rows in other chunks would give other bytes.
                    value.rechunk().write_parquet(path, compression="zstd", compression_level=1)
            except (frames.LossyTime, frames.Unhashable) as error:
                raise BadValue(f"{error}; cast the column first") from None
            size = path.stat().st_size
            digest = blobs.put_file(path)
        return Artifact(
            name=name,
            kind="parquet",
            digest=digest,
            files={f"{name}.parquet": digest},
            size=size,
            content=content.content,
            schema=schema,
            rows=content.rows,
        )

    def read(self, artifact: Artifact, kind: Any, blobs: Blobs) -> Any:
        import polars as pl

        data = io.BytesIO(blobs.get(artifact.digest))
        return pl.scan_parquet(data) if kind is pl.LazyFrame else pl.read_parquet(data)


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

"""Model versions and what goes in and out of a model."""

from __future__ import annotations

import enum

from falaj.base.time import Instant
from falaj.facts.wire import Fact

__all__ = ["AliasMove", "Column", "Datatype", "ModelVersion", "Schema", "Tensor"]


class Datatype(enum.StrEnum):
    """Open Inference Protocol v2, table of tensor data types."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    FP16 = "FP16"
    BF16 = "BF16"


class Column(Fact, frozen=True, kw_only=True):
    """One column of a two-dimensional input, in the caller's words.

    minimum, maximum: values beyond are refused. null stands for NaN when nullable.
    """

    name: str
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None
    unit: str = ""


class Tensor(Fact, frozen=True, kw_only=True):
    """shape: -1 means any size; the first axis is the row."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    columns: tuple[Column, ...] = ()


class Schema(Fact, frozen=True, kw_only=True):
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class ModelVersion(Fact, frozen=True, kw_only=True):
    """Immutable: what a run made. `tree` is the digest of the model's folder."""

    id: str  # `<model>/<number>`
    model: str
    number: int
    run: str
    tree: str
    files: dict[str, str]
    runtime: str  # onnx
    task: str
    schema: Schema
    threshold: float | None = None  # binary classification: late when the score is above
    at: Instant
    author: str
    evaluation: str = ""  # digest of the held-out rows, Parquet
    reference: dict[str, str] = {}  # name below reference/ -> digest: edges, probes


class AliasMove(Fact, frozen=True, kw_only=True):
    """Append-only: champion, challenger. The current holder is the newest move."""

    id: str
    model: str
    alias: str
    release: str
    previous: str = ""
    by: str
    at: Instant
    change: str = ""

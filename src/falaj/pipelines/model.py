"""`Model`: what a training pipeline returns. Stored as files by digest; pickle is never used."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from falaj.base import digests
from falaj.facts import wire
from falaj.facts.models import Column, Datatype, Schema, Tensor
from falaj.facts.runs import Artifact
from falaj.pipelines.codecs import plain_value
from falaj.ports.blobs import Blobs
from falaj.ports.codecs import BadValue, Codec

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Described", "Model", "ModelCodec", "describe"]

ONNX: Final = "model/model.onnx"
SCHEMA: Final = "schema.json"
TEST: Final = "evaluation.parquet"
REFERENCE: Final = "reference.parquet"
META: Final = "meta.json"
TASKS: Final = (
    "binary-classification",
    "multiclass-classification",
    "regression",
    "forecasting",
    "ranking",
)


class Model:
    """A trained model with all that its gates need.

    Args:
        onnx: the model, ONNX bytes.
        schema: a `falaj.facts.models.Schema`, or its short form for one table in, one tensor out:
            `{"input": "x", "columns": {"distance": {"minimum": 0, "unit": "mi"}}, "output": "p"}`.
            A column may say nullable, minimum, maximum, unit.
        task: binary-classification, multiclass-classification, regression, forecasting, ranking.
            Many classes: the short form of the schema names them (`"classes": ["a", "b", "c"]`),
            and `y` holds their names or their places.
        threshold: binary classification: the answer is positive when the score is above.
        reference: rows of the features as trained on; frozen histogram edges come from them.
        test: held-out rows: the features, `y`, and any columns to group by.
        parity: how well the ONNX model repeats the trained one, such as rows and max_abs_diff.

    Raises BadValue: a column is missing, or there is nothing to measure with.
    """

    def __init__(
        self,
        onnx: bytes,
        *,
        schema: Schema | Mapping[str, Any],
        task: str = "binary-classification",
        threshold: float | None = None,
        reference: pl.DataFrame,
        test: pl.DataFrame,
        parity: Mapping[str, Any] | None = None,
    ) -> None:
        self.onnx = bytes(onnx)
        self.schema = _schema(schema)
        self.task = task
        self.threshold = None if threshold is None else float(threshold)
        self.reference = reference
        self.test = test
        self.parity: dict[str, Any] = plain_value(dict(parity or {}), Any)
        self._check()

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the input columns, in the model's order."""
        return _features(self.schema)

    def _check(self) -> None:
        if not self.onnx:
            raise BadValue("onnx: got no bytes")
        if self.task not in TASKS:
            raise BadValue(f"task: got {self.task!r}, expected one of {', '.join(TASKS)}")
        if not self.features:
            raise BadValue("schema: the input names no columns")
        if self.task == "multiclass-classification" and not any(
            tensor.shape[-1] > 1 for tensor in self.schema.outputs
        ):
            raise BadValue("schema: many classes need an output with a column for each (`classes`)")
        for name, frame, wanted in (
            ("reference", self.reference, self.features),
            ("test", self.test, (*self.features, "y")),
        ):
            missing = [column for column in wanted if column not in frame.columns]
            if missing:
                raise BadValue(f"{name}: column {missing[0]!r} is missing")
            if not frame.height:
                raise BadValue(f"{name}: has no rows")


def _features(schema: Schema) -> tuple[str, ...]:
    return tuple(column.name for tensor in schema.inputs for column in tensor.columns)


def _schema(given: Schema | Mapping[str, Any]) -> Schema:
    if isinstance(given, Schema):
        return given
    try:
        if "inputs" in given:
            return msgspec.convert(dict(given), type=Schema)
        return _short(given)
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        raise BadValue(f"schema: {error}") from None


def _short(given: Mapping[str, Any]) -> Schema:
    known = ("input", "columns", "output", "datatype", "classes")
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}; expected {', '.join(known)}")
    listed: Mapping[str, Any] | Sequence[str] = given.get("columns", ())
    pairs = dict(listed) if isinstance(listed, Mapping) else dict.fromkeys(listed)
    columns = tuple(
        msgspec.convert({"name": name, **(said or {})}, type=Column) for name, said in pairs.items()
    )
    datatype = Datatype(given.get("datatype", "FP32"))
    entry = Tensor(
        name=given.get("input", "input"),
        datatype=datatype,
        shape=(-1, len(columns)),
        columns=columns,
    )
    classes = tuple(Column(name=str(name)) for name in given.get("classes", ()))
    answer = Tensor(
        name=given.get("output", "output"),
        datatype=Datatype.FP32,
        shape=(-1, len(classes) or 1),
        columns=classes,
    )
    return Schema(inputs=(entry,), outputs=(answer,))


class Described(NamedTuple):
    """A stored model without its bytes. files: path in the tree -> digest."""

    schema: Schema
    task: str
    threshold: float | None
    parity: dict[str, Any]
    features: tuple[str, ...]
    groups: tuple[str, ...]
    files: dict[str, str]


def describe(artifact: Artifact, blobs: Blobs) -> Described:
    """Read what a stored model says about itself. Raises BlobMissing."""
    meta = json.loads(blobs.get(artifact.files[META]))
    return Described(
        schema=wire.decode(Schema, blobs.get(artifact.files[SCHEMA])),
        task=meta["task"],
        threshold=meta["threshold"],
        parity=meta["parity"],
        features=tuple(meta["features"]),
        groups=tuple(meta["groups"]),
        files=dict(artifact.files),
    )


class ModelCodec:
    """A folder tree: model/model.onnx, schema.json, evaluation and reference rows, meta.json."""

    def __init__(self, frames: Codec) -> None:
        self._frames = frames

    def takes(self, kind: Any) -> bool:
        return kind is Model

    def write(self, value: Any, kind: Any, name: str, blobs: Blobs) -> Artifact:
        if not isinstance(value, kind):
            raise BadValue(f"got {type(value).__name__}, expected falaj.Model")
        frame = type(value.test)
        test = self._frames.write(value.test, frame, "evaluation", blobs)
        reference = self._frames.write(value.reference, frame, "reference", blobs)
        meta = {
            "v": 1,
            "task": value.task,
            "threshold": value.threshold,
            "parity": value.parity,
            "features": list(value.features),
            "groups": [c for c in value.test.columns if c not in {*value.features, "y"}],
            "rows": {"test": value.test.height, "reference": value.reference.height},
        }
        texts = {
            ONNX: value.onnx,
            SCHEMA: msgspec.json.encode(value.schema, order="sorted"),
            META: json.dumps(meta, sort_keys=True, allow_nan=False, separators=(",", ":")).encode(),
        }
        files = {path: blobs.put(data) for path, data in texts.items()}
        files |= {TEST: test.digest, REFERENCE: reference.digest}
        return Artifact(
            name=name,
            kind="model",
            digest=digests.of_tree(files),
            files=files,
            size=sum(map(len, texts.values())) + test.size + reference.size,
        )

    def read(self, artifact: Artifact, kind: Any, blobs: Blobs) -> Any:
        import polars as pl

        said = describe(artifact, blobs)

        def rows(path: str) -> Any:
            kept = Artifact(
                name=path, kind="parquet", digest=artifact.files[path], files={}, size=0
            )
            return self._frames.read(kept, pl.DataFrame, blobs)

        return kind(
            blobs.get(artifact.files[ONNX]),
            schema=said.schema,
            task=said.task,
            threshold=said.threshold,
            reference=rows(REFERENCE),
            test=rows(TEST),
            parity=said.parity,
        )

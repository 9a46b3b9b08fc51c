"""`Model`: what a training pipeline returns. Stored as files by digest; pickle is never used."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from falaj.base import digests
from falaj.base.paths import trouble
from falaj.facts import wire
from falaj.facts.formats import MARK, RUNTIMES
from falaj.facts.models import Column, Datatype, Schema, Tensor
from falaj.facts.runs import Artifact
from falaj.pipelines.codecs import plain_value
from falaj.ports.blobs import Blobs
from falaj.ports.codecs import BadValue, Codec

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Described", "Model", "ModelCodec", "describe"]

FOLDER: Final = "model/"
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
        onnx: the model, ONNX bytes; not needed when `files` are given.
        schema: a `falaj.facts.models.Schema`, or its short form for one table in, one tensor out:
            `{"input": "x", "columns": {"distance": {"minimum": 0, "unit": "mi"}}, "output": "p"}`.
            A column may say nullable, minimum, maximum, unit.
        task: binary-classification, multiclass-classification, regression, forecasting, ranking.
            Many classes: the short form of the schema names them (`"classes": ["a", "b", "c"]`),
            and `y` holds their names or their places.
        threshold: binary classification: the answer is positive when the score is above.
        reference: rows of the features as trained on; frozen histogram edges come from them.
        test: held-out rows: the features, `y`, and any columns to group by.
        parity: how well the stored model repeats the trained one, such as rows and max_abs_diff.
        runtime: what serves it: onnx, linear, xgboost, lightgbm, skops, or in a sandbox python,
            torch, pyfunc.
        files: of the model's folder, by name, for runtimes other than onnx. Python code is marked
            as such in its first line, and loaded by a runtime that runs it in a sandbox alone.

    Raises BadValue: a column is missing, or there is nothing to measure with.
    """

    def __init__(
        self,
        onnx: bytes = b"",
        *,
        schema: Schema | Mapping[str, Any],
        task: str = "binary-classification",
        threshold: float | None = None,
        reference: pl.DataFrame,
        test: pl.DataFrame,
        parity: Mapping[str, Any] | None = None,
        runtime: str = "onnx",
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        self.onnx = bytes(onnx)
        self.runtime = runtime
        self.files = {"model.onnx": self.onnx} if runtime == "onnx" else marked(files or {})
        self.schema = _schema(schema)
        self.task = task
        self.threshold = None if threshold is None else float(threshold)
        self.reference = reference
        self.test = test
        self.parity: dict[str, Any] = plain_value(dict(parity or {}), Any)
        self._check()

    @classmethod
    def of(
        cls,
        fitted: Any,
        *,
        schema: Schema | Mapping[str, Any],
        reference: pl.DataFrame,
        test: pl.DataFrame,
        task: str = "binary-classification",
        threshold: float | None = None,
        runtime: str = "",
    ) -> Model:
        """Pack a fitted model of scikit-learn, XGBoost or LightGBM, with proof that it answers the same.

        Linear pipelines of scikit-learn become one product of matrices, imputer and scalers folded
        in; boosters keep their own files. Others: export to ONNX, or say runtime="skops".

        Raises BadValue: it cannot be packed, or the packed model answers otherwise than `fitted`.
        """
        from falaj.pipelines.packing import packed, repeated

        known = _schema(schema)
        columns = [column for tensor in known.inputs for column in tensor.columns]
        names = [column.name for column in columns]
        made = packed(fitted, names, runtime)
        model = cls(
            schema=known,
            task=task,
            threshold=threshold,
            reference=reference,
            test=test,
            runtime=made.runtime,
            files=made.files,
        )
        gaps = [at for at, column in enumerate(columns) if column.nullable]
        frames = (reference.select(names), test.select(names))
        model.parity = plain_value(repeated(fitted, made, frames, gaps), Any)
        return model

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the input columns, in the model's order."""
        return _features(self.schema)

    def _check(self) -> None:
        if self.runtime not in RUNTIMES:
            raise BadValue(f"runtime: got {self.runtime!r}, expected {', '.join(RUNTIMES)}")
        if self.runtime == "onnx" and not self.onnx:
            raise BadValue("onnx: got no bytes")
        if not self.files or not all(self.files.values()):
            raise BadValue("files: got no bytes")
        for name in self.files:
            if words := trouble(name):
                raise BadValue(f"files: the name {name!r} {words}")
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


def marked(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Python code says in its first line that it is code: files are known by what they hold."""
    return {
        name: MARK + bytes(data)
        if name.endswith(".py") and not data.startswith(MARK)
        else bytes(data)
        for name, data in files.items()
    }


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
    runtime: str = "onnx"


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
        runtime=meta.get("runtime", "onnx"),
    )


class ModelCodec:
    """A folder tree: the files of model/, schema.json, evaluation and reference rows, meta.json."""

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
        if value.runtime != "onnx":
            meta["runtime"] = value.runtime
        texts = {
            **{f"{FOLDER}{path}": data for path, data in value.files.items()},
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

        files = {
            path.removeprefix(FOLDER): blobs.get(digest)
            for path, digest in artifact.files.items()
            if path.startswith(FOLDER)
        }
        return kind(
            files.get("model.onnx", b""),
            schema=said.schema,
            task=said.task,
            threshold=said.threshold,
            reference=rows(REFERENCE),
            test=rows(TEST),
            parity=said.parity,
            runtime=said.runtime,
            files=files,
        )

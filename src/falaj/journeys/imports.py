"""A model of another registry comes under governance: the very same tree as a trained one.

What was said of it there is kept as a claim. Gates measure it anew, on rows of a declared dataset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from falaj.base import ids, process
from falaj.base.errors import FalajError, NotFound
from falaj.data.datasets import DatasetHandle
from falaj.evaluation.security import Quarantine, decide_bytes
from falaj.facts.access import Permit
from falaj.facts.models import Column, Datatype, Schema, Tensor
from falaj.facts.runs import Run, RunStatus
from falaj.pipelines.codecs import choose
from falaj.pipelines.model import Model
from falaj.pipelines.service import PipelineOutcome, all_codecs
from falaj.ports.codecs import BadValue
from falaj.ports.ground import Ground
from falaj.ports.mirrors import Claimed

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Asked", "brought", "started"]

MOST_COMPARED: Final = 2000
MOST_APART: Final = 1e-4  # of a score; float32 arithmetic alone stays below 1e-5
FLOATS: Final = {"tensor(float)": Datatype.FP32}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a person wants imported, and which rows are to judge it.

    name: models:/NAME@ALIAS or models:/NAME/3. evaluation: a declared dataset; label: its column of
    0 and 1. where: `COLUMN=VALUE`, the held-out rows; all of them when not said. reference: a
    dataset of rows as trained on; when not said, the rows that are not held out. columns: the
    inputs' names, where the model's signature has none. output: of an ONNX model with several.
    trust: types inside a skops file that a person knows.
    """

    name: str
    evaluation: str
    label: str
    where: str = ""
    reference: str = ""
    threshold: float = 0.5
    columns: tuple[str, ...] = ()
    output: str = ""
    trust: tuple[str, ...] = ()


def started(ground: Ground, permit: Permit) -> Run:
    """The run that is written down before anything is fetched. It trains nothing: it has no code."""
    environment, _ = ground.environment()
    return Run(
        id=ids.new(),
        project=ground.name,
        pipeline="import:mlflow",
        model=ground.project.model.name,
        parameters={},
        seed=0,
        principal=permit.person,
        trigger="import",
        status=RunStatus.RUNNING,
        started=ground.now(),
        environment=environment,
        process=process.owner_here(),
    )


def brought(ground: Ground, asked: Asked, datasets: Mapping[str, DatasetHandle]) -> PipelineOutcome:
    """Fetch it, hold its format against the allow-list, convert it where needed, make the tree."""
    if ground.registry is None:
        raise FalajError(
            "imports.no-server",
            "falaj.toml names no server to import from",
            fix='add [links.mlflow] with url and region = "ae"',
        )
    handles = {name: of(datasets, name) for name in {asked.evaluation, asked.reference} - {""}}
    with TemporaryDirectory(dir=ground.state) as scratch:
        ground.tell(f"import: {asked.name}")
        found = ground.registry.fetch(asked.name, Path(scratch))
        columns = dict.fromkeys(asked.columns, False) or dict(found.columns)
        if not columns:
            raise FalajError(
                "imports.no-columns",
                f"{asked.name} has no signature that names its columns",
                why="callers send named rows, and monitors watch columns by name",
                fix="name them in the model's order: --columns income,debt,years",
            )
        test, reference = rows_of(asked, handles, tuple(columns))
        made = model_of(ground, asked, found, columns, test, reference)
        kept = {path: ground.blobs.put_file(file) for path, file in found.files.items()}
    if kept != dict(found.origin.files):
        raise FalajError("imports.changed", "the files changed on this disk while they were read")
    codec = choose(all_codecs(ground.codecs), Model)
    assert codec is not None  # noqa: S101 models are always storable
    artifact = codec.write(made, Model, "result", ground.blobs)
    return PipelineOutcome(
        pipeline="import:mlflow",
        parameters=dict(found.origin.said),
        steps=(),
        result=artifact,
        datasets=tuple(handle.version for handle in handles.values()),
        origin=found.origin,
    )


def of(datasets: Mapping[str, DatasetHandle], name: str) -> DatasetHandle:
    if name not in datasets:
        raise NotFound(
            "imports.no-dataset",
            f"there is no dataset {name!r} in falaj.toml",
            why="known: " + (", ".join(datasets) or "none"),
            fix="declare the rows that are to judge the model as [[datasets]]",
        )
    return datasets[name]


def rows_of(
    asked: Asked, handles: Mapping[str, DatasetHandle], columns: tuple[str, ...]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Held-out rows with `y` and the columns to group by; rows as the model was trained on."""
    import polars as pl

    frame = handles[asked.evaluation].read()
    held, others = frame, frame
    if asked.where:
        column, is_said, value = asked.where.partition("=")
        if not is_said or column not in frame.columns:
            raise FalajError(
                "imports.bad-rows",
                f"got --where {asked.where!r}, expected COLUMN=VALUE",
                why=f"{asked.evaluation} has {', '.join(frame.columns)}",
                fix="name a column that tells held-out rows, such as --where held=1",
            )
        mask = frame[column].cast(pl.String).fill_null("") == value
        held, others = frame.filter(mask), frame.filter(~mask)
    reference = handles[asked.reference].read() if asked.reference else others
    for name, rows, wanted in (
        (asked.evaluation, held, (*columns, asked.label)),
        (asked.reference or asked.evaluation, reference, columns),
    ):
        missing = [column for column in wanted if column not in rows.columns]
        if missing or not rows.height:
            raise FalajError(
                "imports.bad-rows",
                f"{name}: column {missing[0]!r} is missing"
                if missing
                else f"{name}: there are no such rows",
                why=f"the model takes {', '.join(columns)}",
                fix="name a dataset with these columns and the label, and rows that are there",
            )
    truth = held[asked.label].cast(pl.Float64, strict=False)
    if truth.null_count() or not truth.is_in([0.0, 1.0]).all():
        raise FalajError(
            "imports.bad-label",
            f"{asked.evaluation}: column {asked.label!r} holds more than 0 and 1",
            why="the model answers yes or no",
            fix="name the column of the truth, as 0 and 1 or true and false",
        )
    groups = [name for name in held.columns if name not in {*columns, asked.label, "y"}]
    try:
        numbers = held.select(pl.col(columns).cast(pl.Float32))
        return (
            numbers.with_columns(truth.cast(pl.Int8).alias("y"), *(held[name] for name in groups)),
            reference.select(pl.col(columns).cast(pl.Float32)),
        )
    except pl.exceptions.PolarsError:
        raise FalajError(
            "imports.bad-rows",
            f"{asked.evaluation}: a column that the model takes holds no numbers",
            why="a model is served on one matrix of numbers",
            fix="encode texts before, and name a dataset that holds numbers",
        ) from None


def model_of(
    ground: Ground,
    asked: Asked,
    found: Claimed,
    columns: Mapping[str, bool],
    test: pl.DataFrame,
    reference: pl.DataFrame,
) -> Model:
    """An ONNX file as it is, or converted and compared on the very rows that judge it."""
    from falaj.serving.runtimes.scoring import scorer

    file = found.files[found.model]
    x = test.select(list(columns)).to_numpy().astype(np.float32, order="C")[:MOST_COMPARED]
    parity: dict[str, Any] = {}
    if found.origin.flavor == "onnx":
        onnx = file.read_bytes()
        schema = schema_of(onnx, columns, asked)
        scorer(onnx, schema)(x[:1])
    else:
        if ground.converter is None:
            raise FalajError("imports.no-converter", "nothing here converts models")
        ground.tell("import: converting to ONNX")
        converted = ground.converter.convert(file, x, tuple(columns), asked.trust)
        onnx = converted.onnx
        schema = schema_of(onnx, columns, asked)
        apart = float(np.abs(scorer(onnx, schema)(x) - converted.scores).max())
        if not apart <= MOST_APART:
            raise FalajError(
                "imports.conversion-differs",
                f"converted to ONNX it answers otherwise: scores differ by up to {apart:.2g}",
                why=f"on {len(x)} rows; at most {MOST_APART:g} is taken ({converted.about})",
                fix="convert it where it was trained, and log it with mlflow.onnx.log_model",
            )
        parity = {"rows": float(len(x)), "max_abs_diff": apart, "of": converted.about}
    try:
        return Model(
            onnx,
            schema=schema,
            task=ground.project.model.task,
            threshold=asked.threshold,
            reference=reference,
            test=test,
            parity=parity,
        )
    except BadValue as error:
        raise FalajError("imports.bad-rows", str(error), fix="look at --evaluation") from None


def schema_of(onnx: bytes, columns: Mapping[str, bool], asked: Asked) -> Schema:
    """One matrix in, one score out, by the names that the file has. Its bytes stay as they are."""
    judged = decide_bytes(onnx)
    if isinstance(judged, Quarantine) or judged.name != "onnx":
        why = judged.reason if isinstance(judged, Quarantine) else f"it is {judged.name}"
        raise FalajError(
            "imports.quarantined",
            "the model's file is not an ONNX file that may be loaded here",
            why=why,
            fix="log it with mlflow.onnx.log_model, without external data and custom operators",
        )
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the engine's own classes are not importable by name
        raise FalajError(
            "imports.quarantined",
            "ONNX Runtime cannot load the model",
            why=str(error).splitlines()[0][:300],
            fix="export it for an older opset, and log it again",
        ) from None
    entry = one_input(session.get_inputs(), len(columns))
    answer = one_output(session.get_outputs(), asked.output)
    return Schema(
        inputs=(
            Tensor(
                name=entry.name,
                datatype=Datatype.FP32,
                shape=(-1, len(columns)),
                columns=tuple(Column(name=n, nullable=missing) for n, missing in columns.items()),
            ),
        ),
        outputs=(Tensor(name=answer.name, datatype=Datatype.FP32, shape=shape_of(answer)),),
    )


def one_input(entries: list[Any], width: int) -> Any:
    if len(entries) == 1 and entries[0].type in FLOATS and len(entries[0].shape) == 2:
        side = entries[0].shape[1]
        if side == width or not isinstance(side, int):  # a name or nothing: any width
            return entries[0]
    said = ", ".join(f"{e.name} {e.type} {list(e.shape)}" for e in entries)
    raise FalajError(
        "imports.model-shape",
        f"the model takes {said[:300]}; expected one matrix of float32 with {width} columns",
        why="named rows become one matrix, in the order of the columns",
        fix="export it with one input, such as FloatTensorType([None, 3]), and log it again",
    )


def one_output(answers: list[Any], wanted: str) -> Any:
    fits = [a for a in answers if a.type in FLOATS and len(a.shape) in (1, 2) and width_of(a) <= 2]
    chosen = [a for a in fits if a.name == wanted] if wanted else fits
    if len(chosen) == 1:
        return chosen[0]
    said = ", ".join(f"{a.name} {a.type} {list(a.shape)}" for a in answers)
    raise FalajError(
        "imports.model-shape",
        f"the model gives {said[:300]}; expected one score for a row",
        why="either one probability, or those of both classes, as float32",
        fix="with several, say which: --output probabilities; with a zipmap, export without it",
    )


def width_of(answer: Any) -> int:
    side = answer.shape[1] if len(answer.shape) == 2 else 1
    return side if isinstance(side, int) else 1


def shape_of(answer: Any) -> tuple[int, ...]:
    return (-1,) if len(answer.shape) == 1 else (-1, width_of(answer))

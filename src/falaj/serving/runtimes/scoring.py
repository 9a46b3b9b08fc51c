"""A model as one function from a matrix to scores, for gates and references: no server around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from falaj.facts.models import ModelVersion, Schema
from falaj.ports.blobs import Blobs
from falaj.serving.runtimes.choice import maker
from falaj.serving.schema import DTYPES

__all__ = ["Scorer", "scorer", "scorer_of"]

Scorer = Callable[[NDArray[np.float32]], NDArray[np.float64]]


def scorer(
    model: bytes | Mapping[str, bytes], schema: Schema, *, many: bool = False, runtime: str = "onnx"
) -> Scorer:
    """Scores of the positive class, or values, shape (n,), through the same runtime that serves.

    model: bytes of ONNX, or the files of its folder by name. many: probabilities of all classes,
    shape (n, k), of the first output that has several columns.
    """
    files = {"model.onnx": model} if isinstance(model, bytes) else model
    with TemporaryDirectory() as folder:
        for name, data in files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        engine = maker(runtime)(Path(folder), schema)
    tensor = schema.inputs[0]
    wide = (at for at, one in enumerate(schema.outputs) if one.shape[-1] > 1)
    place = next(wide, 0) if many else 0

    def score(x: NDArray[np.float32]) -> NDArray[np.float64]:
        found: Any = engine.run({tensor.name: x.astype(DTYPES[tensor.datatype], copy=False)})[place]
        rows = np.asarray(found, np.float64).reshape(len(x), -1)
        return rows if many else rows[:, -1]

    return score


def scorer_of(blobs: Blobs, model: ModelVersion, *, many: bool = False) -> Scorer:
    """The same for a model version, whose files are verified while they are read."""
    files = {name: blobs.get(digest) for name, digest in model.files.items()}
    return scorer(files, model.schema, many=many, runtime=model.runtime)

"""A model as one function from a matrix to scores, for gates and references: no server around it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from falaj.facts.models import Schema

__all__ = ["scorer"]


def scorer(
    onnx: bytes, schema: Schema, *, many: bool = False
) -> Callable[[NDArray[np.float32]], NDArray[np.float64]]:
    """Scores of the positive class, or values, shape (n,), through the same runtime that serves.

    many: probabilities of all classes, shape (n, k), of the first output that has several columns.
    """
    from falaj.serving.runtimes.onnx import OnnxModel

    with TemporaryDirectory() as folder:
        Path(folder, "model.onnx").write_bytes(onnx)
        model = OnnxModel(Path(folder), schema)
    name = schema.inputs[0].name
    wide = (at for at, tensor in enumerate(schema.outputs) if tensor.shape[-1] > 1)
    place = next(wide, 0) if many else 0

    def score(x: NDArray[np.float32]) -> NDArray[np.float64]:
        found: Any = model.run({name: x})[place]
        rows = np.asarray(found, np.float64).reshape(len(x), -1)
        return rows if many else rows[:, -1]

    return score

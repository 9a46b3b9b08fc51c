"""Linear models as one product in numpy: no engine at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from falaj.facts.models import Datatype, Schema
from falaj.serving.runtimes.answers import broken, file_of, matrix_of, shaped
from falaj.serving.schema import DTYPES
from falaj.stats.linear import answers, from_npz, single

__all__ = ["LinearModel"]


class LinearModel:
    """`linear.npz`, made from a pipeline whose imputer and scalers are folded in."""

    def __init__(self, folder: Path, schema: Schema) -> None:
        path = file_of(folder, "linear.npz")
        try:
            self.model = from_npz(path.read_bytes())
        except (ValueError, OSError, KeyError) as error:
            raise broken(path.name, "Falaj", error) from None
        self.name = matrix_of(schema, len(self.model.weights), "this model")
        self.output = schema.outputs[0]
        self.single = single(self.model) if self.model.weights.shape[1] == 1 else None
        floats = self.output.datatype in (Datatype.FP32, Datatype.FP64)
        self.quick = self.single is not None and floats and self.output.shape[1:] == (1,)
        self.dtype = DTYPES[self.output.datatype]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[Any]:
        """Outputs in the order of the schema: there is one."""
        x = feeds[self.name]
        if self.quick and self.single is not None:
            return [self.single(x).astype(self.dtype)[:, None]]
        return [shaped(answers(self.model, x), self.output, len(x))]

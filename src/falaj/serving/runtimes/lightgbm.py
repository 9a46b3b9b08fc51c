"""LightGBM: one booster, one thread a call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from falaj.facts.models import Schema
from falaj.serving.runtimes.answers import broken, engine_missing, file_of, matrix_of, promised

__all__ = ["LightgbmModel"]


class LightgbmModel:
    """`model.txt`, as `Booster.save_model` writes it."""

    def __init__(self, folder: Path, schema: Schema) -> None:
        path = file_of(folder, "model.txt")
        try:
            import lightgbm
        except (ImportError, OSError):  # OSError: without libgomp its library does not load
            raise engine_missing("LightGBM", "lightgbm") from None
        try:
            self.booster = lightgbm.Booster(model_file=str(path))
            width = int(self.booster.num_feature())
        except Exception as error:  # the engine's own classes
            raise broken(path.name, "LightGBM", error) from None
        self.name = matrix_of(schema, width, "this model")
        self.schema = schema

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[Any]:
        """Outputs in the order of the schema. Raises the engine's own exceptions."""
        x = feeds[self.name]
        found = self.booster.predict(x, num_threads=1, validate_features=False)
        return promised(found, self.schema, len(x))

"""XGBoost: one booster, one thread a call. `inplace_predict` keeps nothing between calls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from falaj.facts.models import Schema
from falaj.serving.runtimes.answers import broken, engine_missing, file_of, matrix_of, promised

__all__ = ["XgboostModel"]


class XgboostModel:
    """`model.ubj` or `model.json`, as `Booster.save_model` writes them."""

    def __init__(self, folder: Path, schema: Schema) -> None:
        path = file_of(folder, "model.ubj", "model.json")
        try:
            import xgboost
        except ImportError:
            raise engine_missing("XGBoost", "xgboost") from None
        try:
            self.booster = xgboost.Booster({"nthread": 1}, model_file=str(path))
            width = int(self.booster.num_features())
        except Exception as error:  # the engine's own classes
            raise broken(path.name, "XGBoost", error) from None
        self.name = matrix_of(schema, width, "this model")
        self.schema = schema

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[Any]:
        """Outputs in the order of the schema. Raises the engine's own exceptions."""
        x = feeds[self.name]
        found = self.booster.inplace_predict(x, missing=np.nan, validate_features=False)
        return promised(found, self.schema, len(x))

"""skops: an estimator of scikit-learn from a file without code, its types on a list of the release."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from falaj.base.errors import Unverified
from falaj.facts.models import Schema
from falaj.serving.runtimes.answers import broken, engine_missing, file_of, matrix_of, promised

__all__ = ["SkopsModel"]

TRUSTED = "trusted.json"


class SkopsModel:
    """`model.skops`; `trusted.json` beside it lists the types that skops itself does not know."""

    def __init__(self, folder: Path, schema: Schema) -> None:
        path = file_of(folder, "model.skops")
        try:
            import skops.io
            import threadpoolctl
        except ImportError:
            raise engine_missing("scikit-learn with skops", "skops") from None
        data = path.read_bytes()
        try:
            listed = folder / TRUSTED
            trusted = (
                msgspec.json.decode(listed.read_bytes(), type=list[str]) if listed.is_file() else []
            )
            strangers = sorted(set(skops.io.get_untrusted_types(data=data)) - set(trusted))
            if strangers:
                raise Unverified(
                    "serving.untrusted-type",
                    f"model/{path.name}: {', '.join(strangers)[:500]}: not on the release's list",
                    why="loading it would run code of these types",
                    fix=f"name them when the model is packed, in {TRUSTED}, if you know them",
                )
            self.model = skops.io.loads(data, trusted=trusted)
        except Unverified:
            raise
        except Exception as error:  # the library's own classes
            raise broken(path.name, "skops", error) from None
        self.limits = threadpoolctl.threadpool_limits(1)
        width = int(getattr(self.model, "n_features_in_", schema.inputs[0].shape[-1]))
        self.name = matrix_of(schema, width, "this model")
        self.schema = schema
        one = getattr(self.model, "predict_proba", None)
        self.answer = self.model.predict if one is None else one

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[Any]:
        """Outputs in the order of the schema. Raises the engine's own exceptions."""
        import warnings

        x = np.asarray(feeds[self.name])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # trained on a frame, asked by position
            found = self.answer(x)
        return promised(found, self.schema, len(x))

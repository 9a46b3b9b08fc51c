"""Models from code of MLflow in the sandbox. Run inside the environment of the part mlflow."""

from __future__ import annotations

import json

import numpy as np
import pytest
import runtime_models as models

from falaj.base.errors import Unverified
from falaj.serving.runtimes.choice import maker

CODE = """
import json
import mlflow
import numpy as np


class Loans(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        with open(context.artifacts["weights"]) as file:
            self.weights = np.array(json.load(file))

    def predict(self, context, model_input, params=None):
        x = np.nan_to_num(np.asarray(model_input, np.float64))
        return 1 / (1 + np.exp(-np.clip((x * self.weights).sum(axis=1), -500, 500)))


mlflow.models.set_model(Loans())
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    (folder / "model.py").write_text(CODE)
    (folder / "artifacts").mkdir()
    (folder / "artifacts" / "weights.json").write_text(json.dumps(models.WEIGHTS))
    return maker("pyfunc")(folder, models.schema())


def test_it_answers_as_its_code_does(model):
    x, _ = models.rows(500)
    (found,) = model.run({"x": x.astype(np.float32)})
    wanted = models.Hand().predict(x.astype(np.float32))
    assert np.abs(found[:, 0] - wanted).max() < 1e-6
    (one,) = model.run({"x": x[:1].astype(np.float32)})
    assert one[0] == found[0]


def test_code_that_sets_no_model_is_refused(tmp_path):
    (tmp_path / "model.py").write_text("x = 1")
    with pytest.raises(Unverified) as refused:
        maker("pyfunc")(tmp_path, models.schema())
    assert refused.value.code == "serving.model-broken"

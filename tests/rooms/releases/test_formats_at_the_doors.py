"""One table says what a runtime loads: the verifier, the gate and the server all read it."""

from __future__ import annotations

from types import SimpleNamespace

import honest
import numpy as np
import onnxruntime
import pytest

from falaj.base.errors import Unverified
from falaj.evaluation.security import check_model_files
from falaj.facts.checks import Verdict
from falaj.facts.formats import FORMATS, RUNTIMES
from falaj.facts.models import Datatype, Schema, Tensor
from falaj.journeys import verify
from falaj.serving import loading
from falaj.serving.runtimes.onnx import OnnxModel

PAIR = Schema(
    inputs=(Tensor(name="x", datatype=Datatype.FP32, shape=(-1, 2)),),
    outputs=(Tensor(name="y", datatype=Datatype.FP32, shape=(-1, 2)),),
)


def test_every_runtime_loads_formats_of_the_table():
    assert all(loads <= set(FORMATS) for loads in RUNTIMES.values())


def test_verify_names_the_file_that_the_runtime_does_not_load(make_release):
    """Signed and whole, and still no model: its bytes are no ONNX."""
    made = make_release()
    found = verify.of_formats(made.folder, made.manifest)
    assert [(one["code"], one["file"]) for one in found] == [
        ("releases.format", "model/model.onnx")
    ]
    assert "is quarantined" in found[0]["message"]


@pytest.mark.parametrize("runtime", [*sorted(set(FORMATS) - set(RUNTIMES)), "pickle", "joblib", ""])
def test_the_server_loads_no_runtime_beside_the_table(tmp_path, runtime):
    manifest = SimpleNamespace(runtime=runtime)
    with pytest.raises(Unverified) as refused:
        loading.load(tmp_path, manifest, "r", 0)
    assert refused.value.code == "serving.runtime"


def test_a_format_that_is_honest_does_not_pass_for_a_runtime_that_does_not_load_it(tmp_path):
    for name, (kind, data) in honest.files().items():
        (tmp_path / "file").write_bytes(data)
        (result,) = check_model_files({name: tmp_path / "file"}, allow=RUNTIMES["onnx"])
        assert (result.verdict is Verdict.PASS) is (kind in RUNTIMES["onnx"]), name


def test_the_server_does_not_take_what_the_gate_has_not_read(tmp_path):
    """ONNX Runtime would take its own flatbuffers by content, under the name of an ONNX file."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "own.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(honest.onnx_model(), options, providers=["CPUExecutionProvider"])
    own = (tmp_path / "own.ort").read_bytes()
    taken = onnxruntime.InferenceSession(own, providers=["CPUExecutionProvider"])
    assert taken.run(None, {"x": np.ones((1, 2), np.float32)})  # the control: it is a real one
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.onnx").write_bytes(own)
    with pytest.raises(Unverified) as refused:
        OnnxModel(tmp_path / "model", PAIR)
    assert refused.value.code == "serving.model-broken"
    (tmp_path / "model" / "model.onnx").write_bytes(honest.onnx_model())
    assert OnnxModel(tmp_path / "model", PAIR).run({"x": np.ones((1, 2), np.float32)})

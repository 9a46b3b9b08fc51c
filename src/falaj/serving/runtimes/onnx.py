"""ONNX Runtime: one session a release, one thread a call, CPU only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from falaj.base.errors import Unverified
from falaj.facts.models import Schema

__all__ = ["OnnxModel"]


class OnnxModel:
    """Loads the one `.onnx` file of a verified model folder. `run` is thread-safe."""

    def __init__(self, folder: Path, schema: Schema) -> None:
        import onnxruntime

        found = sorted(folder.glob("*.onnx"))
        if len(found) != 1:
            raise Unverified(
                "serving.model-file",
                f"model/: got {len(found)} .onnx files, expected exactly one",
                fix="build the release again",
            )
        options = onnxruntime.SessionOptions()
        # Spinning threads double the CPU of large requests; parallelism comes from requests.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # By content it would also take its own flatbuffers, which no gate has read.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        options.log_severity_level = 3
        onnxruntime.disable_telemetry_events()
        try:
            self.session = onnxruntime.InferenceSession(
                str(found[0]), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the engine's own classes are not importable by name
            raise Unverified(
                "serving.model-broken",
                f"model/{found[0].name}: ONNX Runtime cannot load it",
                why=str(error).splitlines()[0][:300],
                fix="build the release again",
            ) from None
        self.outputs = [tensor.name for tensor in schema.outputs]
        inside = {value.name for value in self.session.get_inputs()}
        offered = {value.name for value in self.session.get_outputs()}
        wanted = {tensor.name for tensor in schema.inputs}
        if inside != wanted or not set(self.outputs) <= offered:
            raise Unverified(
                "serving.model-schema",
                f"model/{found[0].name}: takes {sorted(inside)} and gives {sorted(offered)}",
                why=f"the release says {sorted(wanted)} and {self.outputs}",
                fix="build the release again",
            )
        self._run = self.session.run

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[Any]:
        """Outputs in the order of the schema. Raises the engine's own exceptions."""
        found: list[Any] = self._run(self.outputs, feeds)
        return found

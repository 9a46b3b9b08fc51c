"""ONNX Runtime: one session a release, one thread a call, CPU only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from falaj.base.errors import Unverified
from falaj.facts.models import Datatype, Schema
from falaj.serving.raw import to_raw

__all__ = ["OnnxModel"]

BF16: Final = 16  # TensorProto.BFLOAT16


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
        halves = {t.name for t in (*schema.inputs, *schema.outputs) if t.datatype is Datatype.BF16}
        if halves:
            self._run = lambda outputs, feeds: _with_bf16(self.session, halves, outputs, feeds)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[Any]:
        """Outputs in the order of the schema. Raises the engine's own exceptions."""
        found: list[Any] = self._run(self.outputs, feeds)
        return found


def _with_bf16(
    session: Any, halves: set[str], outputs: list[str], feeds: Mapping[str, NDArray[Any]]
) -> list[Any]:
    """Run a model with BF16, which NumPy has no type for: FP32 outside, its upper half inside."""
    import ctypes

    from onnxruntime import OrtValue

    made = {}
    for name, array in feeds.items():
        if name in halves:
            bits = np.frombuffer(to_raw(Datatype.BF16, array), np.uint16).reshape(array.shape)
            made[name] = OrtValue.ortvalue_from_numpy_with_onnx_type(bits, BF16)
        else:
            made[name] = OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
    found: list[Any] = []
    for name, value in zip(outputs, session.run_with_ort_values(outputs, made), strict=True):
        if name not in halves:
            found.append(value.numpy())
            continue
        shape = tuple(value.shape())
        size = 2 * math.prod(shape)
        # The bytes are copied while `value` still owns them.
        bits = np.frombuffer(ctypes.string_at(value.data_ptr(), size), np.uint16)
        found.append((bits.astype(np.uint32) << 16).view(np.float32).reshape(shape))
    return found

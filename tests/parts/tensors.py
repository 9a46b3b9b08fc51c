"""A model that gives back what it was given, with one input and one output of each type of V2."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from falaj.facts.models import Datatype, Schema, Tensor

ELEMENTS = {
    Datatype.BOOL: TensorProto.BOOL,
    Datatype.UINT8: TensorProto.UINT8,
    Datatype.UINT16: TensorProto.UINT16,
    Datatype.UINT32: TensorProto.UINT32,
    Datatype.UINT64: TensorProto.UINT64,
    Datatype.INT8: TensorProto.INT8,
    Datatype.INT16: TensorProto.INT16,
    Datatype.INT32: TensorProto.INT32,
    Datatype.INT64: TensorProto.INT64,
    Datatype.FP16: TensorProto.FLOAT16,
    Datatype.BF16: TensorProto.BFLOAT16,
    Datatype.FP32: TensorProto.FLOAT,
    Datatype.FP64: TensorProto.DOUBLE,
    Datatype.BYTES: TensorProto.STRING,
}
NUMPY = {
    Datatype.BOOL: np.bool_,
    Datatype.FP16: np.float16,
    Datatype.BF16: np.float32,
    Datatype.FP32: np.float32,
    Datatype.FP64: np.float64,
    Datatype.BYTES: np.object_,
    **{
        kind: np.dtype(kind.value.lower())
        for kind in Datatype
        if kind.value.startswith(("INT", "UINT"))
    },
}


def mirror(*kinds, shape=(-1, 2)):
    """Schema and bytes of a model whose output `y_<type>` is its input `x_<type>`."""
    inputs = tuple(Tensor(name=f"x_{k.lower()}", datatype=k, shape=shape) for k in kinds)
    outputs = tuple(Tensor(name=f"y_{k.lower()}", datatype=k, shape=shape) for k in kinds)
    axes = [None if size == -1 else size for size in shape]

    def told(tensors):
        return [helper.make_tensor_value_info(t.name, ELEMENTS[t.datatype], axes) for t in tensors]

    nodes = [
        helper.make_node("Identity", [x.name], [y.name])
        for x, y in zip(inputs, outputs, strict=True)
    ]
    made = helper.make_graph(nodes, "mirror", told(inputs), told(outputs))
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return Schema(inputs=inputs, outputs=outputs), model.SerializeToString()


def sample(kind, shape, seed=0):
    """Values of a type, with its edges."""
    dice = np.random.default_rng(seed)
    total = int(np.prod(shape))
    if kind is Datatype.BOOL:
        values = dice.integers(0, 2, total).astype(bool)
    elif kind is Datatype.BYTES:
        words = ["", "دبي", "a\0b", "x" * 300, "plain"]
        values = np.array([words[i % len(words)] for i in range(total)], np.object_)
    elif kind.value.startswith(("FP", "BF")):
        values = dice.uniform(-100, 100, total)
        if kind is Datatype.BF16:
            values = np.round(values)
        values = values.astype(NUMPY[kind])
    else:
        info = np.iinfo(NUMPY[kind])
        values = dice.integers(0, 100, total).astype(NUMPY[kind])
        values[0], values[-1] = info.min, info.max
    return values.reshape(shape)

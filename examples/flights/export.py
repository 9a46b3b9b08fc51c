"""HistGradientBoostingClassifier to ONNX: `features` [n, k] in, `probability` [n, 1] out."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import HistGradientBoostingClassifier

INPUT, OUTPUT = "features", "probability"


def export_onnx(model: HistGradientBoostingClassifier) -> bytes:
    shape = FloatTensorType([None, model.n_features_in_])
    proto = to_onnx(
        model,
        initial_types=[(INPUT, shape)],
        options={"zipmap": False},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    floor_thresholds(proto.graph.node[0], model)
    only_probability(proto)
    onnx.checker.check_model(proto, full_check=True)
    return bytes(proto.SerializeToString())


def floor_thresholds(trees: onnx.NodeProto, model: HistGradientBoostingClassifier) -> None:
    """ONNX keeps thresholds as float32, rounded to nearest; sklearn compares with float64.

    A threshold that was rounded up sends a row that lies on it to the other side. The largest
    float32 at or below it says exactly what sklearn says.
    """
    attribute = {a.name: a for a in trees.attribute}
    nodes = np.concatenate([tree.nodes for step in model._predictors for tree in step])
    exact, leaf = nodes["num_threshold"], nodes["is_leaf"].astype(bool)
    old = np.array(attribute["nodes_values"].floats, np.float32)
    inner = ~leaf
    same = len(old) == len(nodes) and np.array_equal(old[inner], exact[inner].astype(np.float32))
    ids = np.array(attribute["nodes_featureids"].ints)
    if not same or not np.array_equal(ids[inner], nodes["feature_idx"][inner]):
        raise ValueError("skl2onnx no longer writes the nodes in the order of sklearn")
    del attribute["nodes_values"].floats[:]
    attribute["nodes_values"].floats.extend(np.where(leaf, old, floor32(exact)).tolist())


def floor32(x: NDArray[np.float64]) -> NDArray[np.float32]:
    near = x.astype(np.float32)
    above = near.astype(np.float64) > x
    return np.where(above, np.nextafter(near, np.float32(-np.inf)), near)


def only_probability(model: onnx.ModelProto) -> None:
    """Give the probability of late alone: column 1 of the classifier's [n, 2]."""
    graph = model.graph
    both = graph.output[1].name
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "late"))
    graph.node.append(helper.make_node("Gather", [both, "late"], [OUTPUT], axis=1))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", 1]))
    graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    opsets = {o.domain: o.version for o in model.opset_import}  # one domain stands there twice
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(d, version) for d, version in opsets.items())

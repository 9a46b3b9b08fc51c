"""Honest model files of every format on the allow-list, small, following the formats by hand.

`files()`: name -> (format, bytes). Builders take what the hostile corpus changes in them. The files
of the real libraries are made by the part `formats`, see tests/parts/formats_child.py.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile

import numpy as np
from onnx import TensorProto, helper

__all__ = [
    "arrow_file",
    "files",
    "lightgbm_text",
    "npy",
    "npz",
    "onnx_model",
    "parquet_file",
    "safetensors",
    "skops_file",
    "skops_schema",
    "torch_file",
    "ubj",
    "zipped",
]


def onnx_model(*, domain="", nodes=None, initializers=None, imports=None, **more):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])
    w = helper.make_tensor("w", TensorProto.FLOAT, [2, 2], [1.0, 2.0, 3.0, 4.0])
    graph = helper.make_graph(
        nodes or [helper.make_node("MatMul", ["x", "w"], ["y"], domain=domain)],
        "g",
        [x],
        [y],
        [w] if initializers is None else initializers,
    )
    imports = imports or [helper.make_opsetid("", 21)]
    return helper.make_model(graph, opset_imports=imports, **more).SerializeToString()


def forest(nodes=300):
    """What converters of scikit-learn write: many numbers, the ai.onnx.ml domain."""
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=2,
        nodes_treeids=[i // 64 for i in range(nodes)],
        nodes_nodeids=[i % 64 for i in range(nodes)],
        nodes_truenodeids=[i * 7919 for i in range(nodes)],
        nodes_values=[0.25 * i for i in range(nodes)],
        nodes_modes=["LEAF" if i % 3 else "BRANCH_LEQ" for i in range(nodes)],
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)]
    return onnx_model(nodes=[node], initializers=[], imports=imports, doc_string="لا شيء")


def safetensors(entries, data=b"", *, length=None):
    head = json.dumps(entries).encode() if isinstance(entries, dict) else entries
    return struct.pack("<Q", len(head) if length is None else length) + head + data


def npy(array, **more):
    file = io.BytesIO()
    np.save(file, array, **more)
    return file.getvalue()


def npz(*, packed=False, **arrays):
    file = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(file, **arrays)
    return file.getvalue()


def zipped(members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


# --- torch ---


def torch_file(*, elements=2, key="0", place="cpu", root=None, more=None, outside=None):
    """A state dict of one tensor of two floats, as torch.save writes it."""

    def word(value):
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    storage = b"(" + word("storage") + b"ctorch\nFloatStorage\n" + word(key) + word(place)
    storage += b"K" + bytes([elements]) + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage
    tensor += b"K\0K\x02\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR"
    body = b"\x80\x02ccollections\nOrderedDict\n)R(" + word("w") + tensor + b"u}"
    body += word("_metadata") + b"}sb."
    members = {
        "data.pkl": body if root is None else root,
        "byteorder": b"little",
        "data/0": b"\0" * 8,
        "version": b"3\n",
        ".data/serialization_id": b"1" * 40,
    } | (more or {})
    named = [(f"archive/{name}", data) for name, data in members.items()]
    return zipped([*named, *(outside or {}).items()])


# --- skops ---


def skops_schema(module, kind, loader="ObjectNode"):
    return {"__class__": kind, "__module__": module, "__loader__": loader, "__id__": 1}


def skops_file(schema=None, *, more=None):
    array = skops_schema("numpy", "ndarray", "NdArrayNode") | {"type": "numpy", "file": "2.npy"}
    number = skops_schema("builtins", "str", "JsonNode") | {"content": "1.0", "is_json": True}
    table = skops_schema("builtins", "dict", "DictNode") | {
        "content": {"C": number, "coef_": array},
        "key_types": skops_schema("builtins", "list", "ListNode") | {"content": []},
    }
    whole = skops_schema("sklearn.linear_model._logistic", "LogisticRegression") | {
        "content": table,
        "protocol": 2,
        "_skops_version": "0.16.0",
    }
    members = {} if schema else {"2.npy": npy(np.zeros((1, 2)))}
    members |= {"schema.json": json.dumps(schema or whole).encode()} | (more or {})
    return zipped(members.items())


# --- boosters ---


def big(word):
    return b"L" + struct.pack(">q", len(word)) + word


def ubj(*, part=b"attributes", more=b"", count=3, key=b"id"):
    """Trees of XGBoost: typed arrays, a table of text, three numbers."""

    def tree(count, key):
        weights = b"[$d#L" + struct.pack(">q", count) + struct.pack(">3f", 0.1, -0.2, 0.3)
        param = b"{" + big(b"num_nodes") + b"S" + big(b"3") + b"}"
        made = big(b"base_weights") + weights + big(key) + b"i\0" + big(b"tree_param") + param
        return b"{" + made + b"}"

    trees = tree(3, b"id") * 3 + tree(count, key)
    model = b"{" + big(b"trees") + b"[#L" + struct.pack(">q", 4) + trees + b"}"
    booster = b"{" + big(b"model") + model + big(b"name") + b"S" + big(b"gbtree") + b"}"
    learner = b"{" + big(part) + b"{}" + big(b"feature_names") + b"[#L" + struct.pack(">q", 0)
    learner += big(b"gradient_booster") + booster + b"}"
    version = b"[#L" + struct.pack(">q", 3) + b"i\x03i\x02i\0"
    return b"{" + big(b"learner") + learner + big(b"version") + version + more + b"}"


XGBOOST: dict = {
    "learner": {
        "attributes": {"scikit_learn": '{"_estimator_type": "classifier"}'},
        "gradient_booster": {"model": {"trees": [{"base_weights": [0.1]}]}, "name": "gbtree"},
    },
    "version": [3, 2, 0],
}


def lightgbm_text(*, line="", leaf="0.25", grow=0):
    tree = (
        "Tree=0\nnum_leaves=2\nnum_cat=0\nsplit_feature=0\nsplit_gain=1.5\nthreshold=0.5\n"
        f"decision_type=2\nleft_child=-1\nright_child=-2\nleaf_value={leaf} -1e-3\n"
        "leaf_weight=5 5\nleaf_count=5 5\ninternal_value=0\ninternal_weight=10\n"
        "internal_count=10\nis_linear=0\nshrinkage=0.1\n\n\n"
    )
    head = (
        "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\n"
        "max_feature_idx=1\nobjective=binary sigmoid:1\nfeature_names=a b\n"
        f"feature_infos=[-1:1] none\ntree_sizes={len(tree) + grow}\n"
    )
    head += f"{line}\n" if line else ""
    tail = (
        "end of trees\n\nfeature_importances:\na=1\n\nparameters:\n[boosting: gbdt]\n"
        "[machines: ]\n\nend of parameters\n\npandas_categorical:null\n"
    )
    return f"{head}\n{tree}{tail}".encode()


# --- tables ---


def varint(value):
    made = b""
    while value >= 0x80:
        made += bytes([value & 0x7F | 0x80])
        value >>= 7
    return made + bytes([value])


def thrift(fields):
    """A struct of the compact protocol: number -> int, bytes, list of structs."""
    made, before = b"", 0
    for number, value in sorted(fields.items()):
        kind = {int: 6, bytes: 8, list: 9, dict: 12}[type(value)]
        made += bytes([(number - before) << 4 | kind])
        before = number
        if kind == 6:
            made += varint(value << 1)
        elif kind == 8:
            made += varint(len(value)) + value
        elif kind == 9:
            made += bytes([len(value) << 4 | 12]) + b"".join(map(thrift, value))
        else:
            made += thrift(value)
    return made + b"\0"


def parquet_file(*, other="", note=b"", offset=4, rows=3):
    page = b"\x15" * 40
    about = {1: 5, 4: 0, 5: 3, 6: 40, 7: 40, 9: offset}
    chunk = {2: 0, 3: about} | ({1: other.encode()} if other else {})
    group = {1: [chunk], 2: 40, 3: 3}
    names = [{4: b"schema", 5: 1}, {1: 5, 4: b"a"}]
    footer = {1: 2, 2: names, 3: rows, 4: [group]}
    if note:
        footer[5] = [{1: b"note", 2: note}]
    made = thrift(footer)
    return b"PAR1" + page + made + struct.pack("<I", len(made)) + b"PAR1"


def arrow_file(column="a", rows=3):
    import polars as pl

    file = io.BytesIO()
    pl.DataFrame({column: list(range(rows)), "b": ["x"] * rows}).write_ipc(file)
    return file.getvalue()


def written_parquet():
    import polars as pl

    file = io.BytesIO()
    frame = pl.DataFrame({"a": range(1000), "b": ["x", None] * 500, "c": [[1.0]] * 1000})
    frame.write_parquet(file, row_group_size=300)
    return file.getvalue()


def files():
    """name -> (format, bytes)."""
    one = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    two = one | {"v": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [8, 16]}}
    return {
        "onnx": ("onnx", onnx_model()),
        "onnx of trees": ("onnx", forest()),
        "onnx of many trees": ("onnx", forest(20_000)),
        "safetensors": ("safetensors", safetensors(two, b"\0" * 16)),
        "safetensors with notes": (
            "safetensors",
            safetensors(one | {"__metadata__": {"format": "pt"}}, b"\0" * 8),
        ),
        "safetensors without tensor": ("safetensors", safetensors({})),
        "xgboost": ("xgboost-ubj", ubj()),
        "xgboost in JSON": ("xgboost-json", json.dumps(XGBOOST).encode()),
        "lightgbm": ("lightgbm", lightgbm_text()),
        "skops": ("skops", skops_file()),
        "torch": ("torch", torch_file()),
        "npy": ("npy", npy(np.arange(12.0).reshape(3, 4))),
        "npy of text": ("npy", npy(np.array(["a", "bc"]))),
        "npy of records": ("npy", npy(np.zeros(3, dtype=[("a", "f4"), ("b", "i8")]))),
        "npz": ("npz", npz(a=np.arange(3), b=np.eye(2))),
        "npz, compressed": ("npz", npz(packed=True, a=np.arange(1000), b=np.eye(2))),
        "parquet": ("parquet", parquet_file()),
        "parquet of Polars": ("parquet", written_parquet()),
        "arrow of Polars": ("arrow", arrow_file()),
        "json": ("json", b'{"columns": ["a", "b"], "threshold": 0.5, "note": "\\"x\\": 1"}'),
        "json list": ("json", b" [1, 2.5, {}]\n"),
        "code": ("python", b"# falaj: code of a model\ndef predict(inputs):\n    return inputs\n"),
        "json in Arabic": ("json", '{"اسم": "فلج"}'.encode()),
    }

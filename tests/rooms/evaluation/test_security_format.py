"""The gate of model formats: a hostile file is refused whatever it is called, an honest one is not."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import pickletools
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import onnx
import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from falaj.evaluation.formats import onnx as onnx_gate
from falaj.evaluation.security import (
    Format,
    Quarantine,
    check_model_file,
    check_model_files,
    decide,
    decide_bytes,
)
from falaj.facts.checks import Verdict

# --- honest files ------------------------------------------------------------------------------


def graph(*nodes, initializers=(), name="g"):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])
    return helper.make_graph(list(nodes), name, [x], [y], initializer=list(initializers))


def weights(name="w", **fields):
    tensor = helper.make_tensor(name, TensorProto.FLOAT, [2, 2], [1.0, 2.0, 3.0, 4.0])
    for key, value in fields.items():
        setattr(tensor, key, value)
    return tensor


def model(*, domain="", nodes=None, initializers=None, imports=None, **more):
    nodes = nodes or [helper.make_node("MatMul", ["x", "w"], ["y"], domain=domain)]
    initializers = [weights()] if initializers is None else initializers
    imports = imports or [helper.make_opsetid("", 21)]
    return helper.make_model(
        graph(*nodes, initializers=initializers), opset_imports=imports, **more
    )


def with_subgraph(inner):
    """An If whose branch holds `inner` as a constant of its own."""
    out = helper.make_tensor_value_info("z", TensorProto.FLOAT, [2, 2])
    branch = helper.make_graph(
        [helper.make_node("Identity", ["k"], ["z"])], "branch", [], [out], initializer=[inner]
    )
    condition = helper.make_tensor("c", TensorProto.BOOL, [], [1])
    return model(
        nodes=[
            helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
        ],
        initializers=[condition],
    )


def trees():
    """What converters of scikit-learn write: many numbers, the ai.onnx.ml domain."""
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=2,
        nodes_treeids=list(range(300)),
        nodes_values=[0.5] * 300,
        nodes_modes=["LEAF"] * 300,
    )
    return model(
        nodes=[node],
        initializers=[],
        imports=[helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)],
        producer_name="skl2onnx",
        doc_string="لا شيء",
    )


def function_model(domain):
    made = model()
    made.functions.append(
        helper.make_function(
            domain,
            "F",
            ["a"],
            ["b"],
            [helper.make_node("Identity", ["a"], ["b"])],
            [helper.make_opsetid("", 21)],
        )
    )
    return made


def safetensors(entries, data=b"", *, extra=b"", length=None):
    head = json.dumps(entries).encode() if isinstance(entries, dict) else entries
    size = len(head) if length is None else length
    return struct.pack("<Q", size) + head + data + extra


def npy(array, **more):
    file = io.BytesIO()
    np.save(file, array, **more)
    return file.getvalue()


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def zipped(members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def compressed_npz():
    file = io.BytesIO()
    np.savez_compressed(file, a=np.arange(10.0))
    return file.getvalue()


ONE = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
HONEST = {
    "onnx": (model().SerializeToString(), "onnx"),
    "onnx with a subgraph": (with_subgraph(weights("k")).SerializeToString(), "onnx"),
    "onnx of trees": (trees().SerializeToString(), "onnx"),
    "onnx with raw data": (
        model(
            initializers=[onnx.numpy_helper.from_array(np.eye(2, dtype=np.float32), "w")]
        ).SerializeToString(),
        "onnx",
    ),
    "onnx with sparse weights": (
        model(
            nodes=[
                helper.make_node(
                    "Constant",
                    [],
                    ["y"],
                    sparse_value=helper.make_sparse_tensor(
                        helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0]),
                        helper.make_tensor("i", TensorProto.INT64, [1], [0]),
                        [4],
                    ),
                )
            ]
        ).SerializeToString(),
        "onnx",
    ),
    "onnx with a function of a standard domain": (
        function_model("ai.onnx").SerializeToString(),
        "onnx",
    ),
    "safetensors": (safetensors(ONE, b"\0" * 8), "safetensors"),
    "safetensors with notes": (
        safetensors({**ONE, "__metadata__": {"format": "np"}}, b"\0" * 8),
        "safetensors",
    ),
    "safetensors without tensor": (safetensors({}), "safetensors"),
    "npy": (npy(np.arange(12.0).reshape(3, 4)), "npy"),
    "npy of text": (npy(np.array(["a", "bc"])), "npy"),
    "npy of nothing": (npy(np.empty((0, 3))), "npy"),
    "npy of records": (npy(np.zeros(3, dtype=[("a", "f4"), ("b", "i8")])), "npy"),
    "npz": (npz(a=np.arange(3), b=np.eye(2)), "npz"),
    "npz compressed": (compressed_npz(), "npz"),
    "json": (b'{"columns": ["a", "b"], "threshold": 0.5}', "json"),
    "json list": (b" [1, 2, 3]\n", "json"),
    "json in Arabic": ('{"اسم": "فلج"}'.encode(), "json"),
}


@pytest.mark.parametrize(("data", "kind"), HONEST.values(), ids=HONEST)
def test_honest_files_pass_whatever_they_are_called(tmp_path, data, kind):
    for name in ("model.onnx", "model.pkl", "model"):
        path = tmp_path / name
        path.write_bytes(data)
        found = decide(path)
        assert isinstance(found, Format), found
        assert found.name == kind


def test_what_passes_as_onnx_is_what_the_checker_takes():
    for data, kind in HONEST.values():
        if kind == "onnx":
            onnx.ModelProto.FromString(data)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_converted_model_passes(tmp_path):
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4)).astype(np.float32)
    made = make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=20))
    made.fit(x, (x[:, 0] > 0).astype(int))
    written = convert_sklearn(
        made,
        initial_types=[("x", FloatTensorType([None, 4]))],
        options={"zipmap": False},
        target_opset=17,
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(written.SerializeToString())
    found = decide(path)
    assert isinstance(found, Format), found
    assert found.details["domains"] == ["", "ai.onnx.ml"]


# --- hostile files -----------------------------------------------------------------------------


class Runs:
    def __reduce__(self):
        return os.system, ("true",)


def external(tensor, location):
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("float_data")
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return tensor


def encrypted():
    data = bytearray(npz(a=np.arange(3)))
    data[6] |= 1
    at = data.index(b"PK\1\2")
    data[at + 8] |= 1
    return bytes(data)


def in_tar():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"), io.BytesIO())
    return file.getvalue()


def wrap(number, data):
    """One length-delimited protobuf field."""
    head, size = bytes([number << 3 | 2]), len(data)
    while size >= 0x80:
        head += bytes([size & 0x7F | 0x80])
        size >>= 7
    return head + bytes([size]) + data


def deep(count):
    """A graph in an attribute of a node of a graph, by hand: protobuf itself writes 100 at most."""
    inner = b""
    for _ in range(count):
        inner = wrap(1, wrap(5, wrap(6, inner)))
    return b"\x08\x09" + wrap(8, b"\x10\x15") + wrap(7, inner)


def unknown_field():
    return model().SerializeToString() + b"\xfa\x07\x02hi"  # field 127, text


def with_training():
    made = model()
    made.training_info.add()
    return made.SerializeToString()


EVIL = pickle.dumps(Runs())
HOSTILE = {
    **{f"pickle, protocol {n}": pickle.dumps(Runs(), protocol=n) for n in range(6)},
    "pickle of plain data": pickle.dumps({"a": [1, 2, 3]}),
    "pickle behind a pickle": pickle.dumps(1) + EVIL,
    "pickle, optimised": pickletools.optimize(EVIL),
    "joblib, compressed": zlib.compress(EVIL),
    "pickle in gzip": gzip.compress(EVIL),
    "pickle in bzip2": bz2.compress(EVIL),
    "pickle in xz": lzma.compress(EVIL),
    "torch": zipped([("archive/data.pkl", EVIL), ("archive/version", b"3\n")]),
    "keras": zipped([("config.json", b"{}"), ("model.weights.h5", b"\x89HDF\r\n\x1a\n")]),
    "skops": zipped([("schema.json", b"{}")]),
    "hdf5": b"\x89HDF\r\n\x1a\n" + b"\0" * 100,
    "gguf": b"GGUF" + b"\0" * 100,
    "tar": in_tar(),
    "script": b"#!/bin/sh\ntrue\n",
    "python": b"import os\nos.system('true')\n",
    "program": b"\x7fELF" + b"\0" * 100,
    "tflite": b"\x1c\0\0\0TFL3" + b"\0" * 100,
    "ort flatbuffer": b"\x18\0\0\0ORTM" + b"\0" * 100,
    "xml": b"<PMML><script/></PMML>",
    "empty": b"",
    "one byte": b"\x08",
    "zeros": b"\0" * 200,
    "noise": bytes(range(256)) * 4,
    "npy of objects": npy(np.array([Runs()], dtype=object), allow_pickle=True),
    "npy of records with objects": npy(
        np.zeros(1, dtype=[("a", "O"), ("b", "i4")]), allow_pickle=True
    ),
    "npy, cut off": npy(np.arange(10.0))[:-1],
    "npy with a pickle behind": npy(np.arange(10.0)) + EVIL,
    "npy whose header is code": (
        b"\x93NUMPY\x01\x00" + struct.pack("<H", 40) + b"__import__('os').system('true')".ljust(40)
    ),
    "npy of another version": b"\x93NUMPY\x09\x00" + npy(np.arange(3))[8:],
    "npz with a pickle": zipped([("a.npy", npy(np.arange(3))), ("b.pkl", EVIL)]),
    "npz whose npy is a pickle": zipped([("a.npy", EVIL)]),
    "npz with objects": npz(a=np.array([Runs()], dtype=object)),
    "npz that leads out": zipped([("../a.npy", npy(np.arange(3)))]),
    "npz, doubled member": None,
    "npz in npz": zipped([("a.npy", npz(a=np.arange(3)))]),
    "npz, cut off": npz(a=np.arange(3))[:-5],
    "npz with a pickle behind": npz(a=np.arange(3)) + EVIL,
    "npz with a pickle before": EVIL + npz(a=np.arange(3)),
    "npz, checksum wrong": npz(a=np.arange(100)).replace(
        b"\x32\0\0\0\0\0\0\0\x33", b"\x32\0\0\0\0\0\0\0\x34"
    ),
    "npz, encrypted": encrypted(),
    "npz bomb": zipped([("a.npy", npy(np.zeros(4 << 20)))], zipfile.ZIP_DEFLATED),
    "npz, unusual compression": zipped([("a.npy", npy(np.arange(3)))], zipfile.ZIP_LZMA),
    "zip without members": zipped([]),
    "safetensors, cut off": safetensors(ONE, b"\0" * 7),
    "safetensors with a pickle behind": safetensors(ONE, b"\0" * 8, extra=EVIL),
    "safetensors with a hole": safetensors(
        {**ONE, "v": {"dtype": "F32", "shape": [1], "data_offsets": [12, 16]}}, b"\0" * 16
    ),
    "safetensors with an overlap": safetensors(
        {**ONE, "v": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, b"\0" * 12
    ),
    "safetensors, size and shape differ": safetensors(
        {"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, b"\0" * 8
    ),
    "safetensors, negative shape": safetensors(
        {"w": {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}}, b"\0" * 8
    ),
    "safetensors, unknown type": safetensors(
        {"w": {"dtype": "OBJ", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 8
    ),
    "safetensors, header longer than the file": safetensors(ONE, b"\0" * 8, length=1 << 20),
    "safetensors, header of 10 GB": safetensors(ONE, b"\0" * 8, length=10 << 30),
    "safetensors, doubled name": safetensors(
        b'{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
        b'"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        b"\0",
    ),
    "json that names code": b'{"auto_map": {"AutoModel": "evil.Model"}}',
    "json with a template that is run": b'{"tokenizer": [{"chat_template": "{{ x }}"}]}',
    "json of jsonpickle": b'{"py/object": "os.system"}',
    "json, doubled key": b'{"a": 1, "a": 2}',
    "json with NaN": b'{"a": NaN}',
    "json, cut off": b'{"a": [1, 2',
    "json that is too deep": b"[" * 200_000 + b"]" * 200_000,
    "json with a pickle behind": b'{"a": 1}' + EVIL,
    "onnx, cut off": model().SerializeToString()[:-3],
    "onnx with a pickle behind": model().SerializeToString() + EVIL,
    "onnx with a zip behind": model().SerializeToString() + zipped([("x.pkl", EVIL)]),
    "onnx with an unknown field": unknown_field(),
    "onnx of a foreign domain": model(domain="evil.ops").SerializeToString(),
    "onnx that imports a foreign domain": model(
        imports=[helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    ).SerializeToString(),
    "onnx with a function of a foreign domain": function_model("evil").SerializeToString(),
    "onnx, external data in the folder": model(
        initializers=[external(weights(), "weights.bin")]
    ).SerializeToString(),
    "onnx, external data that leads out": model(
        initializers=[external(weights(), "../../etc/passwd")]
    ).SerializeToString(),
    "onnx, external data at an absolute place": model(
        initializers=[external(weights(), "/etc/passwd")]
    ).SerializeToString(),
    "onnx, external data in a subgraph": with_subgraph(
        external(weights("k"), "../x")
    ).SerializeToString(),
    "onnx, external data in an attribute": model(
        nodes=[
            helper.make_node("Constant", [], ["y"], value=external(weights("v"), "../x")),
        ]
    ).SerializeToString(),
    "onnx, a location without a place": model(
        initializers=[weights(data_location=TensorProto.EXTERNAL)]
    ).SerializeToString(),
    "onnx with training": with_training(),
    "onnx without operator sets": helper.make_model(graph(), opset_imports=[])
    .SerializeToString()
    .replace(b"B\x04\n\x00\x10\x15", b""),
    "onnx without graph": onnx.ModelProto(ir_version=9).SerializeToString(),
    "onnx of a later version": model(ir_version=99).SerializeToString(),
    "onnx nested too deep": deep(5000),
    "onnx whose text is not text": model(producer_name="PRODUCER")
    .SerializeToString()
    .replace(b"PRODUCER", b"\xff\xfe\xff\xfeUCER"),
    "onnx whose number never ends": b"\x08" + b"\xff" * 20,
}


def doubled():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", npy(np.arange(3)))
        archive.writestr("a.npy", npy(np.arange(4)))
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_whatever_they_are_called(tmp_path, name):
    data = HOSTILE[name]
    if data is None:
        data = doubled()
    for ending in (".onnx", ".safetensors", ".json", ".npy", ".bin"):
        path = tmp_path / f"model{ending}"
        path.write_bytes(data)
        found = decide(path)
        assert isinstance(found, Quarantine), found
        assert found.reason


REASONS = {
    "pickle, protocol 4": "pickle",
    "torch": "posix.system",
    "hdf5": "HDF5",
    "npy of objects": "Python objects",
    "npz bomb": "grows too large",
    "npz, encrypted": "encrypted",
    "npz, checksum wrong": "CRC",
    "npz with a pickle behind": "behind its end",
    "safetensors with a hole": "hole",
    "safetensors with a pickle behind": "behind its last tensor",
    "json that names code": "auto_map",
    "json, doubled key": "twice",
    "onnx with an unknown field": "unknown field 127",
    "onnx of a foreign domain": "'evil.ops'",
    "onnx that imports a foreign domain": "'com.microsoft'",
    "onnx, external data that leads out": "external data",
    "onnx, external data in a subgraph": "external data",
    "onnx, external data in an attribute": "external data",
    "onnx, a location without a place": "external data",
    "onnx with training": "training",
    "onnx without operator sets": "no operator set",
    "onnx nested too deep": "deeper than",
    "onnx of a later version": "IR version 99",
    "onnx whose text is not text": "UTF-8",
    "onnx, cut off": "cut off",
}


@pytest.mark.parametrize(("name", "words"), REASONS.items(), ids=REASONS)
def test_the_reason_is_the_one_that_holds(name, words):
    assert words in decide_bytes(HOSTILE[name]).reason


def test_the_corpus_is_as_large_as_it_claims():
    assert len(HOSTILE) >= 74


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "m.onnx").write_bytes(model().SerializeToString())
    (tmp_path / "link.onnx").symlink_to(tmp_path / "m.onnx")
    with pytest.raises(OSError):
        decide(tmp_path / "link.onnx")
    assert check_model_file(tmp_path / "link.onnx").verdict is Verdict.ERROR


ONNX_BYTES = model().SerializeToString()


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=400))
def test_it_never_raises_for_what_a_file_holds(data):
    for start in (b"", b"\x93NUMPY\x01\x00", b"PK\x03\x04", b"{", struct.pack("<Q", 40) + b"{"):
        assert isinstance(decide_bytes(start + data), Format | Quarantine)


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, len(ONNX_BYTES) - 1), byte=st.integers(0, 255))
def test_what_passes_after_a_change_still_parses_and_stays_inside(at, byte):
    """Not every change makes a model invalid, but no change smuggles anything past the walker."""
    data = ONNX_BYTES[:at] + bytes([byte]) + ONNX_BYTES[at + 1 :]
    if isinstance(decide_bytes(data), Format):
        read = onnx.ModelProto.FromString(data)
        assert {entry.domain for entry in read.opset_import} <= onnx_gate.DOMAINS
        assert all(not tensor.external_data for tensor in read.graph.initializer)


@settings(max_examples=100, deadline=None)
@given(cut=st.integers(0, len(ONNX_BYTES) - 1))
def test_a_truncated_model_never_passes_as_another_one(cut):
    found = decide_bytes(ONNX_BYTES[:cut])
    if isinstance(found, Format):  # cut exactly between two fields, with all that is needed
        assert onnx.ModelProto.FromString(ONNX_BYTES[:cut]).opset_import


def test_the_table_of_fields_is_that_of_onnx():
    """Every field of the installed onnx.proto is in the table, with its kind, or left out on purpose."""
    names = {"Entry": "StringStringEntryProto", "TensorType": "TypeProto.Tensor"}
    names |= {
        "Shape": "TensorShapeProto",
        "Dimension": "TensorShapeProto.Dimension",
        "SequenceType": "TypeProto.Sequence",
        "MapType": "TypeProto.Map",
        "Annotation": "TensorAnnotation",
    }
    kinds = {
        FieldDescriptor.TYPE_STRING: "s",
        FieldDescriptor.TYPE_BYTES: "b",
        FieldDescriptor.TYPE_FLOAT: "f",
        FieldDescriptor.TYPE_DOUBLE: "d",
    }
    for ours, fields in onnx_gate.FIELDS.items():
        descriptor = onnx.ModelProto.DESCRIPTOR.file.message_types_by_name
        parts = names.get(ours, f"{ours}Proto").split(".")
        found = descriptor[parts[0]]
        for part in parts[1:]:
            found = found.nested_types_by_name[part]
        assert {field.number for field in found.fields} == set(fields), ours
        for field in found.fields:
            kind = fields[field.number]
            if kind.startswith("!"):
                continue
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                assert kind in onnx_gate.FIELDS, (ours, field.name)
            else:
                wanted = kinds.get(field.type, "v")
                if field.is_repeated and wanted in "vfd":
                    wanted = wanted.upper()
                assert kind == wanted, (ours, field.name)
    assert max(onnx.Version.values()) == onnx_gate.LATEST_IR


# --- results -----------------------------------------------------------------------------------


def test_a_result_for_each_file_in_the_security_gate(tmp_path):
    (tmp_path / "m.onnx").write_bytes(model().SerializeToString())
    (tmp_path / "evil.onnx").write_bytes(EVIL)
    (tmp_path / "gone.onnx").write_bytes(b"x")
    files = {name: tmp_path / name for name in ("m.onnx", "evil.onnx", "gone.onnx")}
    (tmp_path / "gone.onnx").unlink()
    results = check_model_files(files)
    assert [(r.check, r.verdict) for r in results] == [
        ("security.format.evil.onnx", Verdict.FAIL),
        ("security.format.gone.onnx", Verdict.ERROR),
        ("security.format.m.onnx", Verdict.PASS),
    ]
    assert {r.gate for r in results} == {"security"}
    assert "pickle" in results[0].reason
    assert results[2].details["format"] == "onnx"


def test_a_format_that_this_runtime_does_not_load_fails(tmp_path):
    (tmp_path / "w").write_bytes(safetensors(ONE, b"\0" * 8))
    assert check_model_file(tmp_path / "w", allow=("onnx", "json")).verdict is Verdict.FAIL
    assert check_model_file(tmp_path / "w").verdict is Verdict.PASS


def test_a_model_without_files_is_inconclusive():
    assert [r.verdict for r in check_model_files({})] == [Verdict.INCONCLUSIVE]

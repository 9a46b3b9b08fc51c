"""ports/mirrors.py, Registry and Converter: models of a server that is not trusted."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from tracking import StandIn

import parts
from falaj.base.digests import of_bytes
from falaj.base.errors import FalajError
from falaj.facts.project import MlflowTable
from falaj.links.mlflow.client import Client
from falaj.links.mlflow.flavors import read_manifest
from falaj.links.mlflow.registry import MlflowRegistry
from falaj.links.skops.convert import SkopsConverter

COLUMNS = [{"type": "double", "name": "a", "required": True}, {"type": "long", "name": "b", "required": False}]  # fmt: skip
NO_END = 2**40


def manifest(flavors=None, **other):
    said = {
        "flavors": flavors or {"onnx": {"data": "model.onnx"}, "python_function": {}},
        "signature": {"inputs": json.dumps(COLUMNS)},
        "mlflow_version": "3.17.2",
    }
    return json.dumps(said | other).encode()


def onnx_bytes():
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["p"])],
        "m",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(np.ones((2, 1), np.float32), "w")],
    )
    return helper.make_model(graph, ir_version=8).SerializeToString()


MODEL = onnx_bytes()
SAID = {
    "params": [{"key": "depth", "value": "6"}],
    "metrics": [{"key": "auc", "value": 0.99, "timestamp": 1, "step": 0}],
    "tags": [{"key": "mlflow.source.git.commit", "value": "c0ffee"}],
}


@pytest.fixture
def server():
    made = StandIn()
    yield made
    made.stop()


def registry(server, tmp_path, **other):
    return MlflowRegistry(Client(MlflowTable(url=server.url, region="ae"), tmp_path, **other))


def fetched(server, tmp_path, name="models:/loan@champion", **other):
    folder = tmp_path / "fetched"
    folder.mkdir(exist_ok=True)
    return registry(server, tmp_path, **other).fetch(name, folder)


def honest(server, **other):
    files = {"MLmodel": manifest(), "model.onnx": MODEL, "requirements.txt": b"onnx\n"}
    return server.keep_model("loan", files | other, alias="champion", said=SAID)


@pytest.mark.parametrize(
    "name", ["models:/loan@champion", "loan@champion", "loan/1", "models:/loan/1"]
)
def test_a_model_comes_with_its_files_and_its_claims(server, tmp_path, name):
    honest(server)
    found = fetched(server, tmp_path, name)
    origin = found.origin
    assert (origin.server, origin.name, origin.version) == (server.url, "loan", "1")
    assert origin.files["model.onnx"] == of_bytes(MODEL)
    assert set(origin.files) == {"MLmodel", "model.onnx", "requirements.txt"}
    assert origin.claimed == {"auc": 0.99}
    assert origin.said == {"depth": "6", "commit": "c0ffee"}
    assert (origin.flavor, origin.mlflow_version) == ("onnx", "3.17.2")
    assert found.files[found.model].read_bytes() == MODEL
    assert dict(found.columns) == {"a": False, "b": True}


NAMES = {
    "no version": "loan", "latest by name": "models:/loan/latest", "nothing": "", "a path": "../loan/1",
    "two aliases": "loan@a@b", "a query": "loan/1?x=1", "another scheme": "s3://bucket/loan",
    "a control character": "lo\x00an/1",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_that_is_not_one_version(server, tmp_path, name):
    with pytest.raises(FalajError) as caught:
        fetched(server, tmp_path, name)
    assert caught.value.code in ("imports.bad-name", "imports.unknown")
    assert not [call for call in server.calls if "artifacts" in call]


@pytest.mark.parametrize("name", ["loan@gone", "loan/7", "other/1"])
def test_what_is_not_there(server, tmp_path, name):
    honest(server)
    with pytest.raises(FalajError) as caught:
        fetched(server, tmp_path, name)
    assert caught.value.code == "imports.unknown"


MANIFESTS = {
    "a pickle": (manifest({"sklearn": {"serialization_format": "cloudpickle", "pickled_model": "m"}}), "imports.pickle"),
    "a pickle of old times": (manifest({"sklearn": {"pickled_model": "model.pkl"}}), "imports.pickle"),
    "another format": (manifest({"sklearn": {"serialization_format": "joblib"}}), "imports.flavor"),
    "another library": (manifest({"xgboost": {"data": "m"}, "python_function": {}}), "imports.flavor"),
    "code of others": (manifest({"python_function": {"loader_module": "os"}}), "imports.flavor"),
    "a file outside": (manifest({"onnx": {"data": "../../etc/passwd"}}), "imports.bad-manifest"),
    "an absolute file": (manifest({"onnx": {"data": "/etc/passwd"}}), "imports.bad-manifest"),
    "no file": (manifest({"onnx": {}}), "imports.bad-manifest"),
    "a file that is a list": (manifest({"onnx": {"data": ["m"]}}), "imports.bad-manifest"),
    "no flavor": (b'{"flavors": {}}', "imports.bad-manifest"),
    "flavors as text": (b'{"flavors": "onnx"}', "imports.bad-manifest"),
    "no YAML": (b"{", "imports.bad-manifest"),
    "bytes": (b"\xff\xfe\x00", "imports.bad-manifest"),
    "aliases": (b"a: &a [x]\nflavors: {onnx: *a}", "imports.bad-manifest"),
    "code in YAML": (b"flavors: !!python/object/apply:os.system ['true']", "imports.bad-manifest"),
    "nesting without end": (b"[" * 5000, "imports.bad-manifest"),
    "a signature of another kind": (manifest(signature={"inputs": "{}"}), "imports.bad-manifest"),
    "a signature that is no JSON": (manifest(signature={"inputs": "["}), "imports.bad-manifest"),
    "a column twice": (manifest(signature={"inputs": json.dumps([COLUMNS[0]] * 2)}), "imports.bad-manifest"),
    "a column of text": (
        manifest(signature={"inputs": '[{"type": "string", "name": "a"}]'}), "imports.not-numbers",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "code"), MANIFESTS.values(), ids=MANIFESTS)
def test_manifests_that_are_refused(text, code):
    with pytest.raises(FalajError) as caught:
        read_manifest(text, "loan/1")
    assert caught.value.code == code
    assert caught.value.problems[0].fix


def test_a_tensor_without_names_names_no_columns():
    tensor = [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}]
    said = read_manifest(manifest(signature={"inputs": json.dumps(tensor)}), "loan/1")
    assert dict(said.columns) == {}
    assert dict(read_manifest(manifest(signature=None), "loan/1").columns) == {}


def listing(*entries):
    return lambda _, path, __: (
        (200, json.dumps({"files": list(entries)}).encode(), {}) if path.endswith("artifacts/artifacts") else None
    )  # fmt: skip


def entry(path, size=3, **other):
    return {"path": path, "is_dir": False, "file_size": size} | other


LISTINGS = {
    "a way up": listing(entry("../evil")),
    "a way up inside": listing(entry("a/../../evil")),
    "a way up, written otherwise": listing(entry("..%2fevil")),
    "a backslash": listing(entry("..\\evil")),
    "an absolute path": listing(entry("/etc/passwd")),
    "nothing as a name": listing(entry("")),
    "a name that is a number": listing(entry(7)),
    "a control character": listing(entry("a\nb")),
    "a device": listing(entry("con")),
    "a file twice": listing(entry("MLmodel"), entry("MLmodel")),
    "no size": listing({"path": "MLmodel", "is_dir": False, "file_size": None}),
    "a size below nothing": listing(entry("MLmodel", -1)),
    "a size that is true": listing(entry("MLmodel", True)),
    "a text for a file": listing("MLmodel"),
    "folders without end": listing({"path": "deeper", "is_dir": True}),
    "a list of a thousand files and one": listing(*(entry(f"f{i}") for i in range(1001))),
    "a manifest larger than it can be": listing(entry("MLmodel", 2 << 20)),
    "a manifest of another size": listing(entry("MLmodel", 3), entry("model.onnx", 9)),
}


@pytest.mark.parametrize("lie", LISTINGS.values(), ids=LISTINGS)
def test_lists_of_a_hostile_server(server, tmp_path, lie):
    honest(server)
    server.lie = lie
    with pytest.raises(FalajError) as caught:
        fetched(server, tmp_path)
    assert caught.value.code == "tracking.hostile", caught.value
    inside = {p.relative_to(tmp_path).parts[0] for p in tmp_path.rglob("*")}
    assert inside <= {"fetched"}
    assert not list(tmp_path.parent.glob("evil*"))


def test_models_that_are_too_large_are_not_begun(server, tmp_path):
    honest(server)
    server.lie = listing(entry("MLmodel", 100), entry("model.onnx", NO_END))
    with pytest.raises(FalajError) as caught:
        fetched(server, tmp_path)
    assert caught.value.code == "imports.too-large"
    assert not list((tmp_path / "fetched").iterdir())


def answering(part, answer):
    return lambda _, path, __: (200, json.dumps(answer).encode(), {}) if part in path else None


ANSWERS = {
    "another model": answering("alias", {"model_version": {"name": "evil", "version": "1"}}),
    "no model": answering("alias", {}),
    "a version that is a path": answering("alias", {"model_version": {"name": "loan", "version": "1/../2"}}),
    "files on a way up": answering("download-uri", {"artifact_uri": "mlflow-artifacts:/../../etc"}),
}  # fmt: skip


@pytest.mark.parametrize("lie", ANSWERS.values(), ids=ANSWERS)
def test_answers_of_a_hostile_server(server, tmp_path, lie):
    honest(server)
    server.lie = lie
    with pytest.raises(FalajError) as caught:
        fetched(server, tmp_path)
    assert caught.value.code == "tracking.hostile"


@pytest.mark.parametrize(
    "address", ["s3://bucket/x", "file:///etc", "http://192.0.2.1/x", "", "models:/m-1", "dbfs:/x"]
)
def test_no_address_of_a_stranger_is_followed(server, tmp_path, address):
    honest(server)
    server.lie = answering("download-uri", {"artifact_uri": address})
    with pytest.raises(FalajError) as caught:
        fetched(server, tmp_path)
    assert caught.value.code == "imports.not-served"


@pytest.mark.parametrize(
    "data", [MODEL + b"more", MODEL[:-1], b""], ids=["longer", "shorter", "empty"]
)
def test_bytes_of_another_length_than_announced(server, tmp_path, data):
    honest(server)
    server.lie = lambda _, path, __: (200, data, {}) if path.endswith("model.onnx") else None
    with pytest.raises(FalajError) as caught:
        fetched(server, tmp_path)
    assert caught.value.code == "tracking.hostile"


def test_a_drip_has_an_end(server, tmp_path):
    """A server that sends one byte now and then holds nobody for longer than a document may take."""
    import threading

    honest(server)
    slow = threading.Event()

    def drip(*_):
        slow.wait(3)

    server.lie = drip
    with pytest.raises(FalajError) as caught:
        fetched(server, tmp_path, answer_s=0.2)
    slow.set()
    assert caught.value.code == "tracking.unreachable"


def test_claims_are_plain_words_and_finite_numbers(server, tmp_path):
    honest(server)
    run = {
        "data": {
            "params": [{"key": "a\x1b[2J", "value": "x" * 5000}, "text", {"key": 3}],
            "metrics": [
                {"key": "auc", "value": 0.5}, {"key": "nan", "value": "NaN"},
                {"key": "top", "value": 10**400}, {"key": "b", "value": None},
            ],
            "tags": {"not": "a list"},
        }
    }  # fmt: skip
    server.lie = answering("runs/get", {"run": run})
    origin = fetched(server, tmp_path).origin
    assert origin.claimed == {"auc": 0.5}
    assert all(word.isprintable() for pair in origin.said.items() for word in pair)
    assert all(len(value) <= 200 for value in origin.said.values())


def test_a_model_whose_run_was_deleted_makes_no_claims(server, tmp_path):
    version = honest(server)
    server.runs_delete(version["run_id"])
    assert fetched(server, tmp_path).origin.claimed == {}


def test_without_the_packages_the_cure_is_named(tmp_path):
    (tmp_path / "model.skops").write_bytes(b"")
    try:
        import skops  # noqa: F401 asked for its presence
    except ImportError:
        with pytest.raises(FalajError) as caught:
            SkopsConverter().convert(
                tmp_path / "model.skops", np.zeros((1, 1), np.float32), ["a"], []
            )
        assert caught.value.code == "imports.extra-missing"
        assert "falaj[skops]" in caught.value.problems[0].fix


def test_conversion_of_skops_files():
    """In the environment that has skops: trust lists, shapes, classes, garbage, time."""
    parts.suite("mlflow", "tests/parts/suites/skops_suite.py", "-p", "no:xdist")

"""The promises of ports/codecs.py: values come back equal, hostile ones are refused, no pickle."""

from __future__ import annotations

import enum
import io
import pickle
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from falaj.base.frames import content_of
from falaj.facts.runs import Artifact
from falaj.links.files.blobs import FileBlobs
from falaj.links.frames.codecs import codecs
from falaj.pipelines.codecs import choose
from falaj.pipelines.model import Model, describe
from falaj.pipelines.pictures import PNG, Picture
from falaj.pipelines.service import all_codecs
from falaj.ports.codecs import BadValue

ALL = all_codecs(codecs())


class Color(enum.Enum):
    RED = "red"


class Point(msgspec.Struct, frozen=True):
    x: int
    at: date


@pytest.fixture
def blobs(tmp_path):
    return FileBlobs(tmp_path / "blobs")


FRAME = pl.DataFrame(
    {
        "i": [1, None, -3],
        "f": [0.5, float("nan"), None],
        "s": ["a", None, "zürich"],
        "b": [True, None, False],
        "d": [date(2020, 1, 1), None, date(1900, 1, 1)],
        "t": [datetime(2020, 1, 1, tzinfo=UTC), None, datetime(2021, 1, 1, tzinfo=UTC)],
        "l": [[1, 2], None, []],
    }
)
VALUES = {  # kind, value
    "int": (int, 2**60), "float": (float, 0.1), "bool": (bool, True), "str": (str, "سلام"),
    "none": (type(None), None), "date": (date, date(2020, 2, 29)),
    "datetime": (datetime, datetime(2020, 1, 1, 1, 2, 3, 4, tzinfo=UTC)),
    "timedelta": (timedelta, timedelta(days=1, microseconds=1)),
    "enum": (Color, Color.RED), "literal": (Literal["a", "b"], "b"),
    "list": (list[int], [1, 2]), "tuple": (tuple[int, ...], (1, 2)),
    "dict": (dict[str, list[float]], {"b": [1.5], "a": []}), "union": (int | None, None),
    "struct": (Point, Point(1, date(2020, 1, 1))), "bare dict": (dict, {"a": [1, {"b": None}]}),
    "picture": (Picture, Picture(b"<svg/>")), "titled": (Picture, Picture(PNG, "r\u00f6c")),
    "bytes": (bytes, b"\x00\xff"), "array": (np.ndarray, np.arange(6).reshape(2, 3)),
    "array of no dimension": (np.ndarray, np.array(3.5)),
    "fortran array": (np.ndarray, np.asfortranarray(np.arange(6).reshape(2, 3))),
    "frame": (pl.DataFrame, FRAME), "empty frame": (pl.DataFrame, FRAME.clear()),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_values_come_back_equal(blobs, name):
    kind, value = VALUES[name]
    codec = choose(ALL, kind)
    artifact = codec.write(value, kind, "result", blobs)
    assert artifact == codec.write(value, kind, "result", blobs), "equal values, equal digests"
    back = codec.read(artifact, kind, blobs)
    if isinstance(value, pl.DataFrame):
        assert back.equals(value) and back.schema == value.schema
        assert artifact.rows == value.height
        rows = [value[:1], value[1:]] if value.height else [value]
        pieces = pl.concat(rows, rechunk=False)
        assert artifact == codec.write(pieces, kind, "result", blobs), "chunks do not count"
    elif isinstance(value, np.ndarray):
        assert np.array_equal(back, value) and back.dtype == value.dtype
        with pytest.raises(ValueError):
            back[...] = 0
    else:
        assert back == value and type(back) is type(value)


def test_a_lazy_frame_is_collected_and_scanned(blobs):
    codec = choose(ALL, pl.LazyFrame)
    artifact = codec.write(FRAME.lazy(), pl.LazyFrame, "result", blobs)
    assert artifact.content == content_of(FRAME).content, "known by its values, not by its file"
    back = codec.read(artifact, pl.LazyFrame, blobs)
    assert isinstance(back, pl.LazyFrame) and back.collect().equals(FRAME)


NEW = {
    "a cell": lambda frame: frame.__setitem__((0, "i"), 9),
    "a new column": lambda frame: frame.insert_column(0, pl.Series("new", [1, 2, 3])),
    "no column": lambda frame: frame.drop_in_place("i"),
    "more rows": lambda frame: frame.extend(frame.clone()),
    "another order": lambda frame: frame.get_column("i").sort(in_place=True),
    "a cell of a column": lambda frame: frame.get_column("i").__setitem__(0, 9),
}


@pytest.mark.parametrize("change", NEW.values(), ids=NEW)
def test_a_frame_that_is_handed_over_is_each_readers_own(blobs, change):
    codec, flat = choose(ALL, pl.DataFrame), FRAME.drop("l")
    artifact = codec.write(flat, pl.DataFrame, "result", blobs)
    first = codec.read(artifact, pl.DataFrame, blobs)
    change(first)
    assert codec.read(artifact, pl.DataFrame, blobs).equals(FRAME.drop("l"))
    change(flat)  # the step that made it may still hold it
    assert codec.read(artifact, pl.DataFrame, blobs).equals(FRAME.drop("l"))


def test_a_frame_that_was_read_is_the_one_that_was_written(blobs):
    one, other = FRAME.drop("l"), FRAME.drop("l").reverse()
    written = [choose(ALL, pl.DataFrame).write(f, pl.DataFrame, "r", blobs) for f in (one, other)]
    back = [choose(ALL, pl.DataFrame).read(a, pl.DataFrame, blobs) for a in written]
    assert back[0].equals(one) and back[1].equals(other)


REFUSED = {  # kind, value, words
    "NaN": (dict[str, float], {"a": float("nan")}, r"\$\.a: nan"),
    "infinity": (float, float("inf"), "inf"),
    "number keys": (dict, {1: 2}, "key 1 is not text"),
    "another type": (int, "1", "Expected `int`"),
    "inside": (list[int], [1, "x"], r"\$\[1\]"),
    "an object": (dict, {"a": object()}, "no JSON"),
    "a frame for a dict": (dict, FRAME, "no JSON"),
    "no frame": (pl.DataFrame, {"a": 1}, "got dict"),
    "a series": (pl.DataFrame, FRAME["i"], "got Series"),
    "a frame of objects": (pl.DataFrame, pl.DataFrame({"o": [object()]}), "Python objects"),
    "streamed nanoseconds": (
        pl.LazyFrame,
        pl.LazyFrame({"t": pl.Series([1], dtype=pl.Datetime("ns"))}),
        "finer than a microsecond",
    ),
    "an array of objects": (np.ndarray, np.array([object()]), "Python objects"),
    "a list for an array": (np.ndarray, [1], "got list"),
    "text for bytes": (bytes, "x", "got str"),
    "no picture": (Picture, b"PNG", "got bytes"),
    "text for a path": (Path, "x", "got str"),
    "a path to nothing": (Path, Path("/nowhere/at/all"), "neither a file nor a folder"),
    "no model": (Model, object(), "expected falaj.Model"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "words"), REFUSED.values(), ids=REFUSED)
def test_refused(blobs, kind, value, words):
    with pytest.raises(BadValue, match=words):
        choose(ALL, kind).write(value, kind, "result", blobs)


def test_files_and_folders_come_back_as_copies(blobs, tmp_path):
    codec, folder = choose(ALL, Path), tmp_path / "made"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.csv").write_text("x\n1\n")
    (folder / "b.bin").write_bytes(b"\x00")
    tree = codec.write(folder, Path, "result", blobs)
    one = codec.write(folder / "b.bin", Path, "result", blobs)
    (folder / "b.bin").write_bytes(b"changed since")
    back, again = (codec.read(tree, Path, blobs) for _ in "ab")
    assert back != again, "no two readers share it"
    assert (back / "deep" / "a.csv").read_text() == "x\n1\n"
    assert sorted(tree.files) == ["b.bin", "deep/a.csv"]
    assert codec.read(one, Path, blobs).read_bytes() == b"\x00"
    assert codec.read(one, Path, blobs).suffix == ".bin"


def test_a_folder_with_a_link_out_of_it_is_refused(blobs, tmp_path):
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "secrets").symlink_to("/etc")
    with pytest.raises(BadValue, match="secrets is a link"):
        choose(ALL, Path).write(folder, Path, "result", blobs)
    (folder / "secrets").unlink()
    with pytest.raises(BadValue, match="is empty"):
        choose(ALL, Path).write(folder, Path, "result", blobs)


NOT_STORED = [object, set, set[int], dict[int, int], type, complex, list[object]]


@pytest.mark.parametrize("kind", NOT_STORED, ids=str)
def test_no_codec_takes(kind):
    assert choose(ALL, kind) is None


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("/tmp/falaj-was-unpickled"),))


def test_a_pickle_in_place_of_an_array_is_not_loaded(blobs):
    target = io.BytesIO()
    np.save(target, np.array([Bomb()], dtype=object), allow_pickle=True)
    for data in (target.getvalue(), pickle.dumps(Bomb())):
        digest = blobs.put(data)
        artifact = Artifact(name="r", kind="npy", digest=digest, files={"r": digest}, size=1)
        with pytest.raises(ValueError):
            choose(ALL, np.ndarray).read(artifact, np.ndarray, blobs)
    assert not Path("/tmp/falaj-was-unpickled").exists()


@given(st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False, allow_infinity=False)))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None
)
def test_every_plain_dict_comes_back(blobs, value):
    codec = choose(ALL, dict[str, float])
    assert (
        codec.read(codec.write(value, dict[str, float], "r", blobs), dict[str, float], blobs)
        == value
    )


def model(**more):
    given = {
        "onnx": b"onnx bytes",
        "schema": {
            "input": "features",
            "columns": {
                "hour": {"minimum": 0, "maximum": 23, "unit": "h"},
                "humid": {"nullable": True},
            },
            "output": "probability",
        },
        "threshold": 0.3,
        "reference": pl.DataFrame({"hour": [1.0, 2.0], "humid": [None, 0.5]}),
        "test": pl.DataFrame({"hour": [3.0], "humid": [0.1], "y": [1], "origin": ["JFK"]}),
        "parity": {"rows": 10, "max_abs_diff": np.float32(0.25)},
    } | more
    return Model(given.pop("onnx"), **given)


def test_a_model_comes_back_as_a_tree_of_files(blobs):
    codec = choose(ALL, Model)
    artifact = codec.write(model(), Model, "result", blobs)
    assert artifact == codec.write(model(), Model, "result", blobs)
    assert sorted(artifact.files) == [
        "evaluation.parquet", "meta.json", "model/model.onnx", "reference.parquet", "schema.json",
    ]  # fmt: skip
    assert blobs.get(artifact.files["model/model.onnx"]) == b"onnx bytes"
    back = codec.read(artifact, Model, blobs)
    assert back.onnx == b"onnx bytes" and back.schema == model().schema
    assert back.test.equals(model().test) and back.reference.equals(model().reference)
    said = describe(artifact, blobs)
    assert said.features == ("hour", "humid") and said.groups == ("origin",)
    assert said.threshold == 0.3 and said.parity == {"rows": 10, "max_abs_diff": 0.25}
    assert said.task == "binary-classification"
    hour = said.schema.inputs[0].columns[0]
    assert (hour.minimum, hour.maximum, hour.unit) == (0, 23, "h")
    assert said.schema.inputs[0].name == "features" and said.schema.outputs[0].name == "probability"


BAD_MODELS = {
    "no bytes": ({"onnx": b""}, "got no bytes"),
    "unknown task": ({"task": "guess"}, "task"),
    "no columns": ({"schema": {"input": "x"}}, "names no columns"),
    "unknown key of the schema": ({"schema": {"inptu": "x"}}, "unknown key 'inptu'"),
    "unknown key of a column": ({"schema": {"columns": {"hour": {"min": 0}}}}, "schema"),
    "a feature is missing in the reference": (
        {"reference": pl.DataFrame({"hour": [1.0]})}, "reference: column 'humid'",
    ),
    "no y": ({"test": pl.DataFrame({"hour": [1.0], "humid": [1.0]})}, "test: column 'y'"),
    "no rows": ({"reference": pl.DataFrame({"hour": [], "humid": []})}, "reference: has no rows"),
    "NaN in parity": ({"parity": {"d": float("nan")}}, "nan"),
}  # fmt: skip


@pytest.mark.parametrize(("more", "words"), BAD_MODELS.values(), ids=BAD_MODELS)
def test_a_model_refuses_nonsense_at_birth(more, words):
    with pytest.raises(BadValue, match=words):
        model(**more)

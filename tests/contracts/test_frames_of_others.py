"""pandas frames and Arrow tables as artifacts; run where PyArrow is, in an environment of its own."""

from __future__ import annotations

import importlib.util
from datetime import UTC, datetime

import pandas as pd
import polars as pl
import pytest

import parts
from falaj.links.files.blobs import FileBlobs
from falaj.links.frames.codecs import codecs
from falaj.pipelines.codecs import choose
from falaj.pipelines.plan import fits
from falaj.pipelines.service import all_codecs
from falaj.ports.codecs import BadValue

ALL = all_codecs(codecs())

if importlib.util.find_spec("pyarrow") is None:

    def test_pandas_is_not_taken_without_pyarrow():
        assert choose(ALL, pd.DataFrame) is None

    def test_pandas_keeps_the_promises():
        parts.suite("arrow", "tests/contracts/test_frames_of_others.py")

else:
    import pyarrow as pa

    @pytest.fixture
    def blobs(tmp_path):
        return FileBlobs(tmp_path / "blobs")

    FRAME = pd.DataFrame(
        {
            "i": [1, 2, 3],
            "f": [0.5, None, 2.0],
            "s": ["a", None, "\u0632"],
            "t": [datetime(2020, 1, n, tzinfo=UTC) for n in (1, 2, 3)],
            "c": pd.Categorical(["x", "y", "x"]),
        }
    )

    @pytest.mark.parametrize("index", [None, [7, 8, 9], ["a", "b", "c"]], ids=str)
    def test_a_frame_comes_back_equal_with_its_index_and_types(blobs, index):
        frame = FRAME if index is None else FRAME.set_axis(index)
        codec = choose(ALL, pd.DataFrame)
        artifact = codec.write(frame, pd.DataFrame, "result", blobs)
        assert artifact == codec.write(frame.copy(), pd.DataFrame, "result", blobs)
        assert artifact.kind == "parquet" and artifact.rows == 3
        pd.testing.assert_frame_equal(codec.read(artifact, pd.DataFrame, blobs), frame)

    def test_the_next_step_may_use_another_library(blobs):
        artifact = choose(ALL, pd.DataFrame).write(FRAME, pd.DataFrame, "result", blobs)
        assert choose(ALL, pl.DataFrame).read(artifact, pl.DataFrame, blobs)["i"].to_list() == [
            1,
            2,
            3,
        ]
        table = choose(ALL, pa.Table).read(artifact, pa.Table, blobs)
        assert table.num_rows == 3
        for given in (pd.DataFrame, pl.DataFrame, pa.Table):
            assert fits(given, pd.DataFrame) and not fits(given, list)

    def test_equal_values_have_one_content_whatever_the_library(blobs):
        plain = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
        kinds = {
            pd.DataFrame: plain,
            pl.DataFrame: pl.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
            pa.Table: pa.table({"a": [1, 2], "b": ["x", "y"]}),
        }
        made = [choose(ALL, kind).write(v, kind, "result", blobs) for kind, v in kinds.items()]
        assert len({artifact.content for artifact in made}) == 1

    def test_another_index_is_another_schema(blobs):
        codec = choose(ALL, pd.DataFrame)
        one, other = (
            codec.write(FRAME.rename_axis(name), pd.DataFrame, "result", blobs)
            for name in (None, "row")
        )
        assert one.schema != other.schema

    REFUSED = {
        "mixed types": (pd.DataFrame({"m": [1, "a"]}, dtype=object), "m"),
        "objects": (pd.DataFrame({"o": [object()]}), "o"),
        "a column twice": (pd.DataFrame([[1, 2]], columns=["a", "a"]), "stands twice"),
        "no frame": (FRAME["i"], "got Series"),
    }

    @pytest.mark.parametrize(("value", "words"), REFUSED.values(), ids=REFUSED)
    def test_refused_with_the_columns_name(blobs, value, words):
        with pytest.raises(BadValue, match=words):
            choose(ALL, pd.DataFrame).write(value, pd.DataFrame, "result", blobs)

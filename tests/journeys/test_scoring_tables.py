"""`falaj score`: on real tables in the part `arrow`; what needs no table, here."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import parts
from falaj.base.errors import FalajError
from falaj.facts.models import Column, Datatype, Schema, Tensor
from falaj.links.arrow.formats import ArrowFormats
from falaj.ports.rows import Block
from falaj.serving.score import Scorer, fits, wanted


def test_tables_of_every_format():
    parts.suite("arrow", "tests/parts/suites/scoring_suite.py")


def test_without_pyarrow_the_cure_is_named():
    with pytest.raises(FalajError) as refused:
        ArrowFormats()
    assert refused.value.code == "score.extra-missing"
    assert refused.value.problems[0].fix == "pip install 'falaj[batch]'"


SCHEMA = Schema(
    inputs=(
        Tensor(name="n", datatype=Datatype.INT16, shape=(-1,)),
        Tensor(name="word", datatype=Datatype.BYTES, shape=(-1,)),
        Tensor(
            name="x",
            datatype=Datatype.FP32,
            shape=(-1, 2),
            columns=(Column(name="a", nullable=True), Column(name="b", minimum=0.0)),
        ),
    ),
    outputs=(Tensor(name="y", datatype=Datatype.FP32, shape=(-1, 1)),),
)


class Sum:
    """Fails as a whole when any word is `bad`; NaN where n is 7."""

    def run(self, feeds):
        if "bad" in feeds["word"].tolist():
            raise RuntimeError("it cannot read that word")
        y = np.nansum(feeds["x"], axis=1) + feeds["n"]
        return [np.where(feeds["n"] == 7, np.nan, y).astype(np.float32)[:, None]]


def block(size=6, **columns):
    base = {
        "n": np.arange(size, dtype=np.int64),
        "word": np.array(["a"] * size, object),
        "a": np.ones(size),
        "b": np.ones(size),
    }
    return Block(size, base | columns, {}, {}, None)


def test_columns_have_their_places():
    assert wanted(SCHEMA) == {"n": "number", "word": "text", "a": "number", "b": "number"}
    found = Scorer(SCHEMA, Sum()).score(block())
    assert found.good is None
    assert found.outputs["y"].tolist() == [2, 3, 4, 5, 6, 7]


BAD = {
    "a broken number": ({"n": np.array([0, 1.5, 2, 3, 4, 5])}, {1: "n: got 1.5, expected INT16"}),
    "a number that is too large": (
        {"n": np.array([0, 1, 2, 3, 4, 70_000])}, {5: "n: got 70000, expected INT16"}),
    "below the range": ({"b": np.array([1, 1, -1, 1, 1, 1.0])}, {2: "b: got -1.0, expected at least 0.0"}),
    "a gap where there may be none": ({"b": np.array([1, np.nan, 1, 1, 1, 1])}, {1: "b: no value"}),
    "a word that the model cannot take": (
        {"word": np.array(["a", "a", "a", "bad", "a", "a"], object)},
        {3: "the model failed: it cannot read that word"}),
    "an answer that is none": ({"n": np.array([0, 1, 7, 3, 4, 5])}, {2: "the model answered NaN or infinity"}),
    "several": (
        {"n": np.array([7, 1, 2, 3, 4, 5]), "b": np.array([1, -1, 1, 1, 1, 1.0]), "word": np.array(["a"] * 5 + ["bad"], object)},
        {0: "the model answered NaN or infinity", 1: "b: got -1.0, expected at least 0.0", 5: "the model failed: it cannot read that word"}),
}  # fmt: skip


@pytest.mark.parametrize(("columns", "reasons"), BAD.values(), ids=BAD)
def test_a_bad_row_hurts_itself_alone(columns, reasons):
    found = Scorer(SCHEMA, Sum()).score(block(**columns))
    assert found.reasons == reasons
    assert np.flatnonzero(~found.good).tolist() == sorted(reasons)
    assert len(found.outputs["y"]) == 6 - len(reasons)
    assert np.isfinite(found.outputs["y"]).all()


def test_gaps_and_infinities_that_may_be():
    given = block(a=np.array([np.nan, np.inf, -np.inf, 1, 1, 1]))
    runtime = SimpleNamespace(run=lambda feeds: [np.isfinite(feeds["x"][:, :1]).astype(np.float32)])
    found = Scorer(SCHEMA, runtime).score(given)
    assert found.good is None
    assert found.outputs["y"].tolist() == [0, 0, 0, 1, 1, 1]


def test_all_bad_is_no_answer_and_no_crash():
    found = Scorer(SCHEMA, Sum()).score(block(b=np.full(6, -1.0)))
    assert len(found.reasons) == 6
    assert found.outputs["y"].shape == (0,)


def test_a_missing_column_has_a_near_name():
    with pytest.raises(FalajError) as refused:
        fits(SCHEMA, ["n", "wrod", "a", "b"], (), "in.parquet")
    assert "did you mean 'wrod'" in refused.value.problems[0].why


def test_a_tensor_without_columns_has_no_place_in_a_table():
    wide = Tensor(name="image", datatype=Datatype.FP32, shape=(-1, 8, 8))
    with pytest.raises(FalajError) as refused:
        wanted(Schema(inputs=(wide,), outputs=SCHEMA.outputs))
    assert refused.value.code == "score.no-columns"

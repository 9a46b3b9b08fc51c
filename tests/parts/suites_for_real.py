"""Real Pandera, Pointblank and Great Expectations inside steps; run in the environment `suites`.

Not collected by name: test_suites_in_steps.py runs it there.
"""

from __future__ import annotations

import textwrap

import pytest

from falaj.facts.checks import Verdict
from falaj.facts.runs import Environment
from falaj.links.files.blobs import FileBlobs
from falaj.links.frames.codecs import codecs
from falaj.links.greatexpectations.evidence import GreatExpectationsEvidence
from falaj.links.pandera.evidence import PanderaEvidence
from falaj.links.pointblank.evidence import PointblankEvidence
from falaj.links.stepcache.cache import FileStepCache
from falaj.pipelines.service import run_pipeline

HEAD = """
import polars as pl

import falaj
from falaj import pipeline, step

ROWS = pl.DataFrame({"hour": [5, 24, None, 7], "carrier": ["UA", "CANARY", "AA", "UA"]})
GOOD = ROWS[:1]

@pipeline
def main() -> int:
    return look()

"""
PANDERA = """
import pandera.polars as pa
import polars as pl

SCHEMA = pa.DataFrameSchema({
    "hour": pa.Column(pl.Int64, pa.Check.in_range(0, 23)),
    "carrier": pa.Column(pl.String, pa.Check.isin(["UA", "AA"])),
})

class Model(pa.DataFrameModel):
    hour: int = pa.Field(ge=0, le=23)

"""
BROKEN = {"hour.not_nullable", "hour.in_range", "carrier.isin"}
STEPS = {  # body of the step -> the checks that fail, or the words of a refusal
    "pandera: a schema and its rows": (
        PANDERA, "falaj.evidence(SCHEMA, rows=ROWS, dataset='flights')", BROKEN,
    ),
    "pandera: the errors that were raised": (
        PANDERA,
        """
        try:
            SCHEMA.validate(ROWS, lazy=True)
        except pa.errors.SchemaErrors as found:
            falaj.evidence(found, dataset="flights")
        """,
        BROKEN,
    ),
    "pandera: rows that keep it": (
        PANDERA, "falaj.evidence(SCHEMA, rows=GOOD, dataset='flights')", set(),
    ),
    "pandera: a model": (
        PANDERA, "falaj.evidence(Model, rows=ROWS, dataset='flights')",
        {"hour.not_nullable", "hour.less_than_or_equal_to"},
    ),
    "pandera: a LazyFrame passes bad data silently": (
        PANDERA, "falaj.evidence(SCHEMA, rows=ROWS.lazy(), dataset='flights')",
        "Pandera looked at SCHEMA_ONLY, not at the data",
    ),
    "pandera: no rows are given": (
        PANDERA, "falaj.evidence(SCHEMA, dataset='flights')", "a schema and its rows",
    ),
    "pointblank": (
        "import pointblank as pb\n",
        """
        falaj.evidence(
            pb.Validate(ROWS).col_vals_between("hour", 0, 23, na_pass=True)
            .col_vals_in_set("carrier", ["UA", "AA"]).interrogate(),
            dataset="flights",
        )
        """,
        {"1.hour.col_vals_between", "2.carrier.col_vals_in_set"},
    ),
    "pointblank: more than the 500 rows of an extract": (
        "import pointblank as pb\n",
        """
        many = pl.DataFrame({"hour": [24] * 2000})
        (found,) = falaj.evidence(
            pb.Validate(many).col_vals_lt("hour", 24).interrogate(), dataset="flights"
        )
        assert found.value == 2000
        """,
        {"1.hour.col_vals_lt"},
    ),
    "pointblank: never run": (
        "import pointblank as pb\n",
        "falaj.evidence(pb.Validate(ROWS).col_vals_lt('hour', 24), dataset='flights')",
        "no list of steps that were run",
    ),
    "great expectations": (
        "import great_expectations as gx\nimport pandas as pd\n",
        """
        TABLE = pd.DataFrame(ROWS.to_dict(as_series=False))
        context = gx.get_context(mode="ephemeral")
        batch = (
            context.data_sources.add_pandas("p").add_dataframe_asset("a")
            .add_batch_definition_whole_dataframe("b")
        )
        suite = context.suites.add(gx.ExpectationSuite("s"))
        suite.add_expectation(
            gx.expectations.ExpectColumnValuesToBeInSet(column="carrier", value_set=["UA", "AA"])
        )
        asked = context.validation_definitions.add(
            gx.ValidationDefinition(name="v", data=batch, suite=suite)
        )
        falaj.evidence(
            asked.run(batch_parameters={"dataframe": TABLE}), dataset="flights"
        )
        point = context.checkpoints.add(gx.Checkpoint(name="c", validation_definitions=[asked]))
        falaj.evidence(
            point.run(batch_parameters={"dataframe": TABLE}), dataset="weather"
        )
        """,
        {"1.carrier.column_values_to_be_in_set"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("head", "body", "wanted"), STEPS.values(), ids=STEPS)
def test_a_step_takes_in(tmp_path, head, body, wanted):
    root = tmp_path / "project"
    root.mkdir()
    step = "@step\ndef look() -> int:\n" + textwrap.indent(textwrap.dedent(body).strip(), "    ")
    (root / "pipeline.py").write_text(f"{head}{HEAD}\n{step}\n    return 1\n")
    cache = FileStepCache(tmp_path / "cache.db")
    blobs = FileBlobs(tmp_path / "blobs")

    def run():
        return run_pipeline(
            "pipeline:main", root=root, parameters={}, seed=1, blobs=blobs,
            datasets=dict.fromkeys(("flights", "weather")), cache=cache, codecs=codecs(), lock=Environment(),
            evidence=(PanderaEvidence(), PointblankEvidence(), GreatExpectationsEvidence()),
        )  # fmt: skip

    done = run()
    if isinstance(wanted, str):
        assert done.error is not None
        assert wanted in str(done.error.problems)
        return
    assert done.error is None, done.error.problems
    (made,) = done.steps
    failed = {
        r.check.removeprefix("data.").partition(".")[2].partition(".")[2]
        for r in made.checks
        if r.verdict is Verdict.FAIL
    }
    assert failed == wanted
    assert {r.check.split(".")[1] for r in made.checks} <= {"flights", "weather"}
    assert made.checks
    assert "CANARY" not in str(made.checks), "values of rows stay where they are"
    again = run()
    assert again.steps[0].status == "cached" and again.steps[0].checks == made.checks
    cache.close()

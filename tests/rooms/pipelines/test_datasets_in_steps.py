"""Datasets as inputs of steps; results after edits against results from nothing."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import falaj
from falaj.base.errors import FalajError
from falaj.data.datasets import open_dataset
from falaj.facts.runs import Environment
from falaj.links.files.blobs import FileBlobs
from falaj.links.frames.codecs import codecs
from falaj.links.stepcache.cache import FileStepCache
from falaj.pipelines.service import run_pipeline
from falaj.ports.blobs import BlobMissing

PIPELINE = """
import polars as pl
from falaj import Dataset, pipeline, step

@step
def total(*, flights: Dataset) -> float:
    assert flights.name == "flights"
    return flights.read()["x"].sum() + flights.scan().select(pl.len()).collect().item()

@pipeline
def main() -> float:
    return total()
"""


def flights(shop, *, name="f.parquet"):
    return {"flights": open_dataset("flights", name, root=shop.root, memo=shop.cache)}


def test_a_step_reads_a_dataset_by_its_name(shop):
    shop.write(pipeline=PIPELINE)
    path = shop.root / "f.parquet"
    frame = pl.DataFrame({"x": [1.5, 2.5]})
    frame.write_parquet(path)
    first = shop.run(datasets=flights(shop))
    assert shop.value(first) == 6.0
    assert [v.dataset for v in first.datasets] == ["flights"] and first.datasets[0].rows == 2

    frame.write_parquet(path, compression="uncompressed", row_group_size=1)
    again = shop.run(datasets=flights(shop))
    assert again.executed == 0, "the same rows from another codec"
    assert again.datasets[0].bytes != first.datasets[0].bytes

    pl.DataFrame({"x": [1.5, 3.5]}).write_parquet(path)
    after = shop.run(datasets=flights(shop))
    assert shop.value(after) == 7.0 and after.steps[0].why == "input flights changed"

    pl.DataFrame({"x": [1.5, 3.5]}, schema={"x": pl.Float32}).write_parquet(path)
    assert shop.run(datasets=flights(shop)).executed == 1, "another type"


def test_a_dataset_that_no_step_asks_for_is_not_read(shop):
    shop.write(
        pipeline="from falaj import pipeline, step\n@step\ndef a() -> int:\n    return 1\n"
        "@pipeline\ndef main() -> int:\n    return a()\n"
    )
    (shop.root / "f.parquet").write_bytes(b"no Parquet at all")
    outcome = shop.run(datasets=flights(shop))
    assert shop.value(outcome) == 1 and outcome.datasets == ()


class Forgetful(FileBlobs):
    """A disk that loses what it says it has."""

    def get(self, digest):
        data = super().get(digest)
        if data[:4] == b"PAR1":
            raise BlobMissing(digest)
        return data


def test_a_disk_that_loses_everything_ends_the_run(shop):
    shop.write(
        pipeline="import polars as pl\nfrom falaj import pipeline, step\n"
        "@step\ndef a() -> pl.DataFrame:\n    return pl.DataFrame({'x': [[1]]})\n"
        "@step\ndef b(rows: pl.DataFrame) -> int:\n    return 1\n"
        "@pipeline\ndef main() -> int:\n    return b(a())\n"
    )
    shop.blobs = Forgetful(shop.blobs.folder)
    with pytest.raises(FalajError) as caught:
        shop.run()
    assert caught.value.code == "pipelines.artifact-lost"
    assert caught.value.problems[0].place.file == "pipeline.py"


REFERENCES = {
    "no colon": ("pipeline", "bad-reference"),
    "no module": (":main", "bad-reference"),
    "no such module": ("nonesuch:main", "no-such-module"),
    "no such package": ("none.such:main", "no-such-module"),
}


@pytest.mark.parametrize(("reference", "code"), REFERENCES.values(), ids=REFERENCES)
def test_references_that_lead_nowhere(shop, reference, code):
    with pytest.raises(FalajError) as caught:
        shop.run(reference)
    assert caught.value.code == f"pipelines.{code}" and caught.value.problems[0].fix


@pytest.mark.parametrize("value", ["float('nan')", "float('inf')", "'high'", "None"])
def test_metrics_that_are_no_numbers(shop, value):
    shop.write(
        pipeline="import falaj\nfrom falaj import pipeline, step\n@step\ndef a() -> int:\n"
        f"    falaj.log(auc={value})\n    return 1\n@pipeline\ndef main() -> int:\n    return a()\n"
    )
    error = shop.run().error
    assert error is not None and "metric 'auc'" in str(error)
    assert error.problems[0].place.line == 5


LAYERS = 4


def module(number, constant, calls):
    lines = [f"import m{other}" for other in calls]
    body = " + ".join([str(constant), *(f"m{other}.f(x)" for other in calls)])
    return "\n".join([*lines, f"def f(x): return x * 7 + {body}", ""])


@st.composite
def projects(draw):
    """Modules that call modules below them, steps that call modules and each other's answers."""
    modules = [
        (
            draw(st.integers(0, 9)),
            tuple(draw(st.sets(st.integers(0, n - 1), max_size=2))) if n else (),
        )
        for n in range(LAYERS)
    ]
    steps = [(draw(st.integers(0, LAYERS - 1)), draw(st.integers(-1, n - 1))) for n in range(3)]
    edits = draw(
        st.lists(
            st.tuples(st.sampled_from(["module", "step"]), st.integers(0, 2), st.integers(10, 99)),
            min_size=1, max_size=3,
        )
    )  # fmt: skip
    return modules, steps, edits


def files(modules, steps, bodies):
    text = ["from falaj import pipeline, step"]
    for number, (uses, _) in enumerate(steps):
        text += [
            "@step", f"def s{number}(x: int) -> int:", f"    import m{uses}",
            f"    return m{uses}.f(x) + {bodies[number]}",
        ]  # fmt: skip
    text += ["@pipeline", "def main() -> int:", "    a = [None] * 3"]
    for number, (_, source) in enumerate(steps):
        given = "1" if source < 0 else f"a[{source}]"
        text.append(f"    a[{number}] = s{number}({given})")
    text.append("    return a[2]")
    made = {f"m{n}.py": module(n, constant, calls) for n, (constant, calls) in enumerate(modules)}
    return made | {"pipeline.py": "\n".join(text) + "\n"}


@given(projects())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_result_after_edits_is_the_result_from_nothing(tmp_path_factory, project):
    modules, steps, edits = project
    bodies = [0, 0, 0]
    base = tmp_path_factory.mktemp("graph")
    root = base / "project"
    root.mkdir()
    kept = FileStepCache(base / "cache.db")

    def value(cache):
        for name, text in files(modules, steps, bodies).items():
            (root / name).write_text(text)
        blobs = FileBlobs(base / "blobs")
        outcome = run_pipeline(
            "pipeline:main", root=root, parameters={}, seed=1, datasets={}, blobs=blobs,
            cache=cache, codecs=codecs(), lock=Environment(lock="x"),
        )  # fmt: skip
        assert outcome.error is None
        return blobs.get(outcome.result.digest)

    value(kept)
    for number, (what, index, constant) in enumerate(edits):
        if what == "module":
            modules[index] = (constant, modules[index][1])
        else:
            bodies[index] = constant
        clean = FileStepCache(base / f"clean{number}.db")
        assert value(kept) == value(clean)
        clean.close()
    kept.close()


def test_a_metric_is_refused_where_it_is_logged():
    with pytest.raises(FalajError) as caught:
        falaj.log(auc=float("nan"))
    assert caught.value.code == "pipelines.metric-not-finite" and caught.value.problems[0].fix

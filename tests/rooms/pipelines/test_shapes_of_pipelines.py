"""Lists and conditions that become known while the run goes on; options of a step."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from falaj.base.errors import FalajError

TOP = "import falaj\nfrom falaj import pipeline, step\nimport polars as pl\n"

OVER = (
    TOP
    + """
@step
def depths(n: int) -> list[int]:
    return list(range(1, n + 1))

@step
def fit(depth: int, rate: float = 0.5) -> float:
    if depth == 13:
        raise ValueError("unlucky")
    return depth * rate

@step
def twice(x: float) -> float:
    return 2 * x

@step
def best(scores: list[float]) -> float:
    return max(scores, default=-1.0)

@pipeline
def main(n: int = 3, rate: float = 0.5) -> float:
    return best(falaj.map(twice, falaj.map(fit, depths(n), rate=rate)))

@pipeline
def known(n: int = 3) -> float:
    return best(falaj.map(fit, [1, 2, n]))
"""
)


def test_each_element_of_a_list_is_a_step_run_with_its_own_key(shop):
    shop.write(pipeline=OVER)
    first = shop.run()
    assert shop.value(first) == 3.0
    assert [s.step for s in first.steps] == [
        "depths", "fit:1", "fit:2", "fit:3", "twice:1", "twice:2", "twice:3", "best",
    ]  # fmt: skip
    longer = shop.run(parameters={"n": 4})
    assert shop.value(longer) == 4.0
    assert [s.step for s in longer.steps if s.status == "executed"] == [
        "depths", "fit:4", "twice:4", "best",
    ]  # fmt: skip


def test_a_list_that_is_known_while_planning(shop):
    shop.write(pipeline=OVER)
    first = shop.run("pipeline:known")
    assert shop.value(first) == 1.5
    assert [s.step for s in first.steps] == ["fit", "fit[2]", "fit[3]", "best"]
    assert shop.run("pipeline:known", parameters={"n": 7}).executed == 2


def test_elements_share_keys_with_plain_calls(shop):
    shop.write(pipeline=OVER)
    shop.run("pipeline:known")
    after = shop.run()
    assert [s.status.value for s in after.steps if s.step.startswith("fit")] == ["cached"] * 3


def test_an_empty_list_has_no_elements(shop):
    shop.write(pipeline=OVER)
    assert shop.value(shop.run(parameters={"n": 0})) == -1.0


def test_one_element_that_fails_lets_the_others_finish(shop):
    shop.write(pipeline=OVER)
    outcome = shop.run(parameters={"n": 14})
    states = shop.states(outcome)
    assert states["fit:13"] == "failed" and states["fit:14"] == "executed"
    assert states["twice"] == states["best"] == "skipped"
    assert str(outcome.error) == "fit:13: ValueError: unlucky"
    assert "depth = 13" in outcome.error.problems[0].why


def test_explain_says_what_is_not_known_yet(shop):
    shop.write(pipeline=OVER)
    shop.run()
    told = {s.step: s.why for s in shop.run(explain=True, parameters={"n": 4}).steps}
    assert told["depths"] == "reruns: parameter n: 3 -> 4"
    assert told["fit"] == "reruns: an input comes from depths, which reruns"
    told = {s.step: s.why for s in shop.run(explain=True, parameters={"rate": 1.0}).steps}
    assert told["depths"] == "cached" and told["fit:1"] == "reruns: parameter rate: 0.5 -> 1.0"


FRAMES = (
    TOP
    + """
@step
def names() -> list[str]:
    return ["a", "b"]

@step
def table(name: str) -> pl.DataFrame:
    return pl.DataFrame({"name": [name]})

@step
def joined(tables: list[pl.DataFrame]) -> int:
    return pl.concat(tables).height

@pipeline
def main() -> int:
    return joined(falaj.map(table, names()))
"""
)


def test_elements_may_be_frames(shop):
    shop.write(pipeline=FRAMES)
    assert shop.value(shop.run()) == 2
    assert shop.run().executed == 0


WHEN = (
    TOP
    + """
@step
def drifted(x: int) -> bool:
    return x > 5

@step
def fit(x: int) -> int:
    return x * 10

@step
def told(old: int, new: int | None) -> int:
    return old if new is None else new

@step
def counted(new: int = -7) -> int:
    return new

@step
def both(a: int, b: int) -> int:
    return 1000 * a + b

@pipeline
def main(x: int = 1) -> int:
    new = falaj.when(drifted(x), fit, x)
    return both(told(x, new), counted(new))

@pipeline
def plain(x: int = 1) -> int:
    new = falaj.when(x > 5, fit, x)
    return both(told(x, new), counted(new))
"""
)


@pytest.mark.parametrize("name", ["main", "plain"])
def test_a_step_runs_only_where_its_condition_holds(shop, name):
    shop.write(pipeline=WHEN)
    without = shop.run(f"pipeline:{name}")
    assert shop.value(without) == 1000 - 7
    assert shop.value(shop.run(f"pipeline:{name}", parameters={"x": 6})) == 60 * 1000 + 60
    assert shop.run(f"pipeline:{name}").executed == 0


def test_what_was_left_out_is_recorded_as_skipped(shop):
    shop.write(pipeline=WHEN)
    outcome = shop.run()
    (skipped,) = [s for s in outcome.steps if s.status == "skipped"]
    assert (skipped.step, skipped.why) == ("fit", "its condition, drifted, does not hold")
    assert outcome.error is None


def test_nothing_and_a_default_have_the_key_of_that_value(shop):
    """The branch that was not taken leaves no trace in what is computed from the default."""
    shop.write(pipeline=WHEN + "@pipeline\ndef straight() -> int:\n    return counted()\n")
    shop.run()
    assert shop.run("pipeline:straight").executed == 0


def test_outside_a_plan_both_are_plain_python():
    import falaj

    @falaj.step
    def double(x: int) -> int:
        return 2 * x

    assert falaj.map(double, [1, 2]) == [2, 4]
    assert falaj.when(True, double, 3) == 6
    assert falaj.when(False, double, 3) is None


REFUSED = {  # body of the pipeline -> code, words
    "no list": ("falaj.map(fit, number())", "not-a-list", "number gives int"),
    "wrong element": ("falaj.map(fit, words())", "type-mismatch", "depth gets str from words"),
    "no step": ("falaj.map(len, [1])", "not-a-step", "expected a step"),
    "no sequence": ("falaj.map(fit, 7)", "not-a-list", "got int"),
    "no bool": ("falaj.when(number(), fit, 1)", "condition-type", "is int, expected bool"),
    "a truth": ("falaj.when(1, fit, 1)", "condition-type", "got int"),
    "nobody expects nothing": (
        "fit(falaj.when(yes(), number))", "type-mismatch", "expected int",
    ),
    "a loop over it": ("[fit(x) for x in falaj.map(fit, many())]", "value-not-known-yet", "loop"),
    "the result": ("return falaj.map(fit, many())", "result-not-a-step", "several artifacts"),
    "element missing": ("falaj.map(none, many())", "map-parameter", "no first parameter"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "code", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused_with_its_line(shop, body, code, words):
    shop.write(
        pipeline=TOP + "@step\ndef number() -> int:\n    return 1\n"
        "@step\ndef yes() -> bool:\n    return True\n"
        "@step\ndef words() -> list[str]:\n    return []\n"
        "@step\ndef many() -> list[int]:\n    return []\n"
        "@step\ndef none() -> int:\n    return 1\n"
        "@step\ndef fit(depth: int) -> int:\n    return depth\n"
        f"@pipeline\ndef main() -> list[int]:\n    {body}\n"
    )
    with pytest.raises(FalajError) as caught:
        shop.run()
    problem = caught.value.problems[0]
    assert problem.code == f"pipelines.{code}" and words in problem.message
    assert problem.place.file == "pipeline.py" and problem.place.line > 3


def test_an_answer_about_the_world_counts_for_its_span(shop):
    shop.write(
        pipeline=TOP + "@step(fresh='1d')\ndef rates() -> int:\n    return 1\n"
        "@pipeline\ndef main() -> int:\n    return rates()\n"
    )
    at = datetime(2026, 3, 1, 8, tzinfo=UTC)
    assert shop.run(clock=lambda: at).executed == 1
    assert shop.run(clock=lambda: at + timedelta(hours=15)).executed == 0
    late = shop.run(clock=lambda: at + timedelta(hours=17))
    assert late.executed == 1 and late.steps[0].why == "fresh changed"


OPTIONS = {
    "retries=-1": "retries: got -1",
    "retries=True": "retries: got True",
    "retry_on=['OSError']": "retry_on",
    "resources={'cores': 2}": "'cores' is not one of cpu, memory_mb, gpu",
    "resources={'cpu': 'all'}": "cpu is 'all'",
}


@pytest.mark.parametrize(("option", "words"), OPTIONS.items(), ids=OPTIONS)
def test_options_that_could_never_work(shop, option, words):
    shop.write(
        pipeline=TOP + f"@step({option})\ndef a() -> int:\n    return 1\n"
        "@pipeline\ndef main() -> int:\n    return a()\n"
    )
    with pytest.raises(FalajError) as caught:
        shop.run()
    problem = caught.value.problems[0]
    assert problem.code == "pipelines.bad-option" and words in problem.message
    assert (problem.place.file, problem.place.line) == ("pipeline.py", 4)


@pytest.mark.parametrize("option", ["fresh='soon'", "timeout='0s'"])
def test_spans_that_are_none(shop, option):
    shop.write(
        pipeline=TOP + f"@step({option})\ndef a() -> int:\n    return 1\n"
        "@pipeline\ndef main() -> int:\n    return a()\n"
    )
    with pytest.raises(FalajError) as caught:
        shop.run()
    assert caught.value.code == "pipelines.bad-timeout"


def test_only_one_step_and_what_it_needs(shop):
    shop.write(pipeline=OVER)
    outcome = shop.run(only="fit")
    assert [s.step for s in outcome.steps] == ["depths", "fit:1", "fit:2", "fit:3"]
    assert outcome.result is None
    with pytest.raises(FalajError) as caught:
        shop.run(only="bset")
    assert caught.value.code == "pipelines.no-such-step"
    assert caught.value.problems[0].fix == "did you mean 'best'?"


TABLES = {
    "no table": "7",
    "no such column": "{'x': [1.0]}",
    "lengths": "{'x': [1.0], 'y': [1.0, 2.0]}",
    "nothing": "{'x': [], 'y': []}",
    "no number": "{'x': [1.0], 'y': [float('nan')]}",
    "mixed": "{'x': [1.0, 'a'], 'y': [1.0, 2.0]}",
    "too many": "{'x': [1.0] * 2001, 'y': [1.0] * 2001}",
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_tables_that_cannot_be_drawn(table):
    import falaj

    with pytest.raises(FalajError) as caught:
        falaj.plot("roc", eval(table), x="x", y="y")
    assert caught.value.code == "pipelines.plot-table"

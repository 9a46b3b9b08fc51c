"""Several metrics and groupings at once: the old single table stays, failures are adjusted for all."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from sklearn.metrics import recall_score
from statsmodels.stats.multitest import multipletests

from falaj.base.errors import FalajError
from falaj.evaluation.bias import check_bias, check_biases
from falaj.evaluation.replay import replay
from falaj.evaluation.service import measure
from falaj.evaluation.sets import EvaluationSet
from falaj.facts.checks import Verdict
from falaj.facts.project import BiasTable, GatesTable
from falaj.links.files.project import read_project

NOW = datetime(2026, 11, 24, tzinfo=UTC)
ALL = (
    "equal_opportunity_ratio", "selection_ratio", "equal_opportunity_difference",
    "selection_difference", "false_positive_rate_difference",
)  # fmt: skip
# y and yhat 00, 01, 10, 11 of the race-blind logit on loanapp, by race and sex
CUBES = {
    ("black", "women"): (14, 6, 7, 24),
    ("black", "men"): (20, 24, 22, 80),
    ("Hispanic", "women"): (4, 1, 2, 15),
    ("Hispanic", "men"): (10, 11, 7, 61),
    ("white", "women"): (6, 19, 15, 256),
    ("white", "men"): (42, 87, 95, 1161),
}


def loans() -> tuple[EvaluationSet, np.ndarray]:
    race, sex, y, score = [], [], [], []
    for (a, b), cells in CUBES.items():
        for count, (truth, said) in zip(cells, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
            race += [a] * count
            sex += [b] * count
            y += [truth] * count
            score += [float(said)] * count
    rows = EvaluationSet(
        x=np.zeros((len(y), 1), np.float32), y=np.array(y, np.int8), columns=("x",),
        digest="sha256:a", groups={"race": np.array(race), "sex": np.array(sex)},
    )  # fmt: skip
    return rows, np.array(score)


def by_name(results):
    return {result.check: result for result in results}


def test_every_metric_agrees_with_scikit_learn():
    """Points as fairlearn 0.15.0 gave them: parity ratio .7508, equal opportunity .1460."""
    rows, score = loans()
    table = BiasTable(group="race", metrics=ALL, reference="white", at_least=0.1, at_most=0.9)
    found = by_name(check_bias(rows, score, 0.5, table))
    tpr, fpr, chosen = {}, {}, {}
    for race in ("white", "black"):
        here = rows.groups["race"] == race
        tpr[race] = recall_score(rows.y[here], score[here])
        fpr[race] = 1 - recall_score(rows.y[here], score[here], pos_label=0)
        chosen[race] = score[here].mean()
    values = {
        "": tpr["black"] / tpr["white"],
        " selection_ratio": chosen["black"] / chosen["white"],
        " equal_opportunity_difference": tpr["black"] - tpr["white"],
        " selection_difference": chosen["black"] - chosen["white"],
        " false_positive_rate_difference": fpr["black"] - fpr["white"],
    }
    for name, value in values.items():
        assert found[f"bias.race=black{name}"].value == pytest.approx(value)
    assert values[" selection_ratio"] == pytest.approx(0.7508, abs=6e-5)
    assert values[" equal_opportunity_difference"] == pytest.approx(-0.1460, abs=6e-5)
    # The first metric of a grouping keeps the short name.
    assert found["bias.race=black"].metric == "equal_opportunity_ratio"


def test_two_columns_are_crossed_as_the_frozen_oracle_says():
    rows, score = loans()
    table = BiasTable(group="race,sex", metric="selection_ratio", reference="white|men")
    found = by_name(check_bias(rows, score, 0.5, table))
    women = found["bias.race,sex=black|women"]
    assert (women.value, women.low, women.high) == pytest.approx((0.6528, 0.5249, 0.7712), abs=6e-5)
    assert women.verdict is Verdict.INCONCLUSIVE
    assert "0.0180, over all groups 0.0901" in women.reason
    assert "too few" in found["bias.race,sex=Hispanic|women"].reason


def test_what_fails_alone_may_be_in_doubt_among_many():
    rows, score = loans()
    one = BiasTable(group="race", metric="selection_ratio", reference="white", at_least=0.825)
    alone = by_name(check_biases(rows, score, 0.5, (one,)))["bias.race=black"]
    many = (one, BiasTable(group="sex", metrics=ALL), BiasTable(group="race,sex", metrics=ALL))
    among = by_name(check_biases(rows, score, 0.5, many))["bias.race=black"]
    assert alone.verdict is Verdict.FAIL
    assert among.verdict is Verdict.INCONCLUSIVE
    assert (alone.value, alone.low, alone.high) == (among.value, among.low, among.high)


def test_the_adjustment_is_holms_over_all():
    rows, score = loans()
    tables = (
        BiasTable(group="race", metrics=ALL[:2], at_least=0.95, reference="white"),
        BiasTable(group="sex", metric="selection_ratio", at_least=0.999),
    )
    found = check_biases(rows, score, 0.5, tables)
    raw, adjusted = [], []
    for one in found:
        if "p that" in one.reason:
            words = one.reason.partition("limit holds ")[2]
            raw.append(float(words.split(",")[0]))
            adjusted.append(float(words.rpartition(" ")[2]))
    passed = len(found) - len(raw)
    assert len(raw) >= 3
    expected = multipletests(raw + [1.0] * passed, method="holm")[1][: len(raw)]
    assert adjusted == pytest.approx(expected.tolist(), abs=6e-4)


def test_an_input_of_the_model_is_not_held_apart():
    rows, score = loans()
    (found,) = check_bias(rows, score, 0.5, BiasTable(group="race,x"))
    assert found.verdict is Verdict.ERROR
    assert "is an input of the model" in found.reason


def test_groups_of_many_classes_are_refused():
    rows = EvaluationSet(
        x=np.zeros((60, 1), np.float32), y=np.arange(60) % 3, columns=("x",), digest="d",
        groups={"g": np.array(["a"] * 60)}, task="multiclass-classification",
        classes=("a", "b", "c"),
    )  # fmt: skip
    (found,) = check_bias(rows, np.zeros((60, 3)), 0.5, BiasTable(group="g"))
    assert found.verdict is Verdict.ERROR


# --- the file ---

SMALLEST = """
[project]
name = "loans"
region = "ae"
[model]
name = "loan"
pipeline = "pipeline:main"
task = "binary-classification"
"""
OLD = '[gates.bias]\ngroup = "race"\n'
NEW = '[[gates.bias]]\ngroup = "race"\n[[gates.bias]]\ngroup = "race,sex"\nmetrics = ["selection_ratio"]\n'


@pytest.mark.parametrize(("text", "groups"), [(OLD, ["race"]), (NEW, ["race", "race,sex"])])
def test_one_table_or_a_list_of_them(tmp_path, text, groups):
    (tmp_path / "falaj.toml").write_text(SMALLEST + text)
    assert [one.group for one in read_project(tmp_path).gates.biases] == groups


def test_a_mistake_in_the_second_table_has_its_place(tmp_path):
    (tmp_path / "falaj.toml").write_text(SMALLEST + NEW + "at_least = 80\nmetrcs = []\n")
    with pytest.raises(FalajError) as caught:
        read_project(tmp_path)
    told = {(p.code, p.place.line) for p in caught.value.problems}
    assert told == {("config.out-of-range", 14), ("config.unknown-key", 15)}


# --- other rules over what is stored ---

THERE = (
    BiasTable(group="race", metrics=ALL[:3], reference="white"),
    BiasTable(group="race,sex", metric="selection_ratio", reference="white|men"),
)
LATER = {
    "the same": THERE,
    "the first only": THERE[:1],
    "one metric of the first": BiasTable(group="race", metric="selection_ratio", reference="white"),
    "stricter": (BiasTable(group="race", metrics=ALL[:3], reference="white", at_least=0.95),),
}


def report(tables):
    rows, score = loans()
    return measure(
        candidate=rows, score=lambda _: score, threshold=0.5, champion=None, champion_release="",
        gates=GatesTable(bias=tables), required=("bias",), contracts=(), security=(),
        latencies_us=None, reuse=0, subject="t", policy="p", now=NOW, on_check=lambda _: None,
    )  # fmt: skip


@pytest.mark.parametrize("tables", LATER.values(), ids=LATER)
def test_replaying_is_measuring_again(tables):
    again = replay(report(THERE), GatesTable(bias=tables), ("bias",), policy="q")
    assert by_name(again.results) == by_name(report(tables).results)


def test_a_metric_that_was_not_measured_is_inconclusive():
    other = GatesTable(bias=BiasTable(group="race", metrics=ALL, reference="white"))
    again = replay(report(THERE), other, ("bias",), policy="q")
    missing = [one for one in again.results if "does not hold it" in one.reason]
    assert [one.check for one in missing] == ["bias.race", "bias.race"]

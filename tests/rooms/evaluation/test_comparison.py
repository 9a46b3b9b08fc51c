"""Two models on the same rows: oracle numbers, honest words, pages that hold hostile text."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest
from sklearn import metrics

from falaj.base.errors import FalajError
from falaj.evaluation.comparison import compare, sketch, sliced
from falaj.evaluation.explanation import explain
from falaj.evaluation.pages import comparison_page, explanation_page
from falaj.facts.explanations import Served

DIGEST = "sha256:" + "3" * 64
HOSTILE = '<img src=x onerror="alert(1)">\u202e&</script>'


def made(n=3000, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.4).astype(np.float64)
    good = 1 / (1 + np.exp(-(rng.normal(size=n) + 1.5 * y - 0.75)))
    other = np.clip(good + rng.normal(scale=noise, size=n), 0, 1)
    group = np.where(np.arange(n) % 3 == 0, "a", "b").astype("<U60")
    group[:10] = "few"
    return y, good, other, group


def told(y, candidate, champion, group=None, names=("mine", "live")):
    groups = {} if group is None else {"who": group}
    return compare(
        y, candidate, champion, names=names, thresholds=(0.5, 0.5), groups=groups, evaluation=DIGEST
    )


def by_name(pairs):
    return {one.name: one for one in pairs}


def test_the_numbers_are_those_of_scikit_learn():
    y, good, other, _ = made()
    found = by_name(told(y, good, other).metrics)
    for name, oracle in (
        ("roc_auc", metrics.roc_auc_score),
        ("accuracy", lambda t, s: metrics.accuracy_score(t, s > 0.5)),
        ("brier_score", metrics.brier_score_loss),
    ):
        assert found[name].candidate == pytest.approx(oracle(y, good))
        assert found[name].champion == pytest.approx(oracle(y, other))
        assert found[name].difference == pytest.approx(oracle(y, good) - oracle(y, other))
        assert found[name].low < found[name].difference < found[name].high


def test_the_curve_is_that_of_scikit_learn():
    y, good, _, _ = made(120)
    rounded = np.round(good, 1)  # ties
    x, up, _ = metrics.roc_curve(y, rounded, drop_intermediate=False)
    found = sketch(y, rounded, "mine")
    assert np.allclose(found.roc_x, x, atol=1e-5)
    assert np.allclose(found.roc_y, up, atol=1e-5)
    assert sum(found.shares) == pytest.approx(1, abs=1e-4)


WORDS = {  # candidate, champion -> the word for each metric
    "a better one": (1, 2, "better"),
    "a worse one": (2, 1, "worse"),
    "the same one": (1, 1, "no difference yet"),
}


@pytest.mark.parametrize(("mine", "live", "word"), WORDS.values(), ids=WORDS)
def test_words_say_which_way_the_bounds_lie(mine, live, word):
    drawn = made()
    assert {one.word for one in told(drawn[0], drawn[mine], drawn[live]).metrics} == {word}


def test_a_harmed_slice_is_named_and_a_small_one_is_not_judged():
    y, good, _, group = made()
    harmed = good.copy()
    harmed[group == "a"] = 1 - harmed[group == "a"]
    found = told(y, harmed, good, group)
    words = {one.name: one.word for one in found.slices}
    assert words == {"who=a": "worse", "who=b": "no difference yet", "who=few": "no data"}
    assert "worse where who=a" in comparison_page(found)


def test_equal_models_rarely_differ_in_any_of_twenty_slices():
    """Holm both ways: at most 10 % of trials, and it is conservative on discrete counts."""
    wrong = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        y = (rng.random(2000) < 0.5).astype(np.float64)
        one, two = (np.clip(y * 0.3 + rng.random(2000) * 0.7, 0, 1) for _ in range(2))
        group = rng.integers(0, 20, 2000).astype(str)
        right = [(s > 0.5) == (y == 1) for s in (one, two)]
        found = sliced({"who": group}, *right)
        wrong += any(p.word in ("better", "worse") for p in found)
    assert wrong / 100 <= 0.10 + 3 * np.sqrt(0.1 * 0.9 / 100)


Y, GOOD, OTHER, _ = made(400)
NAN = np.r_[np.nan, GOOD[1:]]
REFUSED = {
    "no rows": ((Y[:0], GOOD[:0], OTHER[:0]), "compare.rows"),
    "one class": ((np.ones(400), GOOD, OTHER), "compare.rows"),
    "truth of numbers": ((Y * 3, GOOD, OTHER), "compare.rows"),
    "a candidate without numbers": ((Y, NAN, OTHER), "compare.answers"),
    "a champion without numbers": ((Y, GOOD, NAN), "compare.answers"),
    "fewer scores than rows": ((Y, GOOD[1:], OTHER), "compare.answers"),
}


@pytest.mark.parametrize(("given", "code"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_a_named_error(given, code):
    with pytest.raises(FalajError) as caught:
        told(*given)
    assert caught.value.code == code


ODD = {
    "constant scores": (np.full(400, 0.5), OTHER),
    "two rows of each": None,
    "scores that are no probabilities": (GOOD * 20 - 3, OTHER),
}


@pytest.mark.parametrize("given", ODD.values(), ids=ODD)
def test_odd_input_has_a_page_without_nan(given):
    y, one, two = (Y, *given) if given else (np.array([0, 1, 0, 1.0]), GOOD[:4], OTHER[:4])
    page = comparison_page(told(y, one, two))
    assert "nan" not in page.lower()
    assert "inf" not in page.lower().replace("information", "")


class Reader(HTMLParser):
    """Tags and their attributes; what a browser would load or run."""

    def __init__(self):
        super().__init__()
        self.tags, self.loads, self.open = set(), [], []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "href", "style") or name.startswith("on"):
                self.loads.append((tag, name, value))


def read(page):
    reader = Reader()
    reader.feed(page)
    return reader


@pytest.mark.parametrize("kind", ["comparison", "explanation"])
def test_pages_stand_alone_and_hold_hostile_names(kind):
    y, good, other, group = made(500)
    group[group == "a"] = HOSTILE
    if kind == "comparison":
        found = told(y, good, other, group, names=(HOSTILE, HOSTILE))
        from msgspec.structs import replace

        page = comparison_page(replace(found, served=(Served(name=HOSTILE, p99_ms=2.0, n=9),)))
    else:
        x = np.c_[good, other].astype(np.float32)
        page = explanation_page(
            explain(
                x, y, (HOSTILE, "b"), lambda rows: rows[:, 0].astype(float), metric="roc_auc",
                subject=DIGEST, evaluation=DIGEST,
            )
        )  # fmt: skip
    found = read(page)
    assert found.loads == []
    assert found.tags & {"script", "img", "link", "iframe", "object", "form"} == set()
    assert "<img" not in page
    assert len(page) < 400_000
    assert "default-src 'none'" in page
    assert "prefers-color-scheme:dark" in page
    assert "@media print" in page

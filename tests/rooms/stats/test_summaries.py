from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from falaj.stats import summaries
from falaj.stats.summaries import (
    Axes,
    BadSummary,
    Cats,
    Counts2x2,
    Cube,
    Edges,
    Hist,
    Moments,
    Pairs,
    Report,
    Stratum,
    Tally,
    Unmergeable,
    Vocabulary,
)

laws = settings(derandomize=True, deadline=None, max_examples=60)
DIGEST = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32
small = st.integers(0, 10**6)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
strata = st.builds(Stratum, t=st.integers(0, 10**8), zone=text, step=st.integers(0, 9))


@st.composite
def tables(draw, metric=text, stratum=strata):
    n_c, n_s = draw(small), draw(small)
    return Counts2x2(
        metric=draw(metric),
        stratum=draw(stratum),
        n_c=n_c,
        x_c=draw(st.integers(0, n_c)),
        n_s=n_s,
        x_s=draw(st.integers(0, n_s)),
    )


@st.composite
def moments(draw):
    values = draw(st.lists(st.floats(-1e9, 1e9), max_size=20))
    return Moments.of(values, column="fare", scale=0.01)


def counted(size, most=10**6):
    return st.lists(st.integers(0, most), min_size=size, max_size=size).map(tuple)


pairs = st.builds(
    Pairs,
    metric=st.just("wrong"),
    stratum=st.just(Stratum(5, "a", 1)),
    right_right=small,
    right_wrong=small,
    wrong_right=small,
    wrong_wrong=small,
)
hists = st.builds(Hist, edges=st.just(DIGEST), counts=counted(4), nan=small, null=small)
cats = st.builds(Cats, vocabulary=st.just(DIGEST), counts=counted(3), other=small, null=small)
cubes = st.builds(Cube, axes=st.just(DIGEST), counts=counted(8))
same_tables = tables(metric=st.just("errors"), stratum=st.just(Stratum(5, "a", 1)))
FAMILIES = [same_tables, pairs, hists, cats, cubes, moments()]
family = st.sampled_from(FAMILIES)
anything = st.one_of(tables(), *FAMILIES[1:])


@st.composite
def edges(draw):
    cuts = draw(st.lists(st.floats(allow_nan=False, allow_infinity=False), unique=True, max_size=9))
    cuts = tuple(sorted({one + 0.0 for one in cuts}))
    return Edges(
        column=draw(text),
        dtype="float64",
        edges=cuts,
        reference=draw(counted(len(cuts) + 1)),
        nan=draw(small),
        null=draw(small),
    )


@st.composite
def vocabularies(draw):
    words = tuple(draw(st.lists(text, unique=True, max_size=6)))
    return Vocabulary(column="city", words=words, reference=draw(counted(len(words))))


axes = st.builds(
    Axes,
    names=st.just(("group", "y")),
    values=st.tuples(
        st.lists(text, unique=True, min_size=1, max_size=4).map(tuple), st.just(("0", "1"))
    ),
)


# --- merge laws ---


@laws
@given(family.flatmap(lambda one: st.tuples(one, one, one)))
def test_merging_commutes_associates_and_has_a_neutral_element(three):
    a, b, c = three
    merge = summaries.merge
    assert merge(a, b) == merge(b, a)
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert merge(a, summaries.empty(a)) == a
    assert summaries.identity(summaries.empty(a)) == summaries.identity(a)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (Hist(edges=DIGEST, counts=(1, 2)), Hist(edges=OTHER, counts=(1, 2))),
        (Hist(edges=DIGEST, counts=(1, 2)), Hist(edges=DIGEST, counts=(1, 2, 3))),
        (Cats(vocabulary=DIGEST, counts=(1,)), Cats(vocabulary=OTHER, counts=(1,))),
        (Cube(axes=DIGEST, counts=(1,)), Hist(edges=DIGEST, counts=(1,))),
        (
            Counts2x2(metric="errors", stratum=Stratum(1, "a", 0)),
            Counts2x2(metric="errors", stratum=Stratum(1, "a", 1)),
        ),
        (Moments(column="fare", scale=0.01), Moments(column="fare", scale=0.1)),
    ],
)
def test_different_identity_is_unmergeable(one, two):
    with pytest.raises(Unmergeable) as caught:
        summaries.merge(one, two)
    assert caught.value.code == "stats.unmergeable"
    assert caught.value.problems[0].fix


def test_a_sum_beyond_the_largest_integer_is_refused_not_wrapped():
    big = Hist(edges=DIGEST, counts=(2**53 - 1,))
    with pytest.raises(BadSummary):
        summaries.merge(big, Hist(edges=DIGEST, counts=(1,)))


# --- several sources ---


@laws
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from([1, 2]), counted(3, most=50)),
        max_size=12,
    ),
    st.randoms(use_true_random=False),
)
def test_duplicates_retries_and_order_change_nothing(growth, random):
    """Each source counts on and sends its cumulative counts; messages repeat and overtake."""
    sums, reports = {}, []
    for source, minute, counts in growth:
        key = (source, minute)
        seen = sums.get(key, ((0, 0, 0), 0))
        grown = tuple(a + b for a, b in zip(seen[0], counts, strict=True))
        sums[key] = (grown, seen[1] + 1)
        summary = Hist(edges=DIGEST, counts=grown)
        reports.append(Report(source, seen[1] + 1, summary, window=str(minute)))
    plain = Tally().add(reports)
    messy = reports + random.choices(reports, k=5) if reports else []
    random.shuffle(messy)
    cut = len(messy) // 2
    again = Tally().add(messy[:cut]).add(messy[cut:])
    assert again.latest == plain.latest
    assert again.totals() == plain.totals()
    for (window, *_), total in plain.totals().items():
        expected = np.sum([v[0] for k, v in sums.items() if str(k[1]) == window], axis=0)
        assert total.counts == tuple(expected.tolist())


@laws
@given(st.lists(st.tuples(small, st.sampled_from(["a", "b", "c"])), min_size=1, max_size=20))
def test_any_split_over_sources_gives_the_same_summary(rows):
    def counts(some):
        return Counts2x2(metric="errors", stratum=Stratum(1, "z", 0), n_s=sum(r[0] for r in some))

    whole = counts(rows)
    parts = [Report(s, 1, counts([r for r in rows if r[1] == s])) for s in "abc"]
    assert list(Tally().add(parts).totals().values()) == [whole]


def test_one_sequence_number_with_two_counts_is_a_broken_source():
    one = Report("replica-1", 7, Hist(edges=DIGEST, counts=(1,)))
    two = one._replace(summary=Hist(edges=DIGEST, counts=(2,)))
    for order in ((one, two), (two, one)):
        with pytest.raises(Unmergeable, match="replica-1"):
            Tally().add(order)


# --- wire ---


@laws
@given(st.one_of(anything, edges(), vocabularies(), axes))
def test_the_wire_keeps_everything_and_is_canonical(thing):
    data = summaries.encode(thing)
    back = summaries.decode(data)
    assert back == thing
    assert type(back) is type(thing)
    assert summaries.encode(back) == data
    assert data == rfc8785.dumps(json.loads(data))


GOLDEN = {
    "hist": (
        Hist(edges=DIGEST, counts=(1, 0, 2), null=12),
        f'{{"counts":[1,0,2],"edges":"{DIGEST}","kind":"hist","nan":0,"null":12,"v":1}}',
    ),
    "counts2x2": (
        Counts2x2(
            metric="errors", stratum=Stratum(28934401, "a", 2), n_c=300, x_c=6, n_s=5700, x_s=28
        ),
        (
            '{"kind":"counts2x2","metric":"errors","n_c":300,"n_s":5700,'
            '"stratum":{"step":2,"t":28934401,"zone":"a"},"v":1,"x_c":6,"x_s":28}'
        ),
    ),
    "pairs": (
        Pairs(metric="wrong", stratum=Stratum(1, "", 0), right_wrong=9, wrong_right=2),
        (
            '{"kind":"pairs","metric":"wrong","rr":0,"rw":9,"stratum":{"step":0,"t":1,"zone":""},'
            '"v":1,"wr":2,"ww":0}'
        ),
    ),
    "moments": (
        Moments.of([1.0, 2.5, -0.75], column="fare", scale=0.5),
        (
            '{"column":"fare","kind":"moments","n":3,"scale":"0x1.0000000000000p-1","sum":"5",'
            '"sumsq":"33","v":1}'
        ),
    ),
    "edges": (
        Edges(column="x", dtype="float64", edges=(-0.5, 3.0), reference=(1, 2, 3), null=4),
        (
            '{"column":"x","dtype":"float64","edges":["-0x1.0000000000000p-1","0x1.8000000000000p+1"],'
            '"kind":"edges","nan":0,"null":4,"reference":[1,2,3],"v":1}'
        ),
    ),
    "cats": (
        Cats(vocabulary=DIGEST, counts=(1,), other=2, null=3),
        f'{{"counts":[1],"kind":"cats","null":3,"other":2,"v":1,"vocabulary":"{DIGEST}"}}',
    ),
    "vocabulary": (
        Vocabulary(column="city", words=("العين",), reference=(7,)),
        (
            '{"column":"city","kind":"vocabulary","null":0,"other":0,"reference":[7],"v":1,'
            '"words":["العين"]}'
        ),
    ),
    "axes": (
        Axes(names=("y",), values=(("0", "1"),)),
        '{"kind":"axes","names":["y"],"v":1,"values":[["0","1"]]}',
    ),
    "cube": (
        Cube(axes=DIGEST, counts=(4, 5)),
        f'{{"axes":"{DIGEST}","counts":[4,5],"kind":"cube","v":1}}',
    ),
}


@pytest.mark.parametrize(("thing", "spelled"), GOLDEN.values(), ids=GOLDEN)
def test_the_spelling_of_version_1_stays(thing, spelled):
    assert summaries.encode(thing).decode() == spelled
    assert summaries.decode(spelled.encode()) == thing


def test_the_digest_is_the_same_on_every_machine():
    assert (
        summaries.digest(GOLDEN["edges"][0])
        == "sha256:11b8027cffa1dc403ffd6c32186b785a0106ed022c92986e27fde514ea24e5b1"
    )


def hist(**changes):
    return {
        "v": 1,
        "kind": "hist",
        "edges": DIGEST,
        "counts": [1, 2],
        "nan": 0,
        "null": 0,
        **changes,
    }


def table(**changes):
    stratum = {"t": 1, "zone": "a", "step": 0}
    plain = {"v": 1, "kind": "counts2x2", "metric": "errors", "stratum": stratum}
    return {**plain, "n_c": 3, "x_c": 1, "n_s": 9, "x_s": 2, **changes}


def cut(*values, **changes):
    plain = {"v": 1, "kind": "edges", "column": "x", "dtype": "float64", "nan": 0, "null": 0}
    return {**plain, "edges": list(values), "reference": [0] * (len(values) + 1), **changes}


def moved(**changes):
    scale = (0.5).hex()
    plain = {
        "v": 1,
        "kind": "moments",
        "column": "x",
        "scale": scale,
        "n": 2,
        "sum": "3",
        "sumsq": "5",
    }
    return {**plain, **changes}


def without(plain, key):
    return {name: value for name, value in plain.items() if name != key}


ONE, TWO = (1.0).hex(), (2.0).hex()
REFUSED = {  # what is wrong -> value, field
    "unknown key": (hist(more=1), "more"),
    "missing key": (without(hist(), "null"), "null"),
    "unknown kind": (hist(kind="sketch"), "kind"),
    "kind of a wrong type": (hist(kind=["hist"]), "kind"),
    "unknown version": (hist(v=2), "v"),
    "version as boolean": (hist(v=True), "v"),
    "boolean count": (hist(nan=True), "nan"),
    "boolean among counts": (hist(counts=[1, True]), "counts"),
    "float count": (hist(counts=[1, 2.0]), "counts"),
    "text count": (hist(null="1"), "null"),
    "negative count": (hist(counts=[1, -1]), "counts"),
    "count beyond 2**53 - 1": (hist(counts=[2**53]), "counts"),
    "number beyond 2**53 - 1": (table(n_c=2**53), "n_c"),
    "counts are no list": (hist(counts=3), "counts"),
    "counts are an object": (hist(counts={"a": 1}), "counts"),
    "counts hold a list": (hist(counts=[[1]]), "counts"),
    "edges are no digest": (hist(edges="sha256:xyz"), "edges"),
    "too many cells": (hist(counts=[0] * 4097), "counts"),
    "too many cube cells": ({"v": 1, "kind": "cube", "axes": DIGEST, "counts": [0] * 65537}, "counts"),
    "more bad ones than requests": (table(x_c=4), "x_c"),
    "more bad ones than requests, stable": (table(x_s=10), "x_s"),
    "stratum without zone": (table(stratum={"t": 1, "step": 0}), "stratum"),
    "stratum with more": (table(stratum={"t": 1, "zone": "", "step": 0, "x": 1}), "stratum"),
    "stratum is no object": (table(stratum=[1, "a", 0]), "stratum"),
    "time as float": (table(stratum={"t": 1.5, "zone": "", "step": 0}), "stratum.t"),
    "zone as number": (table(stratum={"t": 1, "zone": 1, "step": 0}), "stratum.zone"),
    "negative step": (table(stratum={"t": 1, "zone": "", "step": -1}), "stratum.step"),
    "metric too long": (table(metric="m" * 257), "metric"),
    "metric as number": (table(metric=5), "metric"),
    "edges not increasing": (cut(TWO, ONE), "edges"),
    "edges equal": (cut(ONE, ONE), "edges"),
    "edges not finite": (cut("inf"), "edges"),
    "edges as numbers": (cut(1.0), "edges"),
    "edges in another spelling": (cut("0x1p+0"), "edges"),
    "edges out of range": (cut("0x1p+5000"), "edges"),
    "edges are text": (cut(edges="x", reference=[0]), "edges"),
    "reference of a wrong length": (cut(ONE, reference=[1]), "reference"),
    "scale of 0": (moved(scale=(0.0).hex()), "scale"),
    "scale as number": (moved(scale=0.5), "scale"),
    "sums that no rows have": (moved(sumsq="1"), "sumsq"),
    "sum as number": (moved(sum=3), "sum"),
    "sum in another spelling": (moved(sum="03"), "sum"),
    "sum too long": (moved(sum="-1" + "0" * 60), "sum"),
    "a word twice": (
        {"v": 1, "kind": "vocabulary", "column": "x", "words": ["a", "a"], "reference": [1, 1],
         "other": 0, "null": 0},
        "words",
    ),
    "axes without values": ({"v": 1, "kind": "axes", "names": ["a"], "values": [[]]}, "values"),
    "axes of other lengths": ({"v": 1, "kind": "axes", "names": ["a"], "values": []}, "values"),
    "axes without a name": ({"v": 1, "kind": "axes", "names": [], "values": []}, "values"),
    "axes too large": (
        {"v": 1, "kind": "axes", "names": ["a", "b"],
         "values": [[str(i) for i in range(4000)]] * 2},
        "values",
    ),
    "axes are text": ({"v": 1, "kind": "axes", "names": ["a"], "values": "x"}, "values"),
    "too many edges": (cut(*[ONE] * 4097), "edges"),
    "too many words": (
        {"v": 1, "kind": "vocabulary", "column": "x", "words": [str(i) for i in range(4097)],
         "reference": [], "other": 0, "null": 0},
        "words",
    ),
    "words and counts of other lengths": (
        {"v": 1, "kind": "vocabulary", "column": "x", "words": ["a"], "reference": [], "other": 0,
         "null": 0},
        "reference",
    ),
    "sum of counts beyond 2**53 - 1": (hist(counts=[2**53 - 1, 1]), "counts"),
    "axes are flat": ({"v": 1, "kind": "axes", "names": ["a"], "values": ["x"]}, "values"),
    "a list": ([1], ""),
    "null": (None, ""),
}  # fmt: skip


@pytest.mark.parametrize(("plain", "field"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused_with_its_field(plain, field):
    for attempt in (
        lambda: summaries.of_plain(plain),
        lambda: summaries.decode(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()),
    ):
        with pytest.raises(BadSummary) as caught:
            attempt()
        assert caught.value.field == field
        assert caught.value.reason
        assert caught.value.code == "stats.bad-summary"
        assert caught.value.problems[0].fix


BYTES = {
    "nothing": b"",
    "not UTF-8": b"\xff\xfe\x00",
    "a key twice": b'{"counts":[1],"counts":[2],"edges":"' + DIGEST.encode() + b'"}',
    "NaN": b'{"v":NaN}',
    "an endless number": b'{"v":' + b"9" * 5000 + b"}",
    "deep nesting": b"[" * 100_000,
    "UTF-16": json.dumps(hist()).encode("utf-16"),
    "white space": json.dumps(hist(), sort_keys=True).encode(),
    "other order": json.dumps(hist(), separators=(",", ":")).encode(),
    "lone surrogate": b'{"v":1,"kind":"\\ud800"}',
    "surrogate in a metric": json.dumps(table(metric="\ud800")).encode(),
}


@pytest.mark.parametrize("data", BYTES.values(), ids=BYTES)
def test_other_bytes_are_refused(data):
    with pytest.raises(BadSummary):
        summaries.decode(data)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.binary(max_size=60), anything, st.integers(0, 10**6), st.integers(0, 255))
def test_fuzzed_bytes_never_raise_anything_else(noise, thing, place, byte):
    data = bytearray(summaries.encode(thing))
    data[place % len(data)] = byte
    for attempt in (noise, bytes(data), bytes(data[: place % len(data)])):
        try:
            summaries.decode(attempt)
        except BadSummary as error:
            assert error.reason


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(anything, st.data())
def test_a_wrong_value_in_any_field_is_refused_or_read(thing, data):
    plain = summaries.to_plain(thing)
    plain[data.draw(st.sampled_from(sorted(plain)))] = data.draw(json_values)
    try:
        back = summaries.of_plain(plain)
    except BadSummary:
        return
    assert summaries.decode(summaries.encode(back)) == back


# --- counting ---


@laws
@given(
    st.lists(
        st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 1.0, 2.0, math.inf, math.nan, 5e-324])
        | st.floats(),
        max_size=700,
    ),
    st.lists(
        st.sampled_from([-1.0, 0.0, 0.5, 1.0]) | st.floats(-1e9, 1e9), unique=True, max_size=8
    ),
)
def test_bins_are_closed_on_the_right(values, cuts):
    cuts = sorted({one + 0.0 for one in cuts})
    counts, nan = summaries.bin_counts(values, cuts)
    bounds = [-math.inf, *cuts, math.inf]
    for (low, high), count in zip(itertools.pairwise(bounds), counts, strict=True):
        first = low == -math.inf
        assert count == sum(1 for x in values if (low < x or first) and x <= high)
    assert nan == sum(map(math.isnan, values))
    assert counts.sum() + nan == len(values)


def test_both_ways_of_counting_agree_on_edges_and_infinities():
    rng = np.random.default_rng(0)
    cuts = np.unique(np.round(rng.normal(size=249), 2))
    x = np.concatenate([cuts, np.nextafter(cuts, np.inf), [np.inf, -np.inf], rng.normal(size=5000)])
    many, _ = summaries.bin_counts(x, cuts)
    few = sum(summaries.bin_counts(part, cuts)[0] for part in np.array_split(x, 40))
    assert many.tolist() == few.tolist()


def test_artifacts_count_windows():
    cut_at = Edges(column="x", dtype="float64", edges=(0.0, 1.0), reference=(5, 5, 5), null=1)
    assert cut_at.count([0.0, 0.5, 1.0, 2.0, math.nan], null=3) == Hist(
        edges=summaries.digest(cut_at), counts=(1, 2, 1), nan=1, null=3
    )
    assert cut_at.hist().n == 16
    words = Vocabulary(column="c", words=("a", "b"), reference=(3, 2), other=1)
    assert words.count(["a", "z", None, "a"]) == Cats(
        vocabulary=summaries.digest(words), counts=(2, 0), other=1, null=1
    )
    assert words.cats().n == 6


@laws
@given(st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=40), st.integers(1, 39))
def test_moments_do_not_depend_on_order_or_split(values, cut_at):
    whole = Moments.of(values, column="x", scale=0.001)
    parts = [
        Moments.of(part, column="x", scale=0.001) for part in (values[:cut_at], values[cut_at:])
    ]
    assert summaries.merge(*parts) == whole
    assert Moments.of(values[::-1], column="x", scale=0.001) == whole
    assert whole.mean == pytest.approx(np.mean(values), abs=1e-3)
    assert whole.variance == pytest.approx(np.var(values, ddof=1), abs=1e-2 * (1 + np.ptp(values)))


def test_moments_round_half_to_even_and_refuse_infinities():
    assert Moments.of([0.5, 1.5, 2.5], column="x", scale=1.0).total == 4
    with pytest.raises(BadSummary):
        Moments.of([math.inf], column="x", scale=1.0)
    assert math.isnan(Moments(column="x", scale=1.0).mean)


# --- what may leave a region ---


@laws
@given(edges(), st.data())
def test_no_small_cell_leaves(frozen, data):
    window = Hist(
        edges=summaries.digest(frozen),
        counts=data.draw(counted(len(frozen.reference), most=30)),
        nan=data.draw(st.integers(0, 12)),
        null=data.draw(st.integers(0, 12)),
    )
    out, coarse = summaries.coarsen(window, frozen)
    assert out.edges == summaries.digest(coarse)
    cells = [*out.counts, *coarse.reference, out.null, coarse.null]
    assert all(cell == 0 or cell >= 10 for cell in cells)
    assert set(coarse.edges) <= set(frozen.edges)
    if sum(window.counts) >= 10 and sum(frozen.reference) >= 10:
        assert sum(out.counts) == sum(window.counts)


def test_rare_words_leave_as_other():
    words = Vocabulary(column="c", words=("a", "b", "c"), reference=(100, 50, 4), other=9)
    seen = Cats(vocabulary=summaries.digest(words), counts=(40, 3, 20), other=1, null=2)
    out, coarse = summaries.coarsen_words(seen, words)
    assert coarse.words == ("a",)
    assert (out.counts, out.other, out.null) == ((40,), 24, 0)
    assert coarse.other == 63


def test_foreign_edges_are_not_coarsened():
    frozen = Edges(column="x", dtype="float64", edges=(0.0,), reference=(20, 20))
    with pytest.raises(Unmergeable):
        summaries.coarsen(Hist(edges=DIGEST, counts=(20, 20)), frozen)


def test_a_foreign_vocabulary_is_not_coarsened():
    words = Vocabulary(column="c", words=("a",), reference=(20,))
    with pytest.raises(Unmergeable):
        summaries.coarsen_words(Cats(vocabulary=DIGEST, counts=(20,)), words)


WRONG_BY_HAND = {
    "a stratum as a plain tuple": lambda: Counts2x2(metric="m", stratum=(1, "a", 0)),
    "a sum as float": lambda: Moments(column="x", scale=1.0, n=1, total=1.0, squares=1),
    "a sum of 61 digits": lambda: Moments(column="x", scale=1.0, n=1, total=0, squares=10**60),
    "cells of another shape": lambda: Axes(names=("a",), values=(("x", "y"),)).cube([1, 2, 3]),
}


@pytest.mark.parametrize("wrong", WRONG_BY_HAND.values(), ids=WRONG_BY_HAND)
def test_what_is_built_by_hand_is_checked_too(wrong):
    with pytest.raises(BadSummary):
        wrong()


def test_small_numbers_of_summaries():
    assert Axes(names=("a",), values=(("x", "y"),)).cube([1, 2]).n == 3
    assert math.isnan(Moments(column="x", scale=1.0).variance)

"""A shadow's answers, the champion's and the truth become pairs; scores of both arms become counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from falaj.learning.join import Labelled
from falaj.learning.pairs import Pairing, ScoreCounts

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
MS = int(AT.timestamp() * 1000)


def champion(request, *, wrong, value=1, after_ms=0):
    return Labelled(
        request=request, row=0, release="old", assigned="stable", rollout="R", step=0, stratum=7,
        arrival_ms=MS + after_ms, event_time=AT, score=0.5, predicted=1, value=float(value), wrong=wrong,
    )  # fmt: skip


def shadow(request, score, *, after_ms=0, outcome="ok"):
    return {
        "request": request, "row": 0, "release": "new", "score": score, "outcome": outcome,
        "at": AT + timedelta(milliseconds=after_ms),
    }  # fmt: skip


def cells(pairing, limit=0.5):
    found = pairing.strata({"new": limit}, 1000, zone="ae")
    return {row.stratum - MS // 1000: (row.n_c, row.x_c, row.x_s, row.n_s) for row in found}


def test_all_four_kinds_of_pairs():
    pairing = Pairing()
    for name, wrong, score in (
        ("both right", False, 0.9), ("challenger wrong", False, 0.1),
        ("champion wrong", True, 0.9), ("both wrong", True, 0.1),
    ):  # fmt: skip
        pairing.shadow(shadow(name, score))
        pairing.labelled([champion(name, wrong=wrong)])
    assert cells(pairing) == {0: (4, 1, 1, 1)}


def test_a_pair_stands_where_the_last_of_the_three_arrived_whichever_that_is():
    pairing = Pairing()
    pairing.labelled([champion("a", wrong=False)])
    assert cells(pairing) == {}
    pairing.shadow(shadow("a", 0.9, after_ms=2500))
    pairing.shadow(shadow("b", 0.9))
    pairing.labelled([champion("b", wrong=False, after_ms=5100)])
    assert cells(pairing) == {2: (1, 0, 0, 0), 5: (1, 0, 0, 0)}
    assert cells(pairing) == {2: (1, 0, 0, 0), 5: (1, 0, 0, 0)}, "each pair once"


def test_the_challengers_own_threshold_decides():
    pairing = Pairing()
    pairing.shadow(shadow("a", 0.4))
    pairing.labelled([champion("a", wrong=False)])
    assert cells(pairing, limit=0.3) == {0: (1, 0, 0, 0)}


def test_a_shadow_that_fails_on_a_row_is_wrong_on_it():
    pairing = Pairing()
    for value in (0, 1):
        pairing.shadow(shadow(f"a{value}", None, outcome="serving.engine"))
        pairing.labelled([champion(f"a{value}", wrong=False, value=value)])
    assert cells(pairing) == {0: (2, 2, 0, 0)}, "or it would be judged on the easy rows alone"


def test_scores_above_their_thresholds_by_arm_stratum_and_step():
    counts = ScoreCounts((0.2, 0.8))
    for assigned, score, stratum in (
        ("canary", 0.9, 7), ("canary", 0.5, 7), ("stable", 0.1, 7), ("stable", 0.9, 8),
        ("stable", 0.9, -1), ("stable", None, 7),
    ):  # fmt: skip
        counts.row({"assigned": assigned, "score": score, "stratum": stratum, "step": 1})
    found = {
        (row.stratum, row.metric): (row.n_c, row.x_c, row.n_s, row.x_s)
        for row in counts.strata(zone="ae")
    }
    assert found == {
        (7, "score.0"): (2, 2, 1, 0), (7, "score.1"): (2, 1, 1, 0),
        (8, "score.0"): (0, 0, 1, 1), (8, "score.1"): (0, 0, 1, 1),
    }  # fmt: skip

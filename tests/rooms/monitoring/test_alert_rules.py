from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from falaj.facts.monitoring import Alert, AlertState, FeatureDrift, Window
from falaj.monitoring import guard, rules

AT = datetime(2026, 3, 1, tzinfo=UTC)


def feature(name, psi=0.3, violated=True):
    return FeatureDrift(
        feature=name, psi=psi, psi_null=0.02, psi_limit=0.1, p=1e-9, ks=0.21, violated=violated
    )


def window(id, *features, monitor="drift", **more):
    said = {
        "id": id,
        "monitor": monitor,
        "environment": "production",
        "model": "delay",
        "release": "sha256:a",
        "opens": AT,
        "closes": AT + timedelta(days=1),
        "rows": 700,
        "features": features,
        "at": AT,
    }
    return Window(**(said | more))


def alert(**more):
    said = {
        "id": "old",
        "kind": "drift",
        "environment": "production",
        "model": "delay",
        "release": "sha256:a",
        "state": AlertState.OPEN,
        "title": "drift",
        "reasons": (),
        "at": AT,
    }
    return Alert(**(said | more))


CROSSED = guard.step(guard.start(0.2), 300, 500)
CALM = guard.step(guard.start(0.2), 50, 500)
DRIFTED = (window("w1", feature("wind")),)
WRONG = (window("w1", monitor="labels", labelled=500, wrong=300),)

OPENS = {
    "a violated window": (DRIFTED, (), {}, True),
    "no window": ((), (), {}, False),
    "no violated column": ((window("w1", feature("wind", violated=False)),), (), {}, False),
    "one is open already": (DRIFTED, (alert(),), {}, False),
    "the open one was closed": (DRIFTED, (alert(state=AlertState.CLOSED),), {}, True),
    "the open one is of another release": (DRIFTED, (alert(release="sha256:b"),), {}, True),
    "the open one is of another environment": (DRIFTED, (alert(environment="staging"),), {}, True),
    "the open one is of another model": (DRIFTED, (alert(model="fraud"),), {}, True),
    "the open one is of another monitor": (DRIFTED, (alert(kind="labels"),), {}, True),
    "the open one is a rollback": (DRIFTED, (alert(kind="rollback"),), {}, True),
    "wrong answers above the limit": (WRONG, (), {"guard": CROSSED}, True),
    "wrong answers below the limit": (WRONG, (), {"guard": CALM}, False),
    "too few labelled": (WRONG, (), {"guard": CROSSED, "min_rows": 501}, False),
    "enough labelled": (WRONG, (), {"guard": CROSSED, "min_rows": 500}, True),
    "labels without a guard": (WRONG, (), {}, False),
    "a labels alert is open": (WRONG, (alert(kind="labels"),), {"guard": CROSSED}, False),
}


@pytest.mark.parametrize(("windows", "known", "more", "opens"), OPENS.values(), ids=OPENS)
def test_when_an_alert_opens(windows, known, more, opens):
    found = rules.alert_for(windows, known, id="new", at=AT, **more)
    assert (found is not None) is opens
    if found is not None:
        assert (found.id, found.state, found.at) == ("new", AlertState.OPEN, AT)
        assert (found.kind, found.release) == (windows[-1].monitor, "sha256:a")


def test_a_drift_alert_names_columns_numbers_and_windows_worst_first():
    told = (
        window("w1", feature("wind", 0.2), feature("temp", 0.1, violated=False)),
        window("w2"),
        window("w3", *(feature(name, psi) for name, psi in (("wind", 0.4), ("a", 0.9), ("b", 0.3), ("c", 0.5)))),
    )  # fmt: skip
    found = rules.alert_for(told, (), id="new", at=AT)
    assert found.title == "drift in a, c, wind and 1 more"
    assert found.windows == ("w1", "w3")
    assert [one.split(":")[0] for one in found.reasons] == ["a", "c", "wind", "b"]
    assert found.reasons[2] == (
        "wind: PSI 0.4000, large from 0.1000; without drift below 0.0200 in 99 %; adjusted p 1e-09; "
        "KS 0.2100; 700 rows from 2026-03-01 00:00 to 2026-03-02 00:00"
    )


def test_a_labels_alert_tells_limit_evidence_and_counts():
    found = rules.alert_for(WRONG, (), id="new", at=AT, guard=CROSSED)
    assert found.title == "more than 0.2 of the answers are wrong"
    assert "300 of 500 labelled answers were wrong (0.6000)" in found.reasons[0]
    assert "e = 10^" in found.reasons[0]
    assert found.windows == ("w1",)


CLOSES = {
    "a new release ends it": (alert(release="sha256:b"), True),
    "the live one keeps it": (alert(), False),
    "closed already": (alert(release="sha256:b", state=AlertState.CLOSED), False),
    "a rollback is a person's to close": (alert(release="sha256:b", kind="rollback"), False),
    "labels of an old release": (alert(release="sha256:b", kind="labels"), True),
}


@pytest.mark.parametrize(("known", "ends"), CLOSES.values(), ids=CLOSES)
def test_which_alerts_a_new_release_ends(known, ends):
    later = AT + timedelta(hours=2)
    found = rules.closes([known], "sha256:a", at=later)
    assert found == ((replace(known, state=AlertState.CLOSED, closed=later),) if ends else ())

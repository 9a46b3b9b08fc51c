"""`falaj gc` never takes what a release, a model, evidence or a young run needs."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falaj.base import ids, process
from falaj.base.errors import Conflict
from falaj.facts.access import Action, Permit, Principal
from falaj.facts.events import Event
from falaj.facts.runs import Artifact, Run, RunStatus, StepRun, StepStatus
from falaj.journeys.sweep import sweep
from falaj.links.files.blobs import FileBlobs
from falaj.links.sql.store import SqlStore
from falaj.links.stepcache.cache import FileStepCache

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PERMIT = Permit(
    principal="owner", person="owner", action=Action.SWEEP, resource="p", policy="", at=NOW
)


class Place:
    """A workspace that a test fills. What the sweep asks of the ground is all real."""

    def __init__(self, folder):
        self.store = SqlStore.open(folder / "store.db")
        self.blobs = FileBlobs(folder / "blobs")
        self.cache = FileStepCache(folder / "cache.db")
        self.name = "p"

    def now(self):
        return NOW

    def event(self, type, actor, subject, data):
        return Event(
            id=ids.new(), at=NOW, project="p", type=type, actor=actor, subject=subject, data=data
        )

    def old(self, text):
        """A blob that was written long ago."""
        digest = self.blobs.put(text.encode())
        hexed = digest.removeprefix("sha256:")
        path = self.blobs.folder / hexed[:2] / hexed[2:]
        then = NOW.timestamp() - 90 * 86400
        os.utime(path, (then, then))
        return digest

    def add(self, *facts):
        with self.store.begin() as unit:
            for fact in facts:
                unit.add(fact)
            unit.append(self.event("made", "a", "s", {}))

    def run(self, *, days, digests, key, status=RunStatus.OK, owner=""):
        at = NOW - timedelta(days=days)
        outputs = tuple(
            Artifact(name=f"o{i}", kind="json", digest=d, files={f"o{i}.json": d}, size=1)
            for i, d in enumerate(digests)
        )
        step = StepRun(
            step="a", key=key, parts={}, status=StepStatus.EXECUTED, why="", outputs=outputs,
            started=at,
        )  # fmt: skip
        made = Run(
            id=ids.new(), project="p", pipeline="m:f", parameters={}, seed=1, principal="me",
            status=status, started=at, steps=(step,), process=owner,
        )  # fmt: skip
        self.add(made)
        body = [{"digest": o.digest, "files": o.files} for o in outputs]
        self.cache.put(key, "a", {"run": made.id, "outputs": body, "parts": {}})
        return made

    def close(self):
        self.store.close()
        self.cache.close()


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path)
    yield made
    made.close()


def test_an_old_run_that_nothing_names_goes_with_its_entry(place):
    old, young = place.old("old"), place.old("young")
    place.run(days=90, digests=[old], key="k1")
    place.run(days=3, digests=[young], key="k2")
    told = sweep(place, PERMIT, days=30, dry_run=True)
    assert (told.blobs, told.bytes, told.entries, told.kept_runs) == (1, 3, 1, 1)
    assert place.blobs.has(old) and place.cache.get("k1")
    assert sweep(place, PERMIT, days=30, dry_run=False).blobs == 1
    assert not place.blobs.has(old) and place.cache.get("k1") is None
    assert place.blobs.has(young) and place.cache.get("k2")
    assert sweep(place, PERMIT, days=30, dry_run=False).blobs == 0


def test_a_fact_keeps_the_run_that_it_names_for_ever(place):
    digest = place.old("model")
    run = place.run(days=900, digests=[digest], key="k1")
    place.add(naming(1, run.id))
    assert sweep(place, PERMIT, days=30, dry_run=False).blobs == 0
    assert place.blobs.has(digest) and place.cache.get("k1")


def naming(number, run):
    """Any fact that holds the run's id."""
    return Principal(name=f"n{number}", person=run, roles=(), created=NOW)


def test_what_a_kept_blob_names_is_kept(place):
    inner = place.old("inner")
    outer = place.old(json.dumps({"file": inner}))
    place.run(days=3, digests=[outer], key="k1")
    assert sweep(place, PERMIT, days=30, dry_run=False).blobs == 0
    assert place.blobs.has(inner)


def test_an_entry_that_a_young_run_hit_stays(place):
    """The run that made it is long gone; the one that used it is not."""
    digest = place.old("shared")
    place.run(days=90, digests=[digest], key="k1")
    place.run(days=1, digests=[digest], key="k1")
    assert sweep(place, PERMIT, days=30, dry_run=False).entries == 0
    assert place.blobs.has(digest)


def test_what_was_just_written_stays(place):
    digest = place.blobs.put(b"a step that runs somewhere has just made it")
    hexed = digest.removeprefix("sha256:")
    os.utime(place.blobs.folder / hexed[:2] / hexed[2:], (NOW.timestamp() - 60,) * 2)
    assert sweep(place, PERMIT, days=0, dry_run=False).blobs == 0


def test_nothing_is_removed_while_a_run_goes_on(place):
    digest = place.old("old")
    place.run(days=90, digests=[digest], key="k1")
    place.run(days=0, digests=[], key="k2", status=RunStatus.RUNNING, owner=process.owner_here())
    with pytest.raises(Conflict) as caught:
        sweep(place, PERMIT, days=30, dry_run=False)
    assert caught.value.code == "gc.run-active" and place.blobs.has(digest)


RUNS = st.lists(
    st.tuples(
        st.sampled_from([0, 10, 29, 31, 400]),
        st.lists(st.integers(0, 9), max_size=4),
        st.integers(0, 4),
        st.booleans(),
    ),
    max_size=8,
)


@settings(max_examples=25, deadline=None)
@given(RUNS, st.sampled_from([0, 30, 365]))
def test_whatever_is_needed_stays_and_nothing_else(tmp_path_factory, runs, days):
    place = Place(tmp_path_factory.mktemp("swept"))
    try:
        digests = [place.old(f"blob {i}") for i in range(10)]
        needed, pinned = set(), []
        for index, (age, uses, key, is_named) in enumerate(runs):
            made = place.run(days=age, digests=[digests[i] for i in uses], key=f"k{index}-{key}")
            if is_named:
                pinned.append(made.id)
            if is_named or age <= days:
                needed |= {digests[i] for i in uses}
        for number, run in enumerate(pinned):
            place.add(naming(number, run))
        before = {d for d, _, _ in place.blobs.kept()}
        told = sweep(place, PERMIT, days=days, dry_run=True)
        assert {d for d, _, _ in place.blobs.kept()} == before
        after = sweep(place, PERMIT, days=days, dry_run=False)
        left = {d for d, _, _ in place.blobs.kept()}
        assert left == needed
        assert (told.blobs, told.entries) == (after.blobs, after.entries)
        for _, entry in place.cache.entries():
            assert all(place.blobs.has(output["digest"]) for output in entry["outputs"])
    finally:
        place.close()

"""The promises of ports/features.py: one value at one time, whoever asks; nothing from later.

They run inside the environment of Feast (`make test PARTS=feast`); what is refused without it, here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from feature_repo import customers, drivers, feast, labels, moment, write_repo

import parts
from falaj import features
from falaj.base.errors import FalajError
from falaj.data.datasets import open_dataset
from falaj.links.feast.reader import FeastTables
from falaj.links.feast.store import FeastStore

HERE = "tests/contracts/test_feature_stores.py"
APART = importlib.util.find_spec("feast") is not None  # in Feast's own environment
SEED = 20261124
FIRST = ["rate", "trips", "score", "city", "active", "seen", "last"]


def apart(test):
    """Collected inside Feast's own environment alone, and found there by this word."""
    return pytest.mark.apart(pytest.mark.parametrize("_", [""], ids=[""])(test))


if not APART:

    def test_feast_keeps_the_promises():
        parts.suite("feast", HERE, "-k", "apart")

    def test_without_feast_the_cure_is_named(tmp_path):
        (tmp_path / "feature_store.yaml").write_text("project: p\n")
        with pytest.raises(FalajError) as caught, FeastStore(tmp_path) as store:
            store.describe("ride")
        assert caught.value.code == "data.extra-missing"
        assert caught.value.problems[0].fix == "pip install 'falaj[feast]'"


# ---- the dataset source: what is refused before Feast is started ----

BAD = {  # source -> what is told
    "feast:repo": "expected feast:",
    "feast:repo#ride": "expected feast:",
    "feast:repo#ride?at=asked": "expected feast:",
    "feast:repo#ride?entities=": "expected feast:",
    "feast:repo#ride?entities=rows&names=short": "expected feast:",
    "feast:repo#ride?entities=rows&since=3": "expected feast:",
    "feast:repo#ride?entities=rows&entities=rows": "expected feast:",
    "feast:repo#ride@latest?entities=rows": "expected feast:",
    "feast:repo#ride?entities=nobody": "asks for the rows of 'nobody'",
    "feast:repo#ride?entities=more": "asks for the rows of 'more'",
    "feast:repo#ride?entities=round": "asks for the rows of 'more'",
}


def opened(source, root, **options):
    reader = FeastTables(root / "snapshots")
    made = {}
    sources = {
        "rows": "rows.parquet",
        "round": "feast:repo#ride?entities=more",
        "more": source,
    }
    for name, where in sources.items():
        if name != "rows" or (root / where).exists():
            made[name] = open_dataset(
                name, where, root=root, tables=[reader], others=made, **options
            )
    return made["more"]


@pytest.mark.parametrize(("source", "words"), BAD.items(), ids=BAD)
def test_sources_that_are_refused_before_anything_is_started(tmp_path, source, words):
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "rows.parquet")
    with pytest.raises(FalajError) as caught:
        opened(source, tmp_path).read()
    assert caught.value.code == "data.bad-source" and words in str(caught.value)
    assert caught.value.problems[0].fix
    assert not (tmp_path / "snapshots").exists()


# ---- with Feast ----


class Ride:
    """A repository, applied and materialized, and questions about it."""

    def __init__(self, folder):
        self.now = moment()
        self.root = write_repo(folder / "repo", SEED, self.now)
        feast(self.root, "apply")
        self.drivers, self.customers = drivers(SEED, self.now), customers(SEED, self.now)
        self.labels = labels(SEED, self.now)
        self.before = FeastStore(self.root)
        self.first = self.before.describe("ride")
        self.history, self.said = self.before.historical("ride", self.labels, at="asked")
        self.materialize()
        self.store = self.before

    def materialize(self):
        begin = (self.now - timedelta(days=100)).isoformat()
        feast(self.root, "materialize", begin, datetime.now(UTC).isoformat())


@pytest.fixture(scope="module")
def ride(tmp_path_factory):
    made = Ride(tmp_path_factory.mktemp("ride"))
    yield made
    made.store.close()


def known(rows, key, entity, at, event, recorded, ttl=None):
    """Brute force: the newest event of the entity by `at` that was recorded by then."""
    found = None
    for row in rows:
        if row[key] != entity or row[event] > at or row[recorded] > at:
            continue
        if ttl is not None and row[event] < at - ttl:
            continue
        order = (row[event], row[recorded])
        if found is None or order >= (found[event], found[recorded]):
            found = row
    return found


def bits(frame):
    """Every value by its bits: floats in hex, so that nothing is nearly equal."""
    return [
        [
            v.hex() if isinstance(v, float) else [x.hex() for x in v] if isinstance(v, list) else v
            for v in row
        ]
        for row in frame.rows()
    ]


@apart
def test_apart_history_is_what_brute_force_finds(ride, _):
    history = ride.history
    assert history.columns == [*ride.labels.columns, *FIRST, "spent"]
    assert history.select(ride.labels.columns).equals(ride.labels), "labels stay as they were"
    at_hand = ride.drivers.to_dicts(), ride.customers.to_dicts()
    expected = []
    for label in ride.labels.to_dicts():
        first = second = None
        if None not in (label["driver_id"], label["customer_id"], label["asked"]):
            at = label["asked"]
            first = known(at_hand[0], "driver_id", label["driver_id"], at, "happened", "recorded")
            ten = timedelta(days=10)
            second = known(
                at_hand[1], "customer_id", label["customer_id"], at, "known", "known", ten
            )
        expected.append([*((first or {}).get(name) for name in FIRST), (second or {}).get("spent")])
    wanted = pl.DataFrame(expected, schema=history.select(*FIRST, "spent").schema, orient="row")
    assert bits(history.select(*FIRST, "spent")) == bits(wanted)
    assert history["rate"].null_count() < len(history) / 2, "the case is no empty one"
    kinds = [pl.Float64, pl.Int64, pl.Float32, pl.String, pl.Boolean, pl.Datetime("us", "UTC")]
    assert history.select(FIRST[:6]).dtypes == kinds


@apart
def test_apart_history_is_what_our_own_join_finds(ride, _):
    whole = ride.labels.filter(pl.all_horizontal(pl.all().is_not_null()))
    view = ride.customers.select("customer_id", "known", "spent")
    joined = features.as_of(
        whole,
        view,
        entity="customer_id",
        at="asked",
        available_at="known",
        tolerance=timedelta(days=10),
    )
    found, _said = ride.store.historical("ride", whole, at="asked")
    assert bits(found.select("spent")) == bits(joined.select("spent"))


@apart
def test_apart_a_value_from_after_the_label_never_appears(ride, _):
    """Each value names its row: a row that is younger than the label would be seen."""
    when = {
        row["rate"]: max(row["happened"], row["recorded"])
        for row in ride.drivers.drop_nulls("rate").sort("recorded", descending=True).to_dicts()
    }
    rows = ride.history.drop_nulls("rate").select("asked", "rate").rows()
    assert rows
    assert all(when[rate] <= asked for asked, rate in rows)


@apart
def test_apart_online_is_history_at_this_moment_to_the_bit(ride, _):
    rows = ride.labels.select("driver_id", "customer_id").unique(maintain_order=True)
    answer = features.online(ride.store, "ride", rows, timeout=timedelta(seconds=30))
    asked = rows.with_columns(asked=pl.lit(answer.now))
    history, said = ride.store.historical("ride", asked, at="asked", expect=answer.digest)
    names = [*FIRST, "spent"]
    assert answer.frame.columns == [*rows.columns, *names]
    assert answer.frame.select(names).schema == history.select(names).schema
    assert bits(answer.frame.select(names)) == bits(history.select(names))
    assert answer.frame["rate"].null_count() < len(rows) and said.digest == answer.digest
    assert answer.frame["spent"].null_count() > rows["driver_id"].null_count(), "some are too old"


@apart
def test_apart_ages_are_those_of_the_events(ride, _):
    rows = pl.DataFrame({"driver_id": [1000, 1001, 7], "other": ["x", "y", "z"]})
    answer = features.online(ride.store, "driver_only", rows, timeout=timedelta(seconds=30))
    assert answer.frame.columns == ["driver_id", "other", "trips", "rate"]
    newest = ride.drivers.group_by("driver_id").agg(pl.col("happened").max())
    wanted = rows.join(newest, on="driver_id", how="left", maintain_order="left")["happened"]
    assert answer.at["rate"].to_list() == wanted.to_list()
    age = answer.age()["trips"].to_list()
    assert age[0] == answer.now - wanted[0] and age[2] is None
    least = min(age[0], age[1])
    assert answer.stale(least).to_list() == [age[0] > least, age[1] > least, True]
    assert answer.stale(timedelta(days=900)).to_list() == [False, False, True]
    nothing = features.online(ride.store, "driver_only", rows.head(0))
    assert nothing.frame.columns == answer.frame.columns and nothing.frame.height == 0


@apart
def test_apart_digests_stay_when_only_rows_change(ride, _):
    after = ride.store.describe("ride")
    assert after == ride.first == ride.said, "materializing changes no definition"
    assert set(after.views) == {"drivers", "customers"}
    assert after.max_age == {"customers": timedelta(days=10)}
    assert after.entities == {"driver_id": "Int64", "customer_id": "String"}
    again = FeastStore(ride.root)
    assert again.describe("ride") == after
    again.close()


@apart
def test_apart_one_entity_under_two_names(ride, _):
    asked = pl.DataFrame(
        {"driver_id": [1000, 1001], "guide_id": [1001, 1002], "at": [ride.now] * 2}
    )
    with FeastStore(ride.root, full_names=True) as store:
        history, said = store.historical("other", asked, at="at")
        answer = features.online(store, "other", asked, timeout=timedelta(seconds=30))
        assert set(said.entities) == {"driver_id", "guide_id"}
        assert history.columns[3:] == ["first__trips", "guide__trips"]
        assert history["first__trips"][1] == history["guide__trips"][0]
        assert answer.frame.equals(history)
        twice, _said = store.historical(
            "twice", asked.with_columns(customer_id=pl.lit("c1")), at="at"
        )
        assert twice.columns[-2:] == ["drivers__score", "customers__score"]


LABEL = {"driver_id": [1000], "customer_id": ["c1"], "at": [datetime(2026, 1, 1, tzinfo=UTC)]}
REFUSED = {  # service, what is asked -> code, words
    "unknown service": ("rode", LABEL, "data.features-service", "known: computed, driver_only"),
    "no entity": (
        "ride",
        {"driver_id": [1], "at": LABEL["at"]},
        "data.features-entity",
        "customer_id",
    ),
    "entity of a type": ("ride", LABEL | {"driver_id": ["1000"]}, "data.features-entity", "Int64"),
    "computed by code": ("computed", LABEL, "data.features-kind", "code from a registry"),
    "odd type": ("uuids", LABEL, "data.features-kind", "UUID"),
    "two of a name": ("twice", LABEL, "data.column-twice", "score"),
}


@apart
@pytest.mark.parametrize(("service", "asked", "code", "words"), REFUSED.values(), ids=REFUSED)
def test_apart_both_ways_refuse_the_same(ride, service, asked, code, words, _):
    for way in ("historical", "online"):
        with pytest.raises(FalajError) as caught:
            frame = pl.DataFrame(asked)
            if way == "historical":
                ride.store.historical(service, frame, at="at")
            else:
                rows = frame.drop("at").to_dicts()
                ride.store.online(service, rows, timeout=timedelta(seconds=30))
        problem = caught.value.problems[0]
        assert problem.code == code and words in f"{problem.message} {problem.why}", problem
        assert problem.fix


@apart
def test_apart_labels_that_do_not_fit_are_refused(ride, _):
    frame = pl.DataFrame(LABEL)
    with pytest.raises(FalajError, match="that is a time"):
        ride.store.historical("ride", frame, at="driver_id")
    with pytest.raises(FalajError, match="in the labels"):
        ride.store.historical("ride", frame.with_columns(rate=0.5), at="at")
    with pytest.raises(FalajError, match="in the rows"):
        features.online(ride.store, "ride", frame.with_columns(rate=0.5))
    with pytest.raises(FalajError) as caught:
        ride.store.historical("ride", frame, at="at", expect="sha256:" + "0" * 64)
    assert caught.value.code == "data.features-changed"
    empty, _said = ride.store.historical("ride", frame.head(0), at="at")
    assert empty.height == 0 and empty.columns[-1] == "spent"
    dates = frame.with_columns(pl.col("at").dt.date())
    assert ride.store.historical("ride", dates, at="at")[0]["rate"].to_list() == [None]


@apart
def test_apart_numbers_that_pandas_would_round_are_refused(tmp_path, _):
    now = moment()
    root = write_repo(tmp_path / "repo", SEED, now)
    rows = drivers(SEED, now, rows=20).with_columns(trips=pl.lit(2**60 + 1))
    asked = pl.DataFrame({"driver_id": [int(rows["driver_id"][0]), 7], "at": [now, now]})
    rows.write_parquet(root / "data" / "drivers.parquet")
    feast(root, "apply")
    with FeastStore(root) as store:
        whole, _said = store.historical("driver_only", asked.head(1), at="at")
        assert whole["trips"].to_list() == [2**60 + 1]
        with pytest.raises(FalajError, match="above"):
            store.historical("driver_only", asked, at="at")


@apart
def test_apart_a_changed_definition_is_seen_while_it_is_asked(tmp_path, _):
    root = write_repo(tmp_path / "repo", SEED, moment())
    feast(root, "apply")
    rows, patient = [{"driver_id": 1000}], timedelta(seconds=60)
    with FeastStore(root) as store:
        trained = store.describe("driver_only")
        store.online("driver_only", rows, timeout=patient, expect=trained.digest)
        text = (root / "definitions.py").read_text()
        (root / "definitions.py").write_text(text.replace('["trips", "rate"]', '["rate", "trips"]'))
        feast(root, "apply")
        with pytest.raises(FalajError) as caught:
            store.online("driver_only", rows, timeout=patient, expect=trained.digest)
        assert caught.value.code == "data.features-changed"
        now = store.describe("driver_only")
        assert now.digest != trained.digest and now.views == trained.views
        assert list(now.columns) == ["rate", "trips"]
        shutil.rmtree(root / "data")
        with pytest.raises(FalajError) as caught:
            store.online("driver_only", rows, timeout=patient)
        assert caught.value.code in {"data.features-online", "data.features-failed"}
        assert not (root / "data").exists(), "no empty store is made"


@apart
def test_apart_without_an_online_store_nothing_is_made_up(tmp_path, _):
    root = write_repo(tmp_path / "repo", SEED, moment())
    feast(root, "apply")
    (root / "data" / "online.db").unlink()
    rows = [{"driver_id": 1000}]
    with FeastStore(root) as store:
        with pytest.raises(FalajError) as caught:
            store.online("driver_only", rows, timeout=timedelta(seconds=60))
        assert caught.value.code == "data.features-online"
        assert "materialize" in caught.value.problems[0].fix
        assert not (root / "data" / "online.db").exists()


@apart
def test_apart_late_is_refused_and_the_next_question_answered(ride, _):
    rows = [{"driver_id": 1000}]
    with FeastStore(ride.root) as store:
        with pytest.raises(FalajError) as caught:  # importing Feast takes seconds
            store.online("driver_only", rows, timeout=timedelta(milliseconds=20))
        assert caught.value.code == "data.features-late"
        store.start()
        answer = store.online("driver_only", rows, timeout=timedelta(seconds=5))
        assert answer.values["trips"] and answer.service.name == "driver_only"
    store.close()


@apart
def test_apart_no_repository_and_a_broken_one(tmp_path, _):
    for text, words in ((None, "no feature_store.yaml"), ("project: [", "cannot be opened")):
        if text is not None:
            (tmp_path / "feature_store.yaml").write_text(text)
        with pytest.raises(FalajError) as caught, FeastStore(tmp_path) as store:
            store.describe("ride")
        problem = caught.value.problems[0]
        assert problem.code == "data.features-repo" and words in f"{problem.message}{problem.why}"


@apart
def test_apart_a_dataset_of_features_is_a_snapshot_with_its_engines_ids(ride, tmp_path, _):
    shutil.copytree(ride.root, tmp_path / "repo")
    ride.labels.write_parquet(tmp_path / "rows.parquet")
    source = "feast:repo#ride?entities=rows&at=asked"
    first = opened(source, tmp_path)
    assert bits(first.read()) == bits(ride.history)
    engine = first.version.engine
    assert engine["engine"] == "feast" and engine["service"] == "ride"
    assert engine["digest"] == ride.first.digest and engine["registry"] == ride.first.registry
    assert engine["view drivers"] == ride.first.views["drivers"]
    begun = first.version
    shutil.move(tmp_path / "repo", tmp_path / "gone")
    kept = opened(source, tmp_path).version
    assert kept.content == begun.content, "another process of the run asks nobody"
    ride.labels.head(10).write_parquet(tmp_path / "rows.parquet")
    with pytest.raises(FalajError) as caught:  # of other rows the snapshot tells nothing
        opened(source, tmp_path).read()
    assert caught.value.code == "data.features-repo"
    shutil.move(tmp_path / "gone", tmp_path / "repo")
    pinned = source.replace("#ride", f"#ride@{ride.first.digest}")
    again = opened(pinned, tmp_path, fresh=True)
    assert again.version.rows == 10 and again.version.engine["rows"] != engine["rows"]
    with pytest.raises(FalajError) as caught:
        opened(source.replace("#ride", f"#ride@{ride.first.views['drivers']}"), tmp_path).read()
    assert caught.value.code == "data.features-changed"


PIPELINE = """
import polars as pl
from falaj import Dataset, pipeline, step


@step
def look(*, rides: Dataset) -> pl.DataFrame:
    return rides.read().select("y", "rate", "spent")


@pipeline
def main() -> pl.DataFrame:
    return look()
"""

TOML = """
[project]
name = "rides"
region = "ae"

[model]
name = "rides"
pipeline = "pipeline:main"
task = "binary-classification"

[[datasets]]
name = "rows"
source = "rows.parquet"

[[datasets]]
name = "rides"
source = "feast:repo#ride?entities=rows&at=asked"
"""


def falaj(root, *words):
    done = subprocess.run(
        [sys.executable, "-m", "falaj", *words],
        cwd=root,
        env=os.environ | {"NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@apart
def test_apart_a_run_records_the_service_and_runs_again_when_history_changes(ride, tmp_path, _):
    shutil.copytree(ride.root, tmp_path / "repo")
    ride.labels.write_parquet(tmp_path / "rows.parquet")
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    (tmp_path / "falaj.toml").write_text(TOML)
    first = json.loads(falaj(tmp_path, "run", "--json"))["data"]
    second = json.loads(falaj(tmp_path, "run", "--json"))["data"]
    steps = [[step["status"] for step in run["steps"]] for run in (first, second)]
    assert steps == [["executed"], ["cached"]]
    version = next(d for d in first["datasets"] if d["dataset"] == "rides")
    assert version["engine"]["digest"] == ride.first.digest
    assert version["engine"]["view customers"] == ride.first.views["customers"]
    rows = ride.drivers.with_columns(pl.col("rate") * 2)
    rows.write_parquet(tmp_path / "repo" / "data" / "drivers.parquet")
    third = json.loads(falaj(tmp_path, "run", "--json"))["data"]
    assert [step["status"] for step in third["steps"]] == ["executed"]
    changed = next(d for d in third["datasets"] if d["dataset"] == "rides")
    differ = [c for c, digest in changed["columns"].items() if digest != version["columns"][c]]
    assert differ == ["rate"] and changed["engine"]["digest"] == version["engine"]["digest"]


OWN_TESTS = """
def test_rows_of_features(dataset_sample):
    rows = dataset_sample("rides", 40)
    assert rows.height == 40 and rows["rate"].null_count() < 40
    assert rows.equals(dataset_sample("rides", 40))


def test_a_small_run(pipeline_run, dataset_sample):
    made = pipeline_run(datasets={"rides": dataset_sample("rides", 25)})
    assert made.output("look").height == 25


def test_the_pipeline_reads_them_itself(pipeline_run):
    assert "rate" in pipeline_run().output("look").columns
"""


@apart
def test_apart_the_projects_own_tests_read_features(ride, tmp_path, _):
    shutil.copytree(ride.root, tmp_path / "repo")
    ride.labels.write_parquet(tmp_path / "rows.parquet")
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    (tmp_path / "falaj.toml").write_text(TOML)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_rides.py").write_text(OWN_TESTS)
    report = json.loads(falaj(tmp_path, "test", "--json"))["data"]
    assert {t["name"].rpartition(":")[2]: t["outcome"] for t in report["tests"]} == {
        "test_rows_of_features": "passed",
        "test_a_small_run": "passed",
        "test_the_pipeline_reads_them_itself": "passed",
    }
    profile = json.loads(falaj(tmp_path, "data", "profile", "rides", "--json"))["data"]
    assert profile["rows"] == ride.labels.height
    assert "rate" in {column["name"] for column in profile["columns"]}


@apart
def test_apart_nothing_is_sent_anywhere(ride, tmp_path, _):
    """Every socket that the child would open is told; loopback and files are none."""
    (tmp_path / "sitecustomize.py").write_text(
        "import socket, pathlib\n"
        "real = socket.socket.connect\n"
        "def connect(self, address):\n"
        f"    pathlib.Path({str(tmp_path / 'calls')!r}).open('a').write(f'{{address}}\\n')\n"
        "    return real(self, address)\n"
        "socket.socket.connect = connect\n"
        "socket.getaddrinfo = lambda *a, **k: connect(None, a)\n"
    )
    script = (
        "from datetime import timedelta\nfrom pathlib import Path\nimport polars as pl\n"
        "from falaj.links.feast.store import FeastStore\n"
        f"with FeastStore(Path({str(ride.root)!r})) as store:\n"
        "    store.start()\n"
        "    store.online('driver_only', [{'driver_id': 1000}], timeout=timedelta(seconds=30))\n"
        f"    rows = pl.read_parquet({str(tmp_path / 'rows.parquet')!r})\n"
        "    store.historical('ride', rows, at='asked')\n"
    )
    ride.labels.write_parquet(tmp_path / "rows.parquet")
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "calls").exists(), Path(tmp_path / "calls").read_text()

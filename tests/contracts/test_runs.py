"""The port Runs: points come back as they were logged; a filter means what it says."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import event, inspect, text

from falaj.base.errors import FalajError
from falaj.base.filters import Both, Compare, Either, Not, parse, parse_order
from falaj.base.points import Series, pack, unpack
from falaj.facts.runs import Run, RunStatus
from falaj.links.sql.connect import HEAD
from falaj.links.sql.migrations.versions import v0001_first_tables
from falaj.links.sql.store import SqlStore

AT = datetime(2026, 3, 1, tzinfo=UTC)


def run(number, *, metrics=None, parameters=None, status=RunStatus.OK):
    return Run(
        id=f"R{number:05}", project="p", pipeline="pipeline:main", model="delay",
        parameters=parameters or {}, seed=1, principal="me", status=status, started=AT,
        metrics=metrics or {},
    )  # fmt: skip


def add(store, *facts):
    from falaj.base import ids
    from falaj.facts.events import Event

    with store.begin() as unit:
        for fact in facts:
            unit.add(fact)
        unit.append(
            Event(id=ids.new(), at=AT, project="p", type="run.ok", actor="a", subject="s", data={})
        )


def series(name, count):
    made = Series(name)
    for i in range(count):
        made.add(i, 1.5 + i, float(i * i))
    return made


@pytest.fixture(params=["sqlite"])
def store(request, tmp_path):
    made = SqlStore.open(tmp_path / "store.db")
    yield made
    made.close()


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Forty runs for the property; nothing changes them."""
    made = SqlStore.open(tmp_path_factory.mktemp("runs") / "store.db")
    runs = [
        run(
            i,
            metrics={} if i % 7 == 0 else {"auc": (i % 5) / 5, "f1": -1.0 * (i % 3)},
            parameters={"n": i % 4, "kind": "ab"[i % 2], "flag": i % 2 == 0},
            status=RunStatus.OK if i % 3 else RunStatus.FAILED,
        )
        for i in range(40)
    ]
    add(made, *runs)
    for one in runs:
        made.runs().record(one, [])
    yield made.runs(), runs
    made.close()


def test_points_come_back(store):
    runs, one = store.runs(), run(1)
    runs.record(one, [series("loss", 2500), series("auc", 1)])
    assert runs.series(one.id, "loss") == series("loss", 2500)
    assert runs.names(one.id) == ["auc", "loss"]
    assert runs.series(one.id, "other") == Series("other")
    assert runs.series("R2", "loss") == Series("loss")


def test_recording_again_replaces(store):
    runs, one = store.runs(), run(1, metrics={"auc": 0.5})
    add(store, one)
    runs.record(one, [series("loss", 1500)])
    runs.record(run(1, metrics={"auc": 0.9}), [series("loss", 3)])
    assert runs.series(one.id, "loss") == series("loss", 3)
    assert runs.search(parse("metrics.auc > 0.8"), None, limit=9) == [one.id]
    assert runs.search(parse("metrics.auc < 0.8"), None, limit=9) == []


def test_what_a_running_step_says_is_put_behind_the_rest(store):
    runs = store.runs()
    add(store, run(1, status=RunStatus.RUNNING), run(2, status=RunStatus.RUNNING))
    part = Series("loss")
    for start in (0, 1000, 2500):
        part = Series("loss")
        for i in range(start, start + 1500 if start else 1000):
            part.add(i, 0.5 * i, float(i))
        runs.append("R00001", {"loss": float(i), "auc": 0.5}, [part])
    runs.append("R00002", {"loss": 9.0}, [])
    got = runs.series("R00001", "loss")
    assert list(got.steps) == list(range(4000)) and list(got.values) == [
        float(i) for i in range(4000)
    ]
    assert runs.last("R00001") == {"loss": 3999.0, "auc": 0.5} and runs.names("R00001") == ["loss"]
    assert runs.last("R00002") == {"loss": 9.0} and runs.names("R00002") == []
    assert list(runs.search(parse("metrics.loss > 3000"), None, limit=9)) == ["R00001"]
    runs.record(run(1, metrics={"loss": 1.0}), [series("loss", 3)])
    assert list(runs.series("R00001", "loss").steps) == [0, 1, 2]
    assert runs.last("R00001") == {"loss": 1.0} and runs.last("R00003") == {}


def test_a_store_of_the_first_version_is_brought_along(tmp_path):
    """Runs that were there before can be searched after."""
    store = SqlStore.open(tmp_path / "store.db")
    add(store, run(1, metrics={"auc": 0.8}, parameters={"n": 3, "flag": True}))
    with store._writer.begin() as connection:
        # As the first migration left it, whatever tables came since.
        first = {*v0001_first_tables.FAMILIES, "event", "log_leaf", "log_node", "checkpoint"}
        first |= {"cosignature", "person", "remark", "lease", "sequence", "alembic_version"}
        for table in set(inspect(connection).get_table_names()) - first:
            connection.execute(text(f"DROP TABLE {table}"))
        triggers = connection.scalars(text("SELECT name FROM sqlite_master WHERE type = 'trigger'"))
        for trigger in triggers.all():
            connection.execute(text(f"DROP TRIGGER {trigger}"))
        for index in ("ix_event_actor", "ix_event_at"):
            connection.execute(text(f"DROP INDEX IF EXISTS {index}"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    store.close()
    again = SqlStore.open(tmp_path / "store.db")
    assert HEAD >= "0002"
    asked = parse("metrics.auc = 0.8 and params.n = 3 and params.flag = true")
    assert again.runs().search(asked, None, limit=9) == ["R00001"]
    again.close()


NUMBERS = st.sampled_from([0, 1, 2, 0.2, 0.4, -1, 3])
COMPARES = st.one_of(
    st.builds(
        Compare,
        st.just("metrics"),
        st.sampled_from(["auc", "f1", "none"]),
        st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
        NUMBERS.map(float),
    ),
    st.builds(
        Compare,
        st.just("params"),
        st.sampled_from(["n", "kind"]),
        st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
        NUMBERS.map(float),
    ),
    st.builds(
        Compare, st.just("params"), st.sampled_from(["kind", "flag", "n"]),
        st.sampled_from(["=", "!="]), st.sampled_from(["a", "b", "true", "2"]),
    ),
    st.builds(
        Compare, st.just("run"), st.just("status"), st.sampled_from(["=", "!="]),
        st.sampled_from(["ok", "failed"]),
    ),
)  # fmt: skip
FILTERS = st.recursive(
    COMPARES,
    lambda inner: st.one_of(
        st.builds(Not, inner), st.builds(Both, inner, inner), st.builds(Either, inner, inner)
    ),
    max_leaves=6,
)


def written(asked):
    match asked:
        case Not(inner):
            return f"not ({written(inner)})"
        case Both(left, right):
            return f"({written(left)}) and ({written(right)})"
        case Either(left, right):
            return f"({written(left)}) or ({written(right)})"
        case Compare(kind, name, sign, value):
            told = f"'{value}'" if isinstance(value, str) else repr(value)
            return f"{name if kind == 'run' else f'{kind}.{name}'} {sign} {told}"


def naive(asked, one):
    match asked:
        case Not(inner):
            return not naive(inner, one)
        case Both(left, right):
            return naive(left, one) and naive(right, one)
        case Either(left, right):
            return naive(left, one) or naive(right, one)
        case Compare(kind, name, sign, value):
            got = {"metrics": one.metrics, "params": one.parameters}.get(kind, {}).get(name)
            if kind == "run":
                got = str(getattr(one, name))
            if got is None:
                return False
            if isinstance(value, str):
                got = str(got).lower() if isinstance(got, bool) else str(got)
            elif isinstance(got, str | bool):
                return False
            return {
                "=": got == value, "!=": got != value, "<": got < value if sign == "<" else 0,
                "<=": got <= value if sign == "<=" else 0, ">": got > value if sign == ">" else 0,
                ">=": got >= value if sign == ">=" else 0,
            }[sign]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(FILTERS)
def test_a_filter_finds_what_a_plain_look_finds(asked, wanted):
    runs, known = asked
    assert parse(written(wanted)) == wanted
    expected = [one.id for one in reversed(known) if naive(wanted, one)]
    assert runs.search(wanted, None, limit=100) == expected


def test_order_leaves_out_what_has_no_value(asked):
    runs, known = asked
    found = runs.search(None, parse_order("metrics.auc desc"), limit=100)
    values = [known[int(one[1:])].metrics["auc"] for one in found]
    assert values == sorted(values, reverse=True) and len(found) == 34
    assert len(runs.search(None, parse_order("params.n"), limit=5)) == 5


WRONG = {
    "metrics.auc": "expected = != < <= > or >=",
    "metrics.auc >": "expected a number or a text",
    "auc > 1": "expected metrics.NAME",
    "metrics.auc > 'x'": "texts are compared",
    "metrics.auc = 'x'": "a number",
    "status = 3": "a text",
    "metrics.auc > 1 metrics.f1 > 2": "expected and, or, or the end",
    "(metrics.auc > 1": "expected )",
    "metrics.auc > 1; drop table run": "cannot read",
    "metrics.a-b > 1": "cannot read",
    "(" * 60 + "metrics.auc > 1": "nested",
    "x" * 3000: "longer",
}


@pytest.mark.parametrize(("asked", "words"), WRONG.items(), ids=lambda t: t[:20])
def test_what_cannot_be_read_is_refused(asked, words):
    with pytest.raises(FalajError) as caught:
        parse(asked)
    assert caught.value.code == "runs.filter" and words in str(caught.value)


@pytest.mark.parametrize("asked", ["auc", "metrics.", "metrics.a up", "metrics.a desc now"])
def test_orders_that_cannot_be_read(asked):
    with pytest.raises(FalajError):
        parse_order(asked)


def test_values_are_bound_and_never_part_of_the_statement(asked):
    runs, _ = asked
    seen = []

    def hear(_connection, _cursor, statement, parameters, *_more):
        seen.append((statement, parameters))

    event.listen(runs._engine, "before_cursor_execute", hear)
    runs.search(
        parse('params.kind = "x\'; drop table run; --" and metrics.auc > 0.123'), None, limit=5
    )
    event.remove(runs._engine, "before_cursor_execute", hear)
    assert seen and all(
        "drop" not in statement and "0.123" not in statement for statement, _ in seen
    )
    assert any("drop table" in str(parameters) for _, parameters in seen)


def test_the_best_of_many_runs_costs_a_few_steps_of_the_engine(tmp_path):
    """Counted, not timed: SQLite's own instructions, with indexes about the same for any size."""
    store = SqlStore.open(tmp_path / "store.db")
    with store._writer.begin() as connection:
        connection.execute(
            text(
                "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 9999) "
                "INSERT INTO run(id, revision, model, status, body) "
                "SELECT printf('R%05d', i), 1, 'm', 'ok', x'7b7d' FROM n"
            )
        )
        connection.execute(
            text(
                "INSERT INTO run_last(run, name, value) "
                "SELECT id, 'auc', (position * 7919 % 10007) / 10007.0 FROM run"
            )
        )
        connection.execute(
            text(
                "INSERT INTO run_param(run, name, number, text) "
                "SELECT id, 'n', position % 10, position % 10 FROM run"
            )
        )
    counted = 0

    def tick():
        nonlocal counted
        counted += 100
        return 0

    raw = store._engine.raw_connection()
    raw.driver_connection.set_progress_handler(tick, 100)
    raw.close()
    order = parse_order("metrics.auc desc")
    found = store.runs().search(parse("metrics.auc > 0.7 and params.n = 4"), order, limit=10)
    assert len(found) == 10
    assert 0 < counted < 400_000, f"{counted} instructions"
    store.close()


@given(st.lists(st.tuples(st.sampled_from("abé"), st.integers(-9, 2**62), st.floats())))
def test_packed_points_come_back(points):
    made = {}
    for name, step, value in points:
        made.setdefault(name, Series(name)).add(step, 0.5, value)
    again = unpack(pack(list(made.values())))
    assert [repr(one) for one in again] == [repr(one) for one in made.values()]


def test_bytes_that_are_no_points():
    with pytest.raises(ValueError):
        unpack(pack([series("a", 3)]) + b"more")


def test_what_steps_said_is_found_unless_the_pipeline_has_a_parameter_of_that_name(store):
    from falaj.facts.runs import StepRun, StepStatus

    said = {
        "depth": "6",
        "eta": "1e-1",
        "kind": "tree",
        "void": "nan",
        "month": "7",
        "long": "9" * 300,
    }
    step = StepRun(
        step="fit", key="k", parts={}, status=StepStatus.EXECUTED, why="", started=AT, params=said
    )
    one = replace(run(1, parameters={"month": 4}), steps=(step,))
    add(store, one)
    store.runs().record(one, [])
    for asked, found in {
        "params.depth = 6": 1, "params.depth = '6'": 1, "params.eta < 0.2": 1, "params.kind = 'tree'": 1,
        "params.void > 0": 0, "params.void = 'nan'": 1, "params.month = 4": 1, "params.month = 7": 0,
        "params.long > 0": 0,
    }.items():  # fmt: skip
        assert len(store.runs().search(parse(asked), None, limit=9)) == found, asked

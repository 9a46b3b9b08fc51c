"""`falaj score` on real tables, inside the environment of the part `arrow`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
import pytest
import servers

from falaj.base import digests
from falaj.base.errors import Conflict, FalajError, GateFailed, Unverified
from falaj.journeys.score import Asked, score
from falaj.links.arrow import text as texts
from falaj.links.arrow.formats import ArrowFormats

ROWS = 5000


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    made = servers.House(tmp_path_factory.mktemp("house"))
    made.one = made.release("1")
    return made


def table(n=ROWS, seed=1):
    draw = np.random.default_rng(seed)
    delay = draw.normal(20, 30, n)
    delay[draw.random(n) < 0.1] = np.nan
    return pa.table(
        {
            "id": pa.array(
                [f'flight, "{at}"\n' if at % 700 == 3 else f"flight-{at}" for at in range(n)]
            ),
            "dep_delay": pa.array(delay, from_pandas=True),
            "distance": pa.array(draw.integers(50, 5000, n)),
            "hour": pa.array(draw.integers(0, 24, n).astype(np.float32)),
        }
    )


def asked(house, given, out, **more):
    more.setdefault("keep", ("id",))
    return Asked(
        folder=house.one.folder, trust=house.ring.trust_text(), input=str(given), output=out, **more
    )


def parquet(path, n=ROWS, groups=500, **more):
    pq.write_table(table(n, **more), path, row_group_size=groups)
    return path


def read(folder, ending="parquet"):
    return pa.concat_tables(pq.read_table(p) for p in sorted(folder.glob(f"part-?????.{ending}")))


def expected(rows):
    found = []
    for delay, distance, hour in zip(
        *(rows[name].to_pylist() for name in ("dep_delay", "distance", "hour")), strict=True
    ):
        found.append(servers.expected([delay, distance, hour]))
    return np.array(found)


def test_every_row_is_answered_in_its_order_and_the_parts_say_by_whom(house, tmp_path):
    given = parquet(tmp_path / "in.parquet")
    job = score(asked(house, given, tmp_path / "out", rows=1500), ArrowFormats())
    assert (job.rows, job.rejected, job.parts) == (ROWS, 0, 4)
    found = read(tmp_path / "out")
    assert found["id"].to_pylist() == table()["id"].to_pylist()
    assert np.abs(found["probabilities.1"].to_numpy() - expected(table())).max() < 1e-6
    assert found.column_names == ["id", "label", "probabilities.0", "probabilities.1"]
    about = pq.read_schema(tmp_path / "out" / "part-00000.parquet").metadata
    assert about[b"falaj.release"].decode() == house.one.id
    told = json.loads((tmp_path / "out" / "job.json").read_text())
    assert told["spec"]["release"] == house.one.id
    assert told["tree"] == job.tree


def test_the_same_job_gives_the_same_tree_and_a_finished_one_does_nothing(house, tmp_path):
    given = parquet(tmp_path / "in.parquet")
    one = score(asked(house, given, tmp_path / "one", rows=1500), ArrowFormats())
    two = score(asked(house, given, tmp_path / "two", rows=1500), ArrowFormats())
    assert one == two
    marks = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "one").glob("part-*")}
    assert score(asked(house, given, tmp_path / "one", rows=1500), ArrowFormats()) == one
    assert marks == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "one").glob("part-*")}


def test_every_format_gives_the_same_answers(house, tmp_path):
    rows = table(2100)
    arrow_csv.write_csv(rows, tmp_path / "in.csv")
    with pa.ipc.new_file(str(tmp_path / "in.arrow"), rows.schema) as file:
        file.write_table(rows, max_chunksize=300)
    lines = [json.dumps(row) for row in rows.to_pylist()]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "folder").mkdir()
    pq.write_table(rows[:1000], tmp_path / "folder" / "a.parquet")
    pq.write_table(rows[1000:], tmp_path / "folder" / "b.parquet")
    from deltalake import write_deltalake

    write_deltalake(str(tmp_path / "lake"), rows)
    places = ("in.csv", "in.arrow", "in.jsonl", "folder", "folder/?.parquet", "delta")
    for number, place in enumerate(places):
        address = f"delta:{tmp_path}/lake" if place == "delta" else tmp_path / place
        out = tmp_path / f"out-{number}"
        job = score(asked(house, address, out, rows=400), ArrowFormats())
        assert (job.rows, job.rejected) == (2100, 0), place
        assert job.parts >= (4 if place.startswith("in") else 1), place
        found = read(out)
        assert found["id"].to_pylist() == rows["id"].to_pylist(), place
        assert np.abs(found["probabilities.1"].to_numpy() - expected(rows)).max() < 1e-6, place


@pytest.mark.parametrize("form", ["csv", "arrow", "jsonl"])
def test_answers_are_written_in_every_format(house, tmp_path, form):
    given = parquet(tmp_path / "in.parquet", 1000)
    score(asked(house, given, tmp_path / "out", format=form), ArrowFormats())
    (path,) = (tmp_path / "out").glob(f"part-?????.{form}")
    if form == "csv":
        found = arrow_csv.read_csv(
            path, parse_options=arrow_csv.ParseOptions(newlines_in_values=True)
        )
    elif form == "arrow":
        found = pa.ipc.open_file(str(path)).read_all()
        assert found.schema.metadata[b"falaj.release"].decode() == house.one.id
    else:
        found = pa.Table.from_pylist([json.loads(line) for line in path.read_text().splitlines()])
    assert found["id"].to_pylist() == table(1000)["id"].to_pylist()
    assert np.allclose(found["probabilities.1"].to_numpy(), expected(table(1000)), atol=1e-6)


BAD = [
    ({"distance": -1.0}, "distance: got -1.0, expected at least 0.0"),
    ({"distance": None}, "distance: no value"),
    ({"hour": 25.0}, "hour: got 25.0, expected at most 24.0"),
    ({"dep_delay": 1e39}, "dep_delay: 1e+39 does not fit into FP32"),
    ({"hour": float("nan")}, "hour: no value"),
]


def bad_rows(good=100):
    base = {"id": "x", "dep_delay": 1.0, "distance": 100.0, "hour": 5.0}
    rows = [dict(base, id=f"g{at}") for at in range(good)]
    for at, (change, _) in enumerate(BAD):
        rows.insert(7 + at * 11, base | change | {"id": f"b{at}"})
    return rows


def test_bad_rows_go_aside_with_their_reasons(house, tmp_path):
    pq.write_table(pa.Table.from_pylist(bad_rows()), tmp_path / "in.parquet")
    job = score(
        asked(house, tmp_path / "in.parquet", tmp_path / "out", max_rejected=5), ArrowFormats()
    )
    assert (job.rows, job.rejected) == (100, 5)
    aside = pq.read_table(tmp_path / "out" / "part-00000.rejected.parquet").to_pylist()
    assert [row["reason"] for row in aside] == [words for _, words in BAD]
    assert [row["row"] for row in aside] == [7, 18, 29, 40, 51]
    assert [row["id"] for row in aside] == [f"b{at}" for at in range(5)]
    assert read(tmp_path / "out")["id"].to_pylist() == [f"g{at}" for at in range(100)]


def test_too_many_bad_rows_end_the_job_and_a_larger_allowance_goes_on(house, tmp_path):
    pq.write_table(pa.Table.from_pylist(bad_rows()), tmp_path / "in.parquet", row_group_size=20)
    out = tmp_path / "out"
    with pytest.raises(GateFailed) as refused:
        score(asked(house, tmp_path / "in.parquet", out, max_rejected=2, rows=20), ArrowFormats())
    assert refused.value.code == "score.rejected"
    assert not (out / "job.json").exists()
    kept = {p.name: p.stat().st_mtime_ns for p in out.glob("part-*.json")}
    assert len(kept) >= 2
    job = score(asked(house, tmp_path / "in.parquet", out, max_rejected=9, rows=20), ArrowFormats())
    assert job.rejected == 5
    for name, mark in kept.items():
        assert (out / name).stat().st_mtime_ns == mark


def test_texts_that_are_no_numbers_are_bad_rows(house, tmp_path):
    (tmp_path / "in.csv").write_text(
        "id,dep_delay,distance,hour\na,,100,5\nb,soon,100,5\nc,1, 100 ,5\n"
    )
    (tmp_path / "in.jsonl").write_text(
        '{"id":"a","dep_delay":null,"distance":100,"hour":5}\n{"id":"b","dep_delay":"soon","distance":100,"hour":5}\n'
        '{"id":"c","dep_delay":1,"distance":100,"hour":5}\n[1]\n{"id":"d"\n'
    )
    for place, bad in (("in.csv", 1), ("in.jsonl", 3)):
        out = tmp_path / f"{place}-out"
        job = score(asked(house, tmp_path / place, out, max_rejected=9), ArrowFormats())
        assert (job.rows, job.rejected) == (2, bad)
        aside = pq.read_table(out / "part-00000.rejected.parquet").to_pylist()
        assert aside[0]["reason"] == "dep_delay: got 'soon', expected a number"
        assert read(out)["id"].to_pylist() == ["a", "c"]


def test_a_model_that_fails_on_a_row_loses_that_row_alone(tmp_path):
    """NaN for the afternoon, against the schema."""
    house = servers.House(tmp_path)
    house.one = house.release("1", onnx_bytes=servers.graph(trouble="nan"))
    given = parquet(tmp_path / "in.parquet", 400)
    job = score(asked(house, given, tmp_path / "out", max_rejected=400), ArrowFormats())
    late = int((table(400)["hour"].to_numpy() > 12).sum())
    assert (job.rows, job.rejected) == (400 - late, late)
    aside = pq.read_table(tmp_path / "out" / "part-00000.rejected.parquet")
    assert set(aside["reason"].to_pylist()) == {"the model answered NaN or infinity"}


REFUSED = {
    "no such column": (lambda t: t.rename_columns(["id", "dep_dleay", "distance", "hour"]), {}, "score.columns"),
    "no such column to keep": (lambda t: t, {"keep": ("key",)}, "score.columns"),
    "a column that the model writes": (
        lambda t: t.append_column("label", t["hour"]), {"keep": ("label",)}, "score.columns"),
    "texts for numbers in Parquet": (
        lambda t: t.set_column(2, "distance", pa.array([[1]] * len(t))), {}, "score.column-type"),
    "another format": (lambda t: t, {"format": "xlsx"}, "score.format"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "more", "code"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_before_a_row_is_written(house, tmp_path, change, more, code):
    pq.write_table(change(table(100)), tmp_path / "in.parquet")
    with pytest.raises(FalajError) as refused:
        score(asked(house, tmp_path / "in.parquet", tmp_path / "out", **more), ArrowFormats())
    assert refused.value.code == code
    assert refused.value.problems[0].fix
    assert not list((tmp_path / "out").glob("part-*")) if (tmp_path / "out").exists() else True


def test_addresses_that_lead_nowhere(house, tmp_path):
    (tmp_path / "x.xlsx").write_bytes(b"x")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nothing PAR1")
    for place, code in (
        ("nothing.parquet", "score.no-input"),
        ("x.xlsx", "score.format"),
        ("broken.parquet", "score.unreadable"),
    ):
        with pytest.raises(FalajError) as refused:
            score(asked(house, tmp_path / place, tmp_path / "out"), ArrowFormats())
        assert refused.value.code == code


def test_changed_bytes_are_never_loaded(tmp_path):
    house = servers.House(tmp_path)
    house.one = house.release("1")
    path = house.one.folder / "model" / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    given = parquet(tmp_path / "in.parquet", 10)
    with pytest.raises(Unverified, match=r"model/model\.onnx"):
        score(asked(house, given, tmp_path / "out"), ArrowFormats())


def test_a_folder_of_another_job_is_not_written_into(house, tmp_path):
    given = parquet(tmp_path / "in.parquet", 500, groups=100)
    out = tmp_path / "out"
    score(asked(house, given, out, rows=100), ArrowFormats())
    for more in ({"keep": ()}, {"rows": 200}, {"format": "csv"}):
        with pytest.raises(Conflict) as refused:
            score(asked(house, given, out, **{"rows": 100, **more}), ArrowFormats())
        assert refused.value.code == "score.other-job"
    parquet(given, 500, groups=100, seed=2)  # other rows under the same name
    with pytest.raises(Conflict):
        score(asked(house, given, out, rows=100), ArrowFormats())
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "notes.txt").write_text("mine")
    with pytest.raises(Conflict):
        score(asked(house, given, tmp_path / "own"), ArrowFormats())


def test_one_writer(house, tmp_path):
    given = parquet(tmp_path / "in.parquet", 500, groups=100)
    out = tmp_path / "out"
    inside, go_on = threading.Event(), threading.Event()

    def hold(*_):
        inside.set()
        assert go_on.wait(30)

    done = []
    first = threading.Thread(
        target=lambda: done.append(
            score(asked(house, given, out, rows=100), ArrowFormats(), tell=hold)
        )
    )
    first.start()
    assert inside.wait(30)
    with pytest.raises(Conflict) as refused:
        score(asked(house, given, out, rows=100), ArrowFormats())
    assert refused.value.code == "score.running"
    go_on.set()
    first.join()
    assert done[0].rows == 500


KILLED = """
import os, signal, sys
from pathlib import Path
at, seen = int(sys.argv[1]), 0
def hook(event, arguments):
    # Every rename, every file made, and (by the folder that is opened for it) every fsync of a folder.
    global seen
    if event in ("os.rename", "os.remove") or (event == "open" and sys.argv[4] in str(arguments[0])):
        seen += 1
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)
from falaj.journeys.score import Asked, score
from falaj.links.arrow.formats import ArrowFormats
sys.addaudithook(hook)
score(Asked(folder=Path(sys.argv[2]), trust=Path(sys.argv[3]).read_text(), input=sys.argv[5],
            output=Path(sys.argv[4]), keep=("id",), rows=300, max_rejected=99), ArrowFormats())
print(seen)
"""


def test_killed_anywhere_and_run_again_it_ends_with_the_same_tree(house, tmp_path):
    rows = table(1000).to_pylist()
    rows[450]["distance"] = -1
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet", row_group_size=100)

    def run(at, out):
        words = [
            sys.executable,
            "-c",
            KILLED,
            at,
            house.one.folder,
            house.trust,
            out,
            tmp_path / "in.parquet",
        ]
        return subprocess.run(
            [str(w) for w in words], check=False, capture_output=True, text=True, timeout=120
        )

    whole = run(10**9, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    steps = int(whole.stdout)
    wanted = tree(tmp_path / "whole")
    assert steps > 30
    out = tmp_path / "out"
    killed = 0
    every = 1 if os.environ.get("FALAJ_LONG_TESTS") else 5
    for at in range(
        1, steps + 1, every
    ):  # into one folder: each run finds what the killed ones left
        if run(at, out).returncode == -signal.SIGKILL:
            killed += 1
            continue
        break
    assert run(10**9, out).returncode == 0
    assert killed >= 3
    assert tree(out) == wanted
    for at in range(2, steps + 1, every * 2):  # and each into a fresh one
        fresh = tmp_path / f"fresh-{at}"
        assert run(at, fresh).returncode == -signal.SIGKILL
        assert run(10**9, fresh).returncode == 0
        assert tree(fresh) == wanted


def tree(folder):
    return digests.of_tree(
        {p.name: digests.of_file(p) for p in folder.iterdir() if p.name != ".lock"}
    )


def test_an_input_that_changes_meanwhile_is_noticed(house, tmp_path):
    given = parquet(tmp_path / "in.parquet", 500, groups=100)

    def change(*_):
        os.utime(given, ns=(1, 1))

    with pytest.raises(FalajError) as refused:
        score(asked(house, given, tmp_path / "out", rows=100), ArrowFormats(), tell=change)
    assert refused.value.code == "score.input-changed"


def test_lines_are_cut_outside_of_quotes(tmp_path):
    draw = np.random.default_rng(4)
    path = tmp_path / "in.csv"
    for _ in range(150):
        cells = ["a\nb", "x", '"', "", "long " * 9, "\n\n", 'a"b\n"']
        lines = [
            ",".join('"' + str(draw.choice(cells)).replace('"', '""') + '"' for _ in range(2))
            for _ in range(30)
        ]
        data = ("\n".join(lines) + ("\n" if draw.random() < 0.5 else "")).encode()
        path.write_bytes(data)
        size = int(draw.integers(1, 400))
        found = texts.cuts(path, 0, size, quoted=True, chunk_bytes=64)
        assert b"".join(data[a:b] for a, b in found) == data
        for a, b in found:
            assert data[a:b].count(b'"') % 2 == 0
            assert data[b - 1 : b] == b"\n" or b == len(data)


def test_the_verb_walks_in_a_project_and_writes_into_its_log(tmp_path):
    from small_project import write_project

    root = write_project(tmp_path / "small")
    rows = [{"a": at / 100, "b": 1.0, "key": at} for at in range(200)]
    pq.write_table(pa.Table.from_pylist(rows), root / "in.parquet")
    falaj = Path(sys.executable).with_name("falaj")

    def run(*words, code=0):
        done = subprocess.run(
            [falaj, *words], cwd=root, check=False, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stderr + done.stdout
        return done

    run("run")
    run("gate")
    run("release", "create")
    told = json.loads(run("score", "1.0.0", "in.parquet", "out", "--keep", "key", "--json").stdout)[
        "data"
    ]
    assert (told["rows"], told["rejected"]) == (200, 0)
    events = run("audit", "log", "--json").stdout
    assert "release.scoring" in events
    assert "release.scored" in events
    assert told["tree"] in events
    again = run("score", "1.0.0", "in.parquet", "out", "--keep", "key")
    assert told["tree"] in again.stdout
    assert run("--as", "nobody", "score", "1.0.0", "in.parquet", "other", code=6)
    assert not (root / "other").exists()


def test_memory_does_not_follow_the_rows(house, tmp_path):
    """Peak of a process for 100,000 and for 1,000,000 rows in groups of 50,000."""
    peaks = []
    for n in (100_000, 1_000_000):
        pq.write_table(
            table(100_000) if n == 100_000 else pa.concat_tables([table(100_000)] * 10),
            tmp_path / f"{n}.parquet",
            row_group_size=50_000,
        )
        code = KILLED.replace(
            "print(seen)",
            "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)",
        ).replace("rows=300", "rows=200_000")
        words = [
            sys.executable,
            "-c",
            code,
            10**9,
            house.one.folder,
            house.trust,
            tmp_path / f"out-{n}",
            tmp_path / f"{n}.parquet",
        ]
        done = subprocess.run(
            [str(w) for w in words], check=True, capture_output=True, text=True, timeout=300
        )
        peaks.append(int(done.stdout))
    assert peaks[1] <= 1.3 * peaks[0], peaks


def test_the_verb_reads_and_writes_buckets_that_the_project_lists(tmp_path):
    import stores
    from small_project import TOML, write_project

    store = stores.OwnStore()
    toml = (
        TOML
        + f"""
[[links.remotes]]
address = "s3://models/rows"
region = "ae"
endpoint = "{store.endpoint}"

[[links.remotes]]
address = "s3://models/abroad"
region = "us"
endpoint = "{store.endpoint}"
"""
    )
    root = write_project(tmp_path / "small", toml=toml)
    rows = [{"a": at / 100, "b": 1.0, "key": at} for at in range(200)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    store.objects["rows/in/a.parquet"] = (tmp_path / "in.parquet").read_bytes()
    falaj = Path(sys.executable).with_name("falaj")
    env = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": stores.KEY.key,
        "AWS_SECRET_ACCESS_KEY": stores.KEY.secret,
    }

    def run(*words, code=0):
        done = subprocess.run(
            [falaj, *words],
            cwd=root,
            env=env,
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, done.stderr + done.stdout
        return done

    try:
        run("run")
        run("gate")
        run("release", "create")
        told = json.loads(
            run(
                "score",
                "1.0.0",
                "s3://models/rows/in",
                "s3://models/rows/out",
                "--keep",
                "key",
                "--json",
            ).stdout
        )["data"]
        assert told["rows"] == 200
        assert json.loads(store.objects["rows/out/job.json"])["tree"] == told["tree"]
        before = len(store.objects)
        assert (
            told["tree"]
            in run(
                "score", "1.0.0", "s3://models/rows/in", "s3://models/rows/out", "--keep", "key"
            ).stdout
        )
        assert len(store.objects) == before
        assert (
            "score.residency"
            in run("score", "1.0.0", "s3://models/rows/in", "s3://models/abroad/x", code=6).stderr
        )
        assert (
            "score.not-listed"
            in run("score", "1.0.0", "s3://models/rows/in", "s3://models/other/x", code=2).stderr
        )
        assert len(store.objects) == before
    finally:
        store.close()

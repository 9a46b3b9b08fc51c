"""What a person gets wrong is said with its place; what broke in the middle is said as well."""

from __future__ import annotations

import json
import re

import loans
import polars as pl
import pytest
import walks
from walks import falaj


@pytest.fixture
def root(tmp_path):
    return loans.write_project(tmp_path / "loans")


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def runs(by):
    return by.owner.get("/runs")


def steps(run):
    return {step["step"]: step["status"] for step in run["steps"]}


def test_a_mistyped_key(root):
    edit(root / "falaj.toml", "at_least = 0.75", "at_leats = 0.75")
    code, out, err = falaj(root, "run")
    assert (code, out) == (2, "")
    line = (root / "falaj.toml").read_text().splitlines().index("at_leats = 0.75") + 1
    assert f"falaj.toml:{line}:1" in err
    assert "did you mean `at_least`?" in err
    code, out, _ = falaj(root, "run", "--json")
    problem = json.loads(out)
    assert code == 2
    places = {one["code"]: one["place"] for one in problem["errors"]}
    assert places["config.unknown-key"]["line"] == line


def test_a_value_out_of_range(root):
    edit(root / "falaj.toml", "alpha = 0.001", "alpha = 5")
    code, _, err = falaj(root, "status")
    assert code == 2
    assert re.search(r"falaj\.toml:\d+:\d+", err)
    assert "alpha" in err


def test_a_missing_column(root):
    rows = root / "rows.parquet"
    pl.read_parquet(rows).drop("branch").write_parquet(rows)
    code, _, err = falaj(root, "run")
    assert code == 2
    line = (root / "rows.odcs.yaml").read_text().splitlines().index("      - name: branch") + 1
    assert f"rows.odcs.yaml:{line}:" in err
    assert "'branch'" in err
    assert "Traceback" not in err


def test_rows_that_break_the_contract(root):
    rows = root / "rows.parquet"
    bad = pl.int_range(pl.len()).is_in([3, 1003])
    frame = pl.read_parquet(rows)
    frame.with_columns(y=pl.when(bad).then(7).otherwise(pl.col("y"))).write_parquet(rows)
    code, _, err = falaj(root, "run")
    assert code == 2
    assert re.search(r"rows\.odcs\.yaml:\d+:\d+", err)
    assert "y.range: 2 of 6000 rows" in err
    assert "row 4: 7, row 1004: 7" in err


def test_a_broken_function_gives_its_own_line_and_a_rerun_takes_what_is_done(root, at):
    good = 'kept["y"].to_numpy()'
    edit(root / "pipeline.py", good, 'kept["why"].to_numpy()')
    line = [
        n
        for n, text in enumerate((root / "pipeline.py").read_text().splitlines(), 1)
        if "why" in text
    ]
    code, _, err = falaj(root, "run")
    assert code == 2
    assert "Traceback" not in err
    place = err.index(f"pipeline.py:{line[0]}:")
    assert re.findall(r"[\w/]+\.py:\d+", err[:place]) == [], "the first line named is the user's"
    assert '"why"' in err
    by = at(root)
    (broken,) = runs(by)
    assert broken["status"] == "failed"
    assert "why" in broken["error"]
    assert steps(broken) == {"load": "executed", "fit": "failed", "pack": "skipped"}

    edit(root / "pipeline.py", 'kept["why"].to_numpy()', good)
    code, _, err = falaj(root, "run")
    assert code == 0, err
    mended, _ = runs(by)
    assert steps(mended) == {"load": "cached", "fit": "executed", "pack": "executed"}
    assert walks.refused(by.owner.post, "/gates", {"run": broken["id"]}).code == "runs.no-model"


def test_a_wrong_parameter(root):
    code, _, err = falaj(root, "run", "-p", "mnth=2")
    assert code == 2
    assert "mnth" in err
    assert "month" in err
    code, _, err = falaj(root, "run", "-p", "month=soon")
    assert code == 2
    assert "month" in err


def test_killed_in_the_middle_a_run_is_interrupted(root, at, processes):
    before = "    graph = helper.make_graph(\n"
    here = root / "packing"
    slow = (
        f"    import pathlib, time\n\n    pathlib.Path({str(here)!r}).touch()\n    time.sleep(60)\n"
    )
    edit(root / "pipeline.py", before, slow + before)
    by = at(root)
    run = walks.begin(root, "run")
    processes.append(run)
    walks.wait(here.exists, what="the last step")
    by.owner.get("/status")
    assert [one["status"] for one in runs(by)] == ["running"], "it lives"
    run.kill()
    run.wait()

    by.owner.get("/status")
    (dead,) = runs(by)
    assert dead["status"] == "interrupted"
    assert dead["ended"]
    assert "process" in dead["error"]
    by.owner.get("/status")
    assert walks.told(by, "run.interrupted") == [f"run/{dead['id']}"], "said once"

    edit(root / "pipeline.py", slow + before, before)
    code, _, err = falaj(root, "run")
    assert code == 0, err
    again, _ = runs(by)
    assert again["status"] == "ok"
    assert steps(again) == {"load": "cached", "fit": "cached", "pack": "executed"}


def test_the_next_run_says_it_too(root, at, processes):
    edit(root / "pipeline.py", "    for _ in range(8):\n", "    while True:\n")
    run = walks.begin(root, "run")
    processes.append(run)
    by = at(root)
    walks.wait(lambda: runs(by), what="the run")
    run.kill()
    run.wait()
    edit(root / "pipeline.py", "    while True:\n", "    for _ in range(8):\n")
    by.owner.post("/runs", {"parameters": {}})
    assert [one["status"] for one in runs(by)] == ["ok", "interrupted"]

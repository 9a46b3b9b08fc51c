"""Datasets from the command line: checks, profiles, contracts, and what must not be shown."""

from __future__ import annotations

import json
import sqlite3

import polars as pl
import pytest
from small_project import TOML, write_project

from falaj.base.errors import Exit
from falaj.links.files.blobs import FileBlobs

CONTRACT = """apiVersion: v3.1.0
kind: DataContract
id: rows
name: rows
version: 1.0.0
status: active
schema:
  - name: rows
    properties:
      - {name: a, logicalType: number, required: true}
      - {name: y, logicalType: integer, logicalTypeOptions: {minimum: 0, maximum: MOST}}
"""


def project(tmp_path, most=1, classification="internal"):
    toml = TOML.replace('source = "rows.csv"', 'source = "rows.csv"\ncontract = "rows.odcs.yaml"')
    write_project(tmp_path, toml=toml.replace('"internal"', f'"{classification}"'))
    (tmp_path / "rows.odcs.yaml").write_text(CONTRACT.replace("MOST", str(most)))
    return tmp_path


def test_kept_promises_end_with_0(here, tmp_path):
    done = here(project(tmp_path), "data", "check", "rows", "--full")
    assert done.code == 0, done.err
    assert "rows: 1,200 rows" in done.out and "data.y.range" in done.out and "✓ pass" in done.out


def test_broken_promises_end_with_3_and_show_rows(here, tmp_path):
    root = project(tmp_path, most=0)
    done = here(root, "data", "check", "--write", "report.html", "--json")
    assert done.code == Exit.GATE_FAIL
    assert done.json()["data"]["verdict"] == "fail"
    page = (root / "report.html").read_text()
    assert "data.y.range" in page and "<script" not in page
    told = here(root, "data", "check")
    assert "data.y.range" in told.out and "(row " in told.out


def test_a_dataset_of_class_personal_shows_no_value(here, tmp_path):
    root = project(tmp_path, most=0, classification="personal")
    report = here(root, "data", "check", "--write", "r.html")
    assert report.code == Exit.GATE_FAIL and "tok:" in report.out
    done = here(root, "data", "profile", "rows", "--write", "p.json", "--edges", "edges")
    assert done.code == 0 and "personal: not shown" in done.out
    assert list((root / "edges").iterdir()) == []
    values = [line.split(",")[0] for line in (root / "rows.csv").read_text().split()[1:]]
    said = done.out + report.out + (root / "p.json").read_text() + (root / "r.html").read_text()
    assert [value for value in values if value in said] == []


def test_a_profile_in_three_forms(here, tmp_path):
    root = write_project(tmp_path)
    done = here(
        root, "data", "profile", "rows", "--by", "held", "--write", "p.html", "--edges", "e"
    )
    assert done.code == 0, done.err
    assert "y where held = 0" in done.out and "median" in done.out
    assert "<svg" in (root / "p.html").read_text()
    assert json.loads((root / "e" / "a.edges.json").read_text())["kind"] == "edges"
    assert here(root, "data", "profile", "rows", "--json").json()["data"]["rows"] == 1200


def test_a_proposal_is_kept_and_never_written_over(here, tmp_path):
    root = write_project(tmp_path)
    done = here(root, "data", "contract", "init", "rows")
    assert done.code == 0 and "# check:" in done.out
    again = here(root, "data", "contract", "init", "rows")
    assert again.code == Exit.USAGE and "never written over" in again.err
    toml = (root / "falaj.toml").read_text()
    named = 'source = "rows.csv"\ncontract = "contracts/rows.odcs.yaml"'
    (root / "falaj.toml").write_text(toml.replace('source = "rows.csv"', named))
    assert here(root, "data", "check").code == 0


def test_two_contracts(here, tmp_path):
    (tmp_path / "old.yaml").write_text(CONTRACT.replace("MOST", "5"))
    (tmp_path / "new.yaml").write_text(CONTRACT.replace("MOST", "9"))
    done = here(tmp_path, "data", "contract", "diff", "old.yaml", "new.yaml")
    assert (
        done.code == Exit.GATE_FAIL and "breaking" in done.out and "maximum was 5, is 9" in done.out
    )
    back = here(tmp_path, "data", "contract", "diff", "new.yaml", "old.yaml", "--json")
    assert back.code == 0 and back.json()["data"]["verdict"] == "compatible"


WRONG = {
    "no such dataset": (("data", "profile", "none"), "data.unknown-dataset"),
    "no such column": (("data", "profile", "rows", "--by", "none"), "data.no-column"),
    "no contract": (("data", "check", "rows"), "data.no-contract"),
    "no contract at all": (("data", "check"), "data.no-contract"),
}


@pytest.mark.parametrize(("line", "code"), WRONG.values(), ids=WRONG)
def test_mistakes_are_told_with_their_code(here, tmp_path, line, code):
    done = here(write_project(tmp_path), *line)
    assert done.code == Exit.USAGE and code in done.err


def test_another_ending_is_refused(here, tmp_path):
    done = here(write_project(tmp_path), "data", "profile", "rows", "--write", "p.pdf")
    assert done.code == Exit.USAGE and ".html or .json" in done.err


def test_a_run_on_a_database_is_cached_until_a_row_changes(here, tmp_path):
    source = "sqlite:///rows.db?query=select * from rows order by rowid"
    write_project(tmp_path, toml=TOML.replace('source = "rows.csv"', f'source = "{source}"'))
    rows = pl.read_csv(tmp_path / "rows.csv")
    with sqlite3.connect(tmp_path / "rows.db") as connection:
        connection.execute(f"create table rows ({', '.join(rows.columns)})")
        marks = ", ".join("?" * rows.width)
        connection.executemany(f"insert into rows values ({marks})", rows.rows())
    connection.close()
    first, again = here(tmp_path, "run", "--json"), here(tmp_path, "run", "--json")
    assert first.code == again.code == 0, first.err + again.err
    assert {step["status"] for step in again.json()["data"]["steps"]} == {"cached"}
    assert first.json()["data"]["datasets"][0]["engine"] == {"engine": "sqlite"}
    with sqlite3.connect(tmp_path / "rows.db") as connection:
        connection.execute("insert into rows select * from rows where rowid = 5")
    connection.close()
    changed = here(tmp_path, "run", "--json").json()["data"]
    assert {step["status"] for step in changed["steps"]} == {"executed"}
    assert changed["datasets"][0]["rows"] == 1201


# --- suites of other tools ---

POINTBLANK = {"i": 1, "assertion_type": "col_vals_between", "column": "y", "n": 1200, "n_failed": 0,
              "all_passed": True, "active": True}  # fmt: skip
PANDERA = {"failure_case": "CANARY", "schema_context": "Column", "column": "y",
           "check": "in_range(0, 1)", "check_number": 0, "index": 3}  # fmt: skip


def test_a_suite_counts_for_the_very_rows(here, tmp_path):
    root = project(tmp_path)
    toml = (root / "falaj.toml").read_text()
    (root / "falaj.toml").write_text(toml.replace('["quality"', '["data", "quality"'))
    (root / "good.json").write_text(json.dumps([POINTBLANK]))
    (root / "bad.json").write_text(json.dumps([PANDERA] * 2))
    assert here(root, "run").code == 0
    done = here(root, "data", "take-in", "good.json", "--dataset", "rows", "--full")
    assert done.code == 0 and "data.rows.pointblank.1.y.col_vals_between" in done.out
    assert "pointblank: 1 of 1 checks pass" in done.out
    assert here(root, "gate").code == 0

    bad = here(root, "data", "take-in", "bad.json", "--dataset", "rows")
    assert bad.code == Exit.GATE_FAIL and "2 of 1200 rows break it" in bad.out
    gate = here(root, "gate", "--json")
    assert gate.code == Exit.GATE_FAIL
    checks = {r["check"]: r["verdict"] for r in gate.json()["data"]["results"]}
    assert checks["data.rows.pandera.y.in_range"] == "fail"
    assert (
        checks["data.rows.y.range"] == checks["data.rows.pointblank.1.y.col_vals_between"] == "pass"
    )
    assert "evidence.taken-in" in here(root, "audit", "log").out

    with (root / "rows.csv").open("a") as rows:
        rows.write("0.1,0.2,1,0,JFK\n")
    assert here(root, "run").code == 0
    assert here(root, "gate").code == 0, "what was said of other rows is not said of these"
    kept = b"".join(path.read_bytes() for path in (root / ".falaj").rglob("*") if path.is_file())
    assert b"CANARY" not in kept, "values of rows are kept nowhere"


@pytest.mark.parametrize("text", ["[]", "{}", "<html>", '[{"x": 1}]', '{"meta": {}}', "null"])
def test_what_is_no_report_is_refused(here, tmp_path, text):
    root = project(tmp_path)
    (root / "r.json").write_text(text)
    done = here(root, "data", "take-in", "r.json", "--dataset", "rows")
    assert done.code == Exit.USAGE and "error[data.evidence-unreadable]" in done.err
    assert "pandera, pointblank, great expectations" in done.err


def test_a_dataset_that_is_not_declared(here, tmp_path):
    root = project(tmp_path)
    (root / "r.json").write_text(json.dumps([POINTBLANK]))
    done = here(root, "data", "take-in", "r.json", "--dataset", "none")
    assert "error[data.unknown-dataset]" in done.err


def test_a_broken_warning_is_shown_as_a_warning(here, tmp_path):
    root = project(tmp_path)
    toml = (root / "falaj.toml").read_text()
    (root / "falaj.toml").write_text(toml.replace('["quality"', '["data", "quality"'))
    contract = (root / "rows.odcs.yaml").read_text()
    rule = "quality: [{id: low, metric: nullValues, mustBeGreaterThan: 5, severity: warning}]"
    contract = contract.replace("required: true}", f"required: true, {rule}}}")
    (root / "rows.odcs.yaml").write_text(contract)
    check = here(root, "data", "check")
    assert check.code == 0 and "▲ warning" in check.out and "✕" not in check.out
    assert here(root, "run").code == 0
    gate = here(root, "gate")
    assert gate.code == 0 and "▲ warning" in gate.out and "✕" not in gate.out
    assert "data.rows.low" in gate.out


def test_names_tell_datasets_apart(here, tmp_path):
    root = project(tmp_path, most=0)
    done = here(root, "run")
    assert "error[data.contract-broken]: data.rows.y.range:" in done.err


SUITE = """

class Validate:  # of Pointblank, as far as a reader looks at it
    __module__ = "pointblank.validate"

    def get_json_report(self):
        return REPORT


@step
def look(rows: pl.DataFrame) -> pl.DataFrame:
    falaj.evidence(Validate(), dataset="rows")
    return rows
"""


def test_a_suite_of_an_unknown_dataset_says_which_are_known(here, tmp_path):
    root = write_project(tmp_path)
    text = (root / "pipeline.py").read_text().replace("train(load(),", "train(look(load()),")
    head, pipeline = text.split("@pipeline\n")
    suite = SUITE.replace("REPORT", repr(json.dumps([POINTBLANK]))).replace('"rows")', '"row")')
    (root / "pipeline.py").write_text(f"{head.rstrip()}\n{suite}\n\n@pipeline\n{pipeline}")
    done = here(root, "run")
    assert done.code != 0 and "data.unknown-dataset" in done.err
    assert "did you mean 'rows'?" in done.err and "pipeline.py:" in done.err


def test_a_suite_inside_a_step_reaches_gate_run_page_and_release(here, tmp_path):
    root = write_project(tmp_path, toml=TOML.replace('["quality"', '["data", "quality"'))
    text = (root / "pipeline.py").read_text().replace("train(load(),", "train(look(load()),")
    head, pipeline = text.split("@pipeline\n")

    def told(step):
        suite = SUITE.replace("REPORT", repr(json.dumps([step])))
        (root / "pipeline.py").write_text(f"{head.rstrip()}\n{suite}\n\n@pipeline\n{pipeline}")

    told({**POINTBLANK, "n_failed": 3, "all_passed": False})
    for _ in ("in a process of its own", "from the cache"):
        run = here(root, "run")
        assert run.code == 0, "a failed check is a verdict, not an error"
        assert "data.rows.pointblank.1.y.col_vals_between  ✕ fail" in run.out
    assert here(root, "gate").code == Exit.GATE_FAIL
    assert here(root, "runs", "show", "--html", "run.html").code == 0
    assert "data.rows.pointblank.1.y.col_vals_between" in (root / "run.html").read_text()

    told(POINTBLANK)
    assert here(root, "run").code == 0 and here(root, "gate").code == 0
    assert here(root, "release", "create").code == 0
    card = (root / ".falaj/releases/flight-delay/1.0.0/card.md").read_text()
    assert "### data: pass (required)" in card and "rows.pointblank.1.y" in card


BROKEN = """
@step
def load(*, rows: Dataset) -> pl.DataFrame:
    read = rows.read()
    falaj.log(read=float(len(read)), largest=float(read["a"].max()))
    return read.with_columns(pl.col("a", "b").cast(pl.Float32))
"""


def quarantined(tmp_path, pct, more=""):
    """12 of 1,200 rows have an `a` above the range."""
    root = project(tmp_path)
    toml = (root / "falaj.toml").read_text()
    toml = toml.replace("[gates.quality]", f"quarantine_pct = {pct}\n{more}\n[gates.quality]", 1)
    (root / "falaj.toml").write_text(toml.replace('["quality", ', '["data", "quality", '))
    contract = (root / "rows.odcs.yaml").read_text()
    contract = contract.replace(
        "{name: a, logicalType: number, required: true}",
        "{name: a, logicalType: number, required: true, logicalTypeOptions: {maximum: 50}}",
    )
    (root / "rows.odcs.yaml").write_text(contract)
    lines = (root / "rows.csv").read_text().splitlines()
    for at in range(100, 1201, 100):
        lines[at] = ",".join(["99.5", *lines[at].split(",")[1:]])
    (root / "rows.csv").write_text("\n".join(lines) + "\n")
    code = (root / "pipeline.py").read_text()
    start, end = code.index("@step\ndef load"), code.index("@step\ndef train")
    (root / "pipeline.py").write_text(code[:start] + BROKEN.lstrip() + "\n\n" + code[end:])
    return root


@pytest.mark.parametrize("executor", ["worker", "in-process"])
def test_a_run_reads_what_is_not_in_quarantine(here, tmp_path, executor):
    root = quarantined(tmp_path, 1.0)
    with (root / "falaj.toml").open("a") as file:
        file.write(f'\n[pipelines]\nexecutor = "{executor}"\n')
    done = here(root, "run", "--json")
    assert done.code == 0, done.err
    run = done.json()["data"]
    assert run["metrics"]["read"] == 1188 and run["metrics"]["largest"] < 50
    (kept,) = run["set_aside"]
    assert (kept["rows"], kept["of"], kept["checks"]) == (12, 1200, {"a.range": 12})
    assert run["datasets"][0]["rows"] == 1188
    rows = pl.read_parquet(FileBlobs(root / ".falaj" / "blobs").get(kept["artifact"]))
    assert rows["falaj_row"].to_list() == list(range(100, 1201, 100))
    assert set(rows["a"]) == {99.5} and rows["falaj_broken"].to_list() == [["a.range"]] * 12
    shown = here(root, "runs", "show", "--html", "run.html")
    assert shown.code == 0 and "12 of 1,200" in (root / "run.html").read_text()
    assert "rows: 12 of 1,200 rows set aside (a.range 12)" in here(root, "runs", "show").out
    gate = here(root, "gate", "--json").json()["data"]
    found = {one["check"]: one["verdict"] for one in gate["results"]}
    assert found["data.rows.quarantine"] == "pass" == found["data.rows.a.range"]
    again = here(root, "run", "--json").json()["data"]
    assert {step["status"] for step in again["steps"]} == {"cached"}


def test_a_full_quarantine_stops_the_run_and_keeps_the_rows(here, tmp_path):
    root = quarantined(tmp_path, 0.5)
    done = here(root, "run")
    assert done.code != 0 and "data.quarantine-full" in done.err
    assert "falaj data quarantine rows" in done.err
    run = here(root, "runs", "show", "--json").json()["data"]
    assert run["status"] == "failed" and run["set_aside"][0]["rows"] == 12


def test_the_rows_are_shown_and_written(here, tmp_path):
    root = quarantined(tmp_path, 1.0)
    done = here(root, "data", "quarantine", "rows", "--write", "r.csv")
    assert done.code == 0 and "12 of 1,200 rows (1 %) break the contract" in done.out
    assert "row 100: a.range: a 99.5" in done.out and "up to 1 %" in done.out
    lines = (root / "r.csv").read_text().splitlines()
    assert lines[0] == "falaj_row,falaj_broken,a,b,y,held,origin_airport" and len(lines) == 13
    told = here(root, "data", "check")
    assert "1,188 rows, 12 more are set aside" in told.out
    assert here(root, "data", "quarantine", "rows", "--write", "r.txt").code == Exit.USAGE
    assert here(root, "data", "quarantine", "none").code == Exit.USAGE


def test_values_of_a_personal_dataset_are_not_written(here, tmp_path):
    root = quarantined(tmp_path, 1.0)
    toml = (root / "falaj.toml").read_text()
    (root / "falaj.toml").write_text(toml.replace('"internal"', '"personal"'))
    done = here(root, "data", "quarantine", "rows", "--write", "r.csv", "--json")
    assert done.code == 0
    rows = [line.split(",")[2:] for line in (root / "r.csv").read_text().splitlines()[1:]]
    assert all(cell.startswith("tok:") for row in rows for cell in row)
    assert "99.5" not in done.out


def test_a_sample_is_called_one_everywhere(here, tmp_path):
    root = project(tmp_path)
    done = here(root, "data", "check", "--sample-pct", "25", "--full", "--write", "s.html")
    assert done.code == Exit.INCONCLUSIVE
    assert "look at a sample of 25 %" in done.out and "sampled rows break it" in done.out
    assert "on a sample of 25 %" in (root / "s.html").read_text()
    report = here(root, "data", "check", "--sample-pct", "25", "--json").json()["data"]["reports"]
    assert report[0]["sample_pct"] == 25
    toml = (root / "falaj.toml").read_text()
    more = "sample_pct = 25\nsample_tolerance_pct = 2.0\n\n[gates.quality]"
    (root / "falaj.toml").write_text(toml.replace("[gates.quality]", more))
    told = here(root, "data", "check")
    assert told.code == 0 and "look at a sample of 25 %" in told.out


def test_both_at_once_are_refused(here, tmp_path):
    root = quarantined(tmp_path, 1.0)
    done = here(root, "data", "check", "--sample-pct", "10")
    assert done.code == Exit.USAGE and "data.sample-of-quarantine" in done.err
    both = here(quarantined(tmp_path / "both", 1.0, "sample_pct = 10"), "data", "check")
    assert both.code == Exit.USAGE and "not known from a sample" in both.err

"""`falaj run` and `falaj runs`: repeat, narrow down, compare, read, draw."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from html.parser import HTMLParser

import pytest

from falaj.base.drawing import plot_svg, ticks
from falaj.base.runpage import brief, page

TOML = """
[project]
name = "small"
region = "ae"
[model]
name = "small"
pipeline = "pipeline:main"
task = "binary-classification"
"""
PIPELINE = """
import falaj
from falaj import pipeline, step

@step
def load(n: int) -> list[int]:
    print("loading", n)
    return list(range(n))

@step
def fit(rows: list[int], *, depth: int = 6) -> float:
    for i in range(5):
        falaj.log(loss=1.0 / (i + 1), step=i)
    falaj.log(auc=sum(rows) / 100 + depth / 1000)
    falaj.keep("trees/first.svg", "<svg xmlns='http://www.w3.org/2000/svg'/>")
    falaj.plot("roc <b>", {"x": [0, 1, 2], "y": [0.0, 0.5, 1.0]}, x="x", y="y")
    if depth == 13:
        raise ValueError("unlucky <script>alert(1)</script>")
    return float(depth)

@pipeline
def main(n: int = 4, depth: int = 6) -> float:
    return fit(load(n), depth=depth)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with three good runs and a failed one."""
    root = tmp_path_factory.mktemp("small")
    (root / "falaj.toml").write_text(TOML)
    (root / "pipeline.py").write_text(textwrap.dedent(PIPELINE))
    runs = [
        said(root, "run", "-p", f"n={n}", "-p", f"depth={depth}", "--json")
        for n, depth in ((4, 6), (4, 7), (8, 6))
    ]
    failed = falaj(root, "run", "-p", "depth=13")
    return root, [run["data"] for run in runs], failed


def falaj(root, *words):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(
        [sys.executable, "-m", "falaj", *words],
        cwd=root, capture_output=True, text=True, check=False, timeout=120,
        env={**environment, "COLUMNS": "100"},
    )  # fmt: skip


def said(root, *words):
    done = falaj(root, *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_progress_is_on_stderr_and_the_answer_on_stdout(project):
    root, _, _ = project
    done = falaj(root, "run", "-p", "n=4", "--json")
    assert json.loads(done.stdout)["data"]["status"] == "ok"
    assert [line.split()[:2] for line in done.stderr.splitlines()] == [
        ["cached", "load"], ["cached", "fit"],
    ]  # fmt: skip


def test_on_a_terminal_a_bar_shows_how_far_it_is(project):
    root, _, _ = project
    ours, theirs = os.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "NO_COLOR")}
    with subprocess.Popen(
        [sys.executable, "-m", "falaj", "run", "-p", "n=6"],
        cwd=root, stdout=subprocess.DEVNULL, stderr=theirs,
        env={**environment, "TERM": "xterm", "COLUMNS": "100"},
    ) as child:  # fmt: skip
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # how Linux says that the other end is closed
                break
            seen += part
        os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert child.returncode == 0
    assert re.search(r"[01]/2 .*running load", text) and "executed  load" in text


def test_a_failing_step_prints_few_lines_the_users_line_first(project):
    _, _, failed = project
    lines = failed.stderr.splitlines()
    assert failed.returncode == 2
    error = lines[next(i for i, line in enumerate(lines) if line.startswith("error[")) :]
    assert len(error) <= 20, error
    assert "error[pipelines.step-failed]: fit: ValueError: unlucky" in error[0]
    assert "pipeline.py:18" in error[1]
    assert "Traceback" not in failed.stderr and "site-packages" not in failed.stderr


def test_a_filter_finds_runs_by_metric_and_parameter(project):
    root, runs, _ = project
    found = said(root, "runs", "list", "metrics.auc > 0.06 and params.n = 4", "--json")["data"]
    assert {run["parameters"]["depth"] for run in found} <= {6, 7, 13}
    assert runs[2]["id"] not in {run["id"] for run in found}
    best = said(root, "runs", "list", "--order", "metrics.auc desc", "--limit", "1", "--json")
    assert best["data"][0]["id"] == runs[2]["id"]
    wrong = falaj(root, "runs", "list", "auc >> 1")
    assert wrong.returncode == 2 and "runs.filter" in wrong.stderr


def test_a_run_is_repeated_from_another_and_says_what_differs(project):
    root, runs, _ = project
    again = said(root, "run", "--from", runs[1]["id"], "--json")["data"]
    assert again["parameters"] == runs[1]["parameters"] and again["parent"] == runs[1]["id"]
    assert {step["status"] for step in again["steps"]} == {"cached"}
    told = falaj(root, "run", "--from", runs[1]["id"], "-p", "depth=9")
    assert f"from run {runs[1]['id']}: 1 parts differ" in told.stderr
    assert "fit: parameter depth: 7 -> 9" in told.stderr


def test_only_one_step(project):
    root, _, _ = project
    found = said(root, "run", "--only", "load", "-p", "n=5", "--json")["data"]
    assert [step["step"] for step in found["steps"]] == ["load"] and found["result"] is None
    wrong = falaj(root, "run", "--only", "laod")
    assert wrong.returncode == 2 and "did you mean 'load'?" in wrong.stderr


def test_two_runs_are_compared(project):
    root, runs, _ = project
    rows = said(root, "runs", "diff", runs[0]["id"], runs[1]["id"], "--json")["data"]
    told = {(row["where"], row["what"]) for row in rows}
    assert ("parameters", "depth") in told and ("step fit", "parameter depth: 6 -> 7") in told
    assert not any(where == "step load" for where, _ in told)


def test_the_log_of_a_step_and_of_its_attempts(project):
    root, runs, _ = project
    assert falaj(root, "runs", "log", runs[0]["id"], "load").stdout == "loading 4\n"
    assert falaj(root, "runs", "log", runs[1]["id"], "load").stdout == "loading 4\n"
    found = said(root, "runs", "list", "status = failed and params.depth = 13", "--json")["data"][0]
    log = falaj(root, "runs", "log", found["id"], "fit").stdout
    assert log.startswith("Traceback") and "unlucky" in log
    assert found["steps"][1]["attempts"][0]["reason"].startswith("ValueError")
    for words in (("load", "--attempt", "9"), ("lod",)):
        assert falaj(root, "runs", "log", runs[0]["id"], *words).returncode == 2


class Look(HTMLParser):
    """Which elements and which attributes that load or run anything."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.active = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.active += [
            n
            for n, v in attrs
            if (n in ("src", "href", "action") and not v.startswith("data:image/"))
            or n.startswith("on")
        ]


def test_the_page_of_a_run_holds_all_of_it_and_runs_nothing(project):
    root, runs, _ = project
    assert falaj(root, "runs", "show", runs[0]["id"], "--html", "run.html").returncode == 0
    text = (root / "run.html").read_text()
    seen = Look(text)
    assert {"svg", "polyline", "table"} <= seen.tags and "script" not in seen.tags
    assert seen.active == [] and "roc &lt;b&gt;" in text and "<b>" not in text
    assert runs[0]["id"] in text and "auc" in text
    assert text.count("<polyline") == 2, "the plot, and the loss by its steps"
    assert "img" in seen.tags and "fit: trees/first.svg" in text


def test_a_cached_step_shows_what_it_kept_when_it_ran(project):
    root, runs, _ = project
    again = said(root, "run", "-p", "n=4", "--json")["data"]
    kept = {step["step"]: step["files"] for step in again["steps"]}
    assert kept["fit"].keys() == {"trees/first.svg"}
    assert kept == {step["step"]: step["files"] for step in runs[0]["steps"]}
    assert all(step["peak_mb"] > 5 for step in runs[0]["steps"])


def test_a_kept_file_is_written_out_once_and_missed_when_it_is_gone(project):
    root, runs, _ = project
    words = ("runs", "file", runs[0]["id"], "fit", "trees/first.svg")
    assert falaj(root, *words).returncode == 0
    assert (root / "first.svg").read_bytes().startswith(b"<svg")
    again = falaj(root, *words)
    assert again.returncode != 0 and "--write" in again.stderr
    absent = falaj(root, *words[:-1], "../first.svg")
    assert absent.returncode != 0 and "runs.no-file" in absent.stderr
    (step,) = [one for one in runs[0]["steps"] if one["step"] == "fit"]
    digest = step["files"]["trees/first.svg"].removeprefix("sha256:")
    blob = root / ".falaj" / "blobs" / digest[:2] / digest[2:]
    blob.rename(root / "away")
    gone = falaj(root, *words, "--write", "again.svg")
    (root / "away").rename(blob)
    assert gone.returncode != 0 and "runs.file-gone" in gone.stderr


def test_the_page_of_a_failed_run_escapes_what_was_said(project):
    root, _, _ = project
    found = said(root, "runs", "list", "status = failed and params.depth = 13", "--json")["data"][0]
    falaj(root, "runs", "show", found["id"], "--html", "failed.html")
    text = (root / "failed.html").read_text()
    assert "script" not in Look(text).tags and "unlucky &lt;script&gt;" in text
    error = re.search(r"<pre>(.*?)</pre>", text, re.DOTALL)[1].splitlines()
    assert len(error) <= 20 and "pipeline.py:18" in error[1]


def long_run(steps):
    step = {"step": "s" * 200, "status": "cached", "seconds": 1.0, "why": "<w>" * 900}
    return {
        "id": "R", "status": "ok", "pipeline": "p" * 900, "error": "e" * 90_000 + "\n" * 900,
        "metrics": {f"m{i}{'x' * 300}": 0.123456789 for i in range(500)},
        "steps": [step] * steps, "parameters": {}, "datasets": [], "seed": 1, "started": "",
        "ended": "", "principal": "", "trigger": "", "parent": "",
        "code": {"commit": "", "dirty": True}, "environment": {"lock": ""},
    }  # fmt: skip


def test_the_small_form_stays_small():
    assert len(brief(long_run(5000)).encode()) <= 20_000
    assert "<w>" not in page(long_run(3), [])


@pytest.mark.parametrize("mark", ["line", "bars", "points"])
@pytest.mark.parametrize(
    "columns",
    [
        {"x": (1.0,), "y": (1.0,)},
        {"x": (0.0, 1.0), "y": (-1e300, 1e300)},
        {"x": ("<a>", "b" * 99), "y": (0.0, 0.0)},
        {"x": tuple(map(float, range(2000))), "y": (0.5,) * 2000},
        {"x": (1e-12, 2e-12), "y": (3.0, 4.0)},
    ],
)
def test_any_table_can_be_drawn(mark, columns):
    drawn = plot_svg({"name": "n", "x": "x", "y": "y", "mark": mark, "columns": columns})
    assert drawn.startswith("<svg") and "nan" not in drawn and "inf" not in drawn
    assert "<a>" not in drawn


def test_ticks_are_round_and_hold_all():
    assert ticks(0, 1) == [0, 0.5, 1.0] or len(ticks(0, 1)) <= 7
    for low, high in ((0.13, 97), (-5, 5), (3, 3), (1e9, 1e9 + 1)):
        found = ticks(low, high)
        assert found[0] <= low and found[-1] >= high * (1 - 1e-9) and 2 <= len(found) <= 20

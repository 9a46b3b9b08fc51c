from __future__ import annotations

import tomllib

import msgspec
import pytest

from falaj.base import settings
from falaj.base.errors import Exit, FalajError
from falaj.base.problems import document
from falaj.doors.cli.diagnostics import render
from falaj.facts.project import LearningTable, MoveTable, Project, RolloutTable
from falaj.facts.rollouts import MetricPlan, Mode, RolloutPlan, Strategy
from falaj.links.files.project import config_values, read_project

SMALLEST = """\
[project]
name = "flight-delay"
region = "ae"

[model]
name = "flight-delay"
pipeline = "pipeline:delay"
task = "binary-classification"
"""

WHOLE = (
    SMALLEST
    + """
[[datasets]]
name = "flights"
source = "data/flights/*.parquet"
contract = "contracts/flights.odcs.yaml"
classification = "internal"
purpose = ["operations-forecast"]

[gates.quality]
metric = "roc_auc"
at_least = 0.70
margin_to_champion = 0.01

[gates.bias]
group = "carrier"
metric = "equal_opportunity_ratio"
at_least = 0.80

[environments.production]
target = "local"
region = "ae"
requires = ["data", "quality", "bias", "security"]
approvals = 1

[environments.production.rollout]
strategy = "canary"
steps_pct = [5, 25, 50, 100]
alpha = 0.01
tolerate = 1.0
margin = 1.25
hold = "1m30s"

[monitors.drift]
window = "1d"

[learning]
retrain = true
parameters.month_to = { by = 1, at_most = 12 }

[[links.remotes]]
address = "oci://registry.example.org/team"
region = "ae"
"""
)


def write(tmp_path, text):
    path = tmp_path / "falaj.toml"
    path.write_text(text)
    return path


def refused(tmp_path, text):
    with pytest.raises(FalajError) as caught:
        read_project(write(tmp_path, text))
    return caught.value


def test_the_smallest_project_takes_every_default(tmp_path):
    project = read_project(write(tmp_path, SMALLEST))
    assert project.project.region == "ae"
    assert project.environments == {}
    assert project.learning == LearningTable()


def test_a_whole_project_is_read_from_its_folder(tmp_path):
    write(tmp_path, WHOLE)
    project = read_project(tmp_path)
    production = project.environments["production"]
    assert production.requires == ("data", "quality", "bias", "security")
    assert production.rollout.plan().hold_s == 90.0
    assert project.gates.quality.at_least == 0.7
    assert project.learning.moved({"month_to": 12}) == {"month_to": 12}
    assert project.learning.moved({"month_to": 3, "x": 1}) == {"month_to": 4, "x": 1}


def test_the_plans_defaults_are_those_of_the_fact():
    assert RolloutTable().plan() == RolloutPlan(strategy=Strategy.CANARY)
    assert RolloutTable().plan(Strategy.DIRECT).strategy is Strategy.DIRECT


def test_every_plan_setting_reaches_the_plan(tmp_path):
    text = WHOLE + (
        '[environments.staging]\ntarget = "local"\nrequires = []\n[environments.staging.rollout]\n'
        'strategy = "direct"\nsteps_pct = [10, 100]\nhold = "1s"\nstratum = "2s"\ngrace = "3s"\n'
        'alpha = 0.02\nbeta = 0.03\nmargin = 2.0\ntolerate = 1.5\nlatency_tolerate = 1.6\nlatency_difference = "250ms"\n'
        'margins = { labels = 1.7 }\nslo = { errors = 0.02 }\nprove = ["errors"]\n'
        'min_requests = 7\nmin_time = "8s"\nwarmup = "9s"\nstall = "10s"\n'
        'mode = "advise"\npause_pct = [100]\naa = "11s"\nkey = "header:x-user"\nsticky = true\n'
        'testers = ["role:operator"]\nincident = 0.5\nshadow_pct = 12\n'
        "[environments.staging.rollout.metrics.conversion]\nat_least = 13.0\n"
    )
    plan = read_project(write(tmp_path, text)).environments["staging"].rollout.plan()
    assert plan == RolloutPlan(
        strategy=Strategy.DIRECT,
        steps_pct=(10, 100),
        hold_s=1,
        stratum_s=2,
        grace_s=3,
        alpha=0.02,
        beta=0.03,
        margin=2.0,
        tolerate=1.5,
        latency_tolerate=1.6,
        latency_margin_us=250_000,
        margins={"labels": 1.7},
        slo={"errors": 0.02},
        prove=("errors",),
        min_requests=7,
        min_time_s=8,
        warmup_s=9,
        stall_s=10,
        mode=Mode.ADVISE,
        pause_pct=(100,),
        aa_s=11,
        key="header:x-user",
        sticky=True,
        testers=("role:operator",),
        incident=0.5,
        shadow_pct=12,
        metrics={"conversion": MetricPlan(at_least=13.0)},
    )
    changed = [f for f in RolloutPlan.__struct_fields__ if f != "strategy"]
    default = RolloutPlan(strategy=Strategy.CANARY)
    assert all(getattr(plan, f) != getattr(default, f) for f in changed)


MISTAKES = {  # what is replaced, by what, code, place, part of the message or fix
    "an unknown key": ("alpha = 0.01", "alhpa = 0.01", "unknown-key", (36, 1), "`alpha`"),
    "an unknown table": (
        "[monitors.drift]",
        "[monitor.drift]",
        "unknown-key",
        (41, 2),
        "`monitors`",
    ),
    "a share of 5": (
        "margin_to_champion = 0.01",
        "margin_to_champion = 5",
        "out-of-range",
        (20, 22),
        "0.05",
    ),
    "text for a number": ("approvals = 1", 'approvals = "1"', "wrong-type", (31, 13), "quotes"),
    "true for a number": ("alpha = 0.01", "alpha = true", "wrong-type", (36, 9), "a number"),
    "a number for a table": (
        "[monitors.drift]\nwindow = ",
        "[monitors]\ndrift = 1 #",
        "wrong-type",
        (42, 9),
        "a table",
    ),
    "a table for a number": ("alpha = 0.01", "alpha = { x = 1 }", "wrong-type", (36, 9), "a table"),
    "a number for a list": (
        "steps_pct = [5, 25, 50, 100]",
        "steps_pct = 5",
        "wrong-type",
        (35, 13),
        "a list",
    ),
    "a percentage of 0": ("[5, 25,", "[0, 25,", "out-of-range", (35, 14), "between 1 and 100"),
    "steps that fall": (
        "[5, 25, 50, 100]",
        "[50, 25, 100]",
        "out-of-range",
        (35, 13),
        "rise strictly",
    ),
    "steps without an end": (
        "[5, 25, 50, 100]",
        "[5, 25]",
        "out-of-range",
        (35, 13),
        "end with 100",
    ),
    "a margin below what is tolerated": (
        "tolerate = 1.0",
        "tolerate = 1.5",
        "out-of-range",
        (38, 10),
        "tolerate",
    ),
    "a time without a unit": ('window = "1d"', 'window = "1"', "wrong-type", (42, 10), "30s"),
    "a time too short": (
        'window = "1d"',
        'window = "1s"',
        "out-of-range",
        (42, 10),
        "between 1m and 366d",
    ),
    "a word that is none": (
        'strategy = "canary"',
        'strategy = "cannary"',
        "out-of-range",
        (34, 12),
        "`canary`",
    ),
    "a gate that is none": (
        '"quality", "bias"',
        '"quality", "bais"',
        "out-of-range",
        (30, 32),
        "`bias`",
    ),
    "a gate without a table": (
        '"bias",',
        '"latency",',
        "out-of-range",
        (30, 32),
        "[gates.latency]",
    ),
    "a missing key": ('region = "ae"\n\n[model]', "\n[model]", "missing", (1, 2), "`region`"),
    "an empty region": (
        'region = "ae"\n\n[model]',
        'region = ""\n\n[model]',
        "out-of-range",
        (3, 10),
        "region",
    ),
    "a region that is no country": (
        'region = "ae"\n\n',
        'region = "Dubai"\n\n',
        "out-of-range",
        (3, 10),
        "country",
    ),
    "a name with spaces": (
        'name = "flights"',
        'name = "my flights"',
        "out-of-range",
        (11, 8),
        "small letters",
    ),
    "a pipeline that is a path": (
        '"pipeline:delay"',
        '"pipeline.py"',
        "out-of-range",
        (7, 12),
        "module:function",
    ),
    "not a number": ("alpha = 0.01", "alpha = nan", "out-of-range", (36, 9), "nan"),
    "a metric that is none": (
        "tolerate = 1.0",
        "slo = { eror = 0.1 }",
        "out-of-range",
        (37, 9),
        "`errors`",
    ),
}


@pytest.mark.parametrize(("was", "now", "code", "at", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_its_place(tmp_path, was, now, code, at, words):
    assert was in WHOLE
    error = refused(tmp_path, WHOLE.replace(was, now, 1))
    found = error.problems[0]
    assert [p.code for p in error.problems] == [f"config.{code}"]
    assert words in found.message + found.fix
    assert found.fix
    assert (found.place.line, found.place.column) == at
    assert error.exit == Exit.USAGE


def test_a_missing_table_is_named(tmp_path):
    error = refused(tmp_path, '[project]\nname = "a"\nregion = "ae"\n')
    assert error.code == "config.missing"
    assert "[model]" in error.problems[0].message


def test_a_dataset_that_stands_twice(tmp_path):
    second = '[[datasets]]\nname = "flights"\nsource = "x"\n'
    error = refused(tmp_path, WHOLE + second)
    assert error.problems[0].place.line == WHOLE.count("\n") + 2


def test_all_mistakes_at_once_in_the_order_of_the_file(tmp_path):
    text = WHOLE.replace("alpha = 0.01", "alpha = 7").replace("approvals = 1", "aprovals = 1")
    text = text.replace('name = "flight-delay"', "name = 3", 1).replace(
        "at_least = 0.70", "at_least = 70"
    )
    error = refused(tmp_path, text)
    lines = [p.place.line for p in error.problems]
    assert lines == sorted(lines)
    assert [p.code.split(".")[1] for p in error.problems] == [
        "wrong-type", "out-of-range", "unknown-key", "out-of-range",
    ]  # fmt: skip


def test_at_most_twenty_mistakes(tmp_path):
    error = refused(tmp_path, WHOLE + "".join(f"key{n} = 1\n" for n in range(50)))
    assert len(error.problems) == 20


SYNTAX = {
    "a text without its end": ('a = "x', (1, 7)),
    "a key twice": ("x = 1\nx = 2\n", (2, 6)),
    "a lonely key": ("[a]\nb", (2, 2)),
    "nested beyond reason": ("a = " + "[" * 5000, None),
}


@pytest.mark.parametrize(("text", "at"), SYNTAX.values(), ids=SYNTAX)
def test_what_is_not_toml(tmp_path, text, at):
    error = refused(tmp_path, text)
    assert error.code == "config.syntax"
    if at:
        assert (error.problems[0].place.line, error.problems[0].place.column) == at


def test_what_is_not_utf8(tmp_path):
    (tmp_path / "falaj.toml").write_bytes(b"a = 1\nb = '\xff'\n")
    with pytest.raises(FalajError) as caught:
        read_project(tmp_path)
    assert caught.value.code == "config.syntax"
    assert (caught.value.problems[0].place.line, caught.value.problems[0].place.column) == (2, 6)


def test_a_file_beyond_reason_is_not_read(tmp_path):
    assert refused(tmp_path, "#" * 1_000_001).code == "config.syntax"


def test_windows_line_ends_are_read(tmp_path):
    (tmp_path / "falaj.toml").write_bytes(WHOLE.replace("\n", "\r\n").encode())
    assert read_project(tmp_path) == read_project(write(tmp_path, WHOLE))


def test_no_project(tmp_path):
    for path in (tmp_path, tmp_path / "other" / "falaj.toml"):
        with pytest.raises(FalajError) as caught:
            read_project(path)
        assert caught.value.code == "config.no-project"
        assert "falaj init" in caught.value.problems[0].fix


SECRETS = {
    "an unknown key": "password = 'hunter2'\n",
    "an unknown table": "[environments.production.vault]\nx = 1\ny = 'hunter2'\n",
    "an unknown list": "keys = [\n  1,\n  'hunter2',\n]\nalpha = 5\n",
    "the line before a mistake": "api_key = 'hunter2'\nalpah = 1\n",
    "a broken line": "secret = 'hunter2\n",
    "a broken line of several": "tokens = ['hunter2', \n",
}


@pytest.mark.parametrize("lines", SECRETS.values(), ids=SECRETS)
def test_a_secret_in_the_wrong_place_is_not_shown(tmp_path, lines):
    error = refused(tmp_path, WHOLE + lines)
    assert "hunter2" not in render(error)
    assert "hunter2" not in str(document(error))
    assert "hunter2" not in repr(error.problems)


def test_values_and_where_they_come_from(tmp_path):
    found = {v.path: v for v in config_values(write(tmp_path, WHOLE))}
    assert found["gates.quality.at_least"].origin == "falaj.toml:19"
    assert found["gates.quality.max_reuse"] == ("gates.quality.max_reuse", 20, "default")
    assert found["datasets[0].name"].value == "flights"
    assert found["learning.parameters.month_to.at_most"].origin.startswith("falaj.toml:")
    known = {s.path for s in settings.settings(Project)}
    known |= {path.partition("[]")[0] for path in known}  # a list of tables that is empty
    plain = {p.replace("[0]", "[]").replace("production", "<name>") for p in found}
    assert {p.replace("month_to", "<name>") for p in plain} <= known


def test_the_walk_finds_a_mistake_exactly_where_msgspec_does():
    tree = tomllib.loads(WHOLE)
    assert settings.mistakes(Project, tree) == []
    msgspec.convert(tree, Project)
    for was, now, *_ in MISTAKES.values():
        broken = tomllib.loads(WHOLE.replace(was, now, 1))
        assert settings.mistakes(Project, broken)


def test_a_move_stays_inside_its_limits():
    assert MoveTable(by=-5, at_least=1).moved(3) == 1
    with pytest.raises(TypeError, match="month_to"):
        LearningTable(parameters={"month_to": MoveTable(by=1)}).moved({"month_to": "3"})

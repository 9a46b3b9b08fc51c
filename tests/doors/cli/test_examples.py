"""Every example of every help text is typed, in the order in which a person would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from advisory_records import archive, events, record
from commands import examples, find, leaves, words
from msgspec.structs import replace
from small_project import TOML, write_project

from falaj.app import Works
from falaj.base.errors import Exit
from falaj.facts.access import Action, Resource, ResourceKind
from falaj.facts.runs import Run

# Endless, minutes long, or with a registry beside them: their words are read, and their own tests run them.
READ_ONLY = (
    "falaj demo",
    "falaj demo my-demo --json",
    "falaj up",
    "falaj up --port 9000 --no-worker",
    "falaj serve .falaj/releases/flight-delay/1.0.0",
    "falaj serve release/ --trust trust.json --port 9000 --grpc-port 9001",
    "falaj score 1.0.0 flights.parquet scored --keep id",
    "falaj score release/ rows.csv scored --trust trust.json --format csv",
    "falaj worker --duty rollouts --duty monitors",
    "falaj release push 1.0.0 oci://127.0.0.1:5000/team/delay",
    "falaj release push 1.0.0 oci://r.example/team/delay:stable --move-tag",
    "falaj release pull oci://127.0.0.1:5000/team/delay:1.0.0 pulled",
    "falaj release pull oci://r.example/delay@sha256:0f3... new --trust trust.json",
    "falaj keys add auditor auditor.pem --role gate",
    "falaj keys add ci ca.pem --role release --name spiffe://example.org/ci",
    "falaj keys rewrap",
    "falaj keys rewrap --json",
    'falaj keys erase artifacts/2026-04 -m "asked for by the person" -o april.json',
    'falaj keys erase artifacts/2026-03 -m "kept for two years"',
    "falaj model convert model.pkl --out converted",
    "falaj model convert model.joblib --out converted --sample rows.csv --to onnx",
    "falaj import mlflow models:/loan@champion --evaluation rows --label y",
    "falaj import mlflow loan/3 --evaluation rows --label y --where held=1 --json",
)

# Stories of (example, exit code). Each begins in a place of its own.
EMPTY = (("falaj init my-model", 0),)
EMPTY_AGAIN = (("falaj init my-model --template flights", 0),)
BARE = (
    ("falaj access add layla --role approver", 0),
    ("falaj access add omar --role operator --role viewer", 0),
    ("falaj access list", 0),
    ("falaj access list --json", 0),
    ("falaj keys list", 0),
    ("falaj keys list --json", 0),
    ("falaj keys trust", 0),
    ("falaj keys trust -o trust.json", 0),
    ("falaj keys scopes", 0),
    ("falaj keys scopes --json", 0),
    ("falaj keys create layla --role release", 0),
    ("falaj keys rotate root", 0),
    ('falaj keys revoke layla --kind retired -m "left the team"', 0),
    ("falaj access forget omar", 0),
    ("falaj access forget layla", 0),
    ("falaj access token > token", 0),
    ("falaj access token owner --lifetime 1h > token", 0),
    ("falaj config show", 0),
    ("falaj config show --json", 0),
    ("falaj explain config.unknown-key", 0),
    ("falaj explain access.four-eyes", 0),
)
PREPARED = (
    ("falaj run -p month_to=4 --explain", 0),
    ("falaj run", 0),
    ("falaj gate", 0),
    ("falaj gate --explain --write gate.xml", 0),
    ("falaj model explain", 0),
    ('falaj model explain latest --together "a|b" --html explanation.html', 0),
    ("falaj release create --version 1.1.0", 0),
    ("falaj release create", 0),
    ("falaj model compare --with 1.0.0", 0),
    ("falaj model compare latest --with 1.0.0 --html comparison.html", 0),
    ("falaj release card", 0),
    ("falaj release card 1.0.0 --html card.html", 0),
    ("falaj release list", 0),
    ("falaj release list --json", 0),
    ("falaj release diff 1.0.0", 0),
    ("falaj release diff 1.0.0 1.1.0 --html diff.html", 0),
    ("falaj release show 1.0.0", 0),
    ("falaj release show 1.0.0 --json", 0),
    ("falaj change open", 0),
    ('falaj change open 1.1.0 -e production -m "trained on April too"', 0),
    ("falaj change list", 0),
    ("falaj change list --state awaiting-approval", 0),
    ("falaj change show CHG-0001", 0),
    ("falaj change show CHG-0001 --json", 0),
    ("falaj change take CHG-0004", 0),
    ("falaj change show CHG-0004", 0),
    ('falaj --as layla approve CHG-0001 -m "read the evidence"', 0),
    ("falaj evidence export flight-delay", 0),
    ("falaj evidence export flight-delay -o audit/pack.zip", 0),
    ("falaj evidence export flight-delay --seal -o kept.zip.fenc", 2),
    ("falaj evidence open kept.zip.fenc", 2),
    ("falaj evidence open kept.zip.fenc -o audit/pack.zip", 2),
    ("falaj verify evidence.zip --trust evidence.trust.json", 0),
    ("falaj verify .falaj/releases/flight-delay/1.0.0", 0),
    ("falaj audit log", 0),
    ("falaj audit log --limit 5 --json", 0),
    ("falaj audit list --who owner --type change.", 0),
    ("falaj audit list --object change/CHG-0001 --since 2026-01-01 --json", 0),
    ("falaj audit prove latest", 0),
    ("falaj audit prove latest -o audit/approval.tlog-proof", 0),
    ("falaj audit checkpoint", 0),
    ("falaj audit checkpoint -o audit/2026-03.checkpoint", 0),
    ("falaj audit growth 12", 0),
    ("falaj audit growth 12 -o audit/2026-03.growth", 0),
    ("falaj audit export", 0),
    ("falaj audit export -o audit/log", 0),
    ("falaj audit verify", 0),
    ("falaj audit verify --json", 0),
    ("falaj audit witness list", 0),
    ("falaj audit witness list --json", 0),
    ("falaj audit witness check", 0),
    ("falaj audit witness check --json", 0),
    ("falaj gc --dry-run", 0),
    ("falaj gc --days 90", 0),
    ("falaj keys create layla --role release", 0),
    ("falaj release sign 1.0.0 --as layla", 0),
    ("falaj --as layla release sign", 0),
    ("falaj keys require release 2 -e production", 0),
    ("falaj keys create other-runner --role gate", 0),
    ("falaj keys require gate 2 -e production --witnessed", 0),
    ("falaj keys create gate-runner --role gate --role build", 0),
    ("falaj release show 1.0.0", 0),
    ("falaj keys rotate release-signer", 0),
    ("falaj release show 1.0.0", 0),
    ('falaj keys revoke 1.1.0 --kind withdrawn -m "trained on wrong data"', 0),
    ("falaj release show 1.1.0", Exit.UNVERIFIED),
    ('falaj keys revoke gate-runner --except 1.0.0 -m "laptop stolen"', 0),
    ("falaj release show 1.0.0", 0),
)
REFUSED = (('falaj --as layla reject CHG-0001 -m "read the evidence"', 0),)
REFUSED_ALONE = (('falaj --as layla reject -m "read the evidence"', 0),)
ANSWERING = (  # a canary that no request comes to: it waits until a person ends it
    ('falaj --as layla approve -m "read the evidence"', 0),
    ("falaj rollout start CHG-0001 --watch", 0),
    ("falaj status", 0),
    ("falaj status --json", 0),
    ("falaj who-was-live flight-delay", 0),
    ("falaj who-was-live flight-delay --at 2026-11-24T10:00:00Z", Exit.USAGE),  # before its time
    ("falaj predict a=1 b=0.5", 0),
    (
        "falaj predict hour=18 distance=733",
        Exit.USAGE,
    ),  # the columns of the small project are others
    ("falaj predict flights.csv --model flight-delay --json", Exit.USAGE),  # there is no such file
    ("falaj predict - --url http://127.0.0.1:8080 < rows.json", Exit.USAGE),
    ("falaj drift flight-delay", 0),
    ("falaj drift flight-delay --windows 4 --json", 0),
    ("falaj rollout watch", 0),
    ("falaj rollout plan", 0),
    ("falaj rollout plan -e production --json", 0),
    ("falaj kpi conversion --stable 2000:61", 0),
    ("SECOND", 0),
    ("falaj rollout start", 0),
    ('falaj rollout advance -m "looks odd"', Exit.CONFLICT),  # it moves by itself
    ('falaj rollout advance -e production -m "looks odd"', Exit.CONFLICT),
    ('falaj rollout pause -m "looks odd"', 0),
    ("falaj worker --once", 0),
    ('falaj rollout resume -m "looks odd"', 0),
    ("falaj worker --once", 0),
    ('falaj rollout pause -e production -m "looks odd"', 0),
    ("falaj worker --once", 0),
    ('falaj rollout resume -e production -m "looks odd"', 0),
    ("falaj worker --once", 0),
    ("falaj kpi conversion --stable 1900:57 --canary 100:4 --id 2026-11-24T10:00", 0),
    ('falaj rollout abort -m "looks odd"', 0),
    ('falaj rollout abort -e production -m "looks odd"', 0),
    ("falaj rollout watch RO-0002 --json", Exit.ROLLED_BACK),
    ("falaj rollout replay RO-0002", 0),
    ("falaj rollout replay RO-0002 --json", 0),
    ('falaj down production -m "moved to another machine"', 0),
    ('falaj down production --undo -m "it stays here"', 0),
)
DIRECT = (  # two releases that went straight to all callers: there is a way back
    ('falaj --as layla approve -m "read the evidence"', 0),
    ("falaj rollout start CHG-0001 --watch", 0),
    ("SECOND", 0),
    ("falaj rollout start CHG-0002 --watch", 0),
    ('falaj rollback production -m "wrong data" --no-wait', 0),
    ('falaj rollback production -m "customers complain"', 0),
)
WITHDRAWN = (
    ('falaj change withdraw CHG-0001 -m "a better one comes"', 0),
    ('falaj change withdraw CHG-0001 -m "a better one comes" --json', Exit.CONFLICT),
)
GOVERNED = (  # approved, taken back, approved, live, looked back at; then a standard one
    ('falaj --as layla approve CHG-0001 -m "read the evidence"', 0),
    ('falaj --as layla change retract CHG-0001 -m "I read the wrong report"', 0),
    (
        'falaj --as layla change retract CHG-0001 -m "I read the wrong report" --json',
        Exit.NOT_ALLOWED,
    ),
    ('falaj --as layla approve CHG-0001 -m "read the evidence"', 0),
    ("falaj change calendar", 0),
    ("falaj change calendar -e production --json", 0),
    ("falaj rollout start CHG-0001 --watch", 0),
    ("falaj which-release 6f1c0a52b3d94e870001000000000007", Exit.USAGE),  # of another project
    ("falaj which-release 6f1c0a52b3d94e870001000000000007 --log", Exit.USAGE),
    ("falaj change review CHG-0001", 0),
    ("falaj change close CHG-0001", 0),
    ("falaj change close CHG-0001 --json", Exit.CONFLICT),
    (
        'falaj --as layla change review CHG-0001 -m "a unit changed" --cause units',
        Exit.CONFLICT,
    ),
    ("falaj change templates", 0),
    ("falaj change templates --json", 0),
    ("falaj release create --version 1.1.0", 0),
    ("falaj change open 1.1.0 --template monthly", Exit.NOT_ALLOWED),
    (
        'falaj --as layla change preapprove monthly -m "small, goes back alone"',
        0,
    ),
    (
        'falaj --as layla change preapprove monthly -m "another year" --json',
        Exit.NOT_ALLOWED,
    ),
    ("falaj change open 1.1.0 --template monthly", 0),
    ('falaj change open 1.1.0 --emergency INC-7 -m "wrong prices"', 0),
    ("falaj change metrics", 0),
    ("falaj change metrics -e production --since 2026-01-01 --by-month", 0),
    ("falaj timeline", 0),
    ("falaj timeline flight-delay -e production --svg timeline.svg", 0),
)
LADDER = (
    ("falaj change open 1.0.0 -e production", Exit.NOT_ALLOWED),
    ("falaj change open 1.0.0 -e staging", 0),
    ('falaj --as layla approve CHG-0002 -m "read the evidence"', 0),
    ("falaj rollout start CHG-0002 --watch", 0),
    ("falaj change promote staging", 0),
    ('falaj change promote staging -e production -m "a week without an alert"', 0),
)
RUNS = (
    ("falaj runs list", 0),
    ('falaj runs list "metrics.auc > 0.7 and params.month_to = 4"', 0),
    ('falaj runs list --order "metrics.auc desc" --limit 5', 0),
    ("falaj runs show", 0),
    ("falaj runs show 01J8ZC2T --html run.html", 0),
    ("falaj runs diff 01J8ZC2T", 0),
    ("falaj runs diff 01J8ZC2T 01J8ZD9Q --json", 0),
    ("falaj runs log latest train", 0),
    ("falaj runs log 01J8ZC2T train --attempt 1", 0),
    ("falaj runs file latest train notes.txt", 0),
    ("falaj runs file 01J8ZC2T train notes.txt --write train-notes.txt", 0),
    ("falaj run --from 01J8ZC2T --only train", 0),
)
WAIVING = (
    ("falaj gate", Exit.INCONCLUSIVE),
    ('falaj --as noor waive bias.origin_airport=LGA -m "10 rows a month" --for 30d', 0),
    ('falaj --as noor waive quality.roc_auc -m "more data comes in May"', 0),
)
UNDECIDED = (
    TOML.replace("at_least = 0.70", "at_least = 0.94").replace(
        '"quality", "security"]', '"quality", "bias", "security"]'
    )
    + """
[gates.bias]
group = "origin_airport"
metric = "equal_opportunity_ratio"
at_least = 0.80
"""
)
PROFILED = (
    ("falaj data contract init flights", 0),
    ("falaj data contract init flights -o proposed.odcs.yaml", 0),
    ("falaj data profile flights", 0),
    ("falaj data profile flights --by carrier --write profile.html", 0),
    ("falaj data check", 0),
    ("falaj data check flights --write report.html", 0),
    ("falaj data check flights --sample-pct 10", 0),
    ("falaj data quarantine flights", 0),
    ("falaj data quarantine flights --write rejected.csv", 0),
    ("falaj data take-in validation.json --dataset flights", 0),
    ("falaj data take-in validation.json --dataset flights --full --json", 0),
    ("falaj data contract diff old.odcs.yaml new.odcs.yaml", Exit.GATE_FAIL),
    ("falaj data contract diff old.odcs.yaml new.odcs.yaml --json", Exit.GATE_FAIL),
)
SCANNED = (
    ("falaj scan database show", 0),
    ("falaj scan database build all.zip --keys vulndb-keys", 0),
    ("falaj scan database import advisories.zip --trust advisories.trust.json", 0),
    ("falaj scan database build all.zip -o pypi.zip", 0),
    ("falaj scan database import pypi.zip --json", 0),
    ("falaj scan database show --json", 0),
    ("falaj scan --only dependencies --sarif scan.sarif", Exit.GATE_FAIL),
    ("falaj scan --only dependencies --json", Exit.GATE_FAIL),
)
TESTED = (
    ("falaj test", 0),
    ("falaj test tests -k model --full", 0),
    ("falaj test --show --write tests.xml", 0),
)
STORIES = (
    PROFILED, TESTED, SCANNED,
    WITHDRAWN, GOVERNED, LADDER,
    RUNS, WAIVING, EMPTY, EMPTY_AGAIN, BARE, PREPARED, REFUSED, REFUSED_ALONE, ANSWERING, DIRECT,
)  # fmt: skip


def test_every_example_has_its_place():
    shown = {line for _, command in leaves() for line in examples(command)}
    played = {line for story in STORIES for line, _ in story if line.startswith("falaj ")}
    missing = shown - played - set(READ_ONLY)
    assert missing == set(), "put the new example into a story above"
    assert set(READ_ONLY) <= shown


@pytest.mark.parametrize("line", READ_ONLY)
def test_what_cannot_end_is_read(tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    Path(".falaj/releases/flight-delay/1.0.0").mkdir(parents=True)
    Path("release").mkdir()
    for name in ("trust.json", "model.pkl", "model.joblib", "rows.csv", "auditor.pem", "ca.pem"):
        Path(name).touch()
    command, left = find(words(line))
    command.make_context(command.name, left)


def tell(here, root, story):
    for line, code in story:
        if line == "SECOND":
            another(here, root)
            continue
        done = here(root, *words(line))
        assert done.code == code, f"{line}\n{done.out}\n{done.err}"
        assert "Traceback" not in done.err
        if ">" in line:
            (root / line.rsplit(maxsplit=1)[1]).write_text(done.out)


def another(here, root):
    """Another model, released, asked for and approved."""
    for line in (
        ("run", "-p", "slope=2.0"),
        ("gate",),
        ("release", "create"),
        ("change", "open"),
        ("--as", "layla", "approve", "-m", "read it"),
    ):
        done = here(root, *line)
        assert done.code == 0, f"{line}: {done.err}"


@pytest.mark.parametrize("story", [EMPTY, EMPTY_AGAIN], ids=["init", "init with a template"])
def test_in_an_empty_folder(here, tmp_path, story):
    tell(here, tmp_path, story)
    assert (tmp_path / "my-model" / "falaj.toml").is_file()


def test_in_a_new_project(here, tmp_path):
    root = write_project(tmp_path / "bare")
    tell(here, root, BARE)
    assert (root / "token").read_text().count(".") == 2


def test_in_a_project_with_a_release(here, workspace):
    propose(workspace, {"CHG-0002": "", "CHG-0003": ""})
    (workspace / "audit").mkdir()
    tell(here, workspace, PREPARED)
    assert (workspace / "gate.xml").is_file()
    assert (workspace / "audit" / "pack.trust.json").is_file()


def propose(root, taken):
    """CHG-0004, as a retraining opens it: a person has to take it up."""
    from falaj.journeys import promote

    works = Works.open(root)
    owner = works.access.principal("owner")
    project = Resource(kind=ResourceKind.PROJECT, id="small")
    permit = works.access.permit(owner, Action.RETRAIN, project)
    with works.ground.store.begin() as unit:
        for _ in taken:
            unit.number("change")
        unit.append(works.ground.event("test.numbers", "t", "change", {}))
    made = promote.open_change(
        works.ground, permit, "1.0.0", "production", reason="drift", proposed=True
    )
    works.close()
    assert made.id == "CHG-0004"


@pytest.mark.parametrize("story", [REFUSED, REFUSED_ALONE], ids=["named", "the only one"])
def test_saying_no(here, workspace, story):
    tell(here, workspace, story)
    assert (
        here(workspace, "change", "show", "CHG-0001", "--json").json()["data"]["change"]["state"]
        == "rejected"
    )


def test_runs_that_were(here, workspace):
    """The run of the project under the ids that the examples name."""
    works = Works.open(workspace)
    (run,) = works.ground.store.find(Run)
    with works.ground.store.begin() as unit:
        for number, first in enumerate(("01J8ZC2T", "01J8ZD9Q")):
            unit.add(replace(run, id=f"{first}{'0' * 18}", seed=number))
        unit.append(works.ground.event("run.ok", "t", "run/x", {}))
    works.close()
    tell(here, workspace, RUNS)
    assert (workspace / "run.html").is_file()


def test_what_data_could_not_decide(here, workspace):
    (workspace / "falaj.toml").write_text(UNDECIDED)
    tell(here, workspace, WAIVING)
    told = here(workspace, "gate", "--explain")
    assert told.code == Exit.INCONCLUSIVE, "a waiver lets it through, it does not make it true"
    assert "waived until" in told.out
    assert "more data comes in May" in told.out
    assert here(workspace, "release", "create").code == 0
    assert here(workspace, "change", "open", "1.1.0").code == 0


def test_with_servers_that_answer(here, living):
    metric = "[environments.production.rollout.metrics.conversion]\nslo = 0.1\n"
    (living / "falaj.toml").write_text(TOML + metric)
    tell(here, living, ANSWERING)


def test_going_back_and_forth(here, living):
    direct = TOML.replace(
        "[environments.production.rollout]",
        '[environments.production.rollout]\nstrategy = "direct"',
    )
    (living / "falaj.toml").write_text(direct)
    tell(here, living, DIRECT)


def test_a_change_that_is_not_wanted_any_more(here, workspace):
    tell(here, workspace, WITHDRAWN)


TEMPLATE = """
[changes.templates.monthly]
environment = "production"
owner = "owner"
expires = "2027-06-30"
"""


def test_a_change_and_a_standard_one(here, living):
    (living / "falaj.toml").write_text(TOML + TEMPLATE)
    tell(here, living, GOVERNED)
    assert (living / "timeline.svg").read_text().startswith("<svg ")


def test_from_one_environment_to_the_next(here, living):
    staging = """
[environments.staging]
target = "local"
requires = ["quality", "security"]
approvals = 1

"""
    head, _, tail = TOML.partition("[environments.production]")
    (living / "falaj.toml").write_text(f"{head}{staging}[environments.production]{tail}")
    tell(here, living, LADDER)


def test_with_tests_of_its_own(here, workspace):
    (workspace / "tests").mkdir()
    (workspace / "tests" / "test_model.py").write_text("def test_a(trained_model): pass\n")
    tell(here, workspace, TESTED)
    assert 'tests="1"' in (workspace / "tests.xml").read_text()


def test_with_advisories(here, workspace):
    flaw = record("GHSA-1", "numpy", events(("introduced", "0")))
    archive(workspace / "all.zip", flaw)
    (workspace / "requirements.lock").write_text("numpy==1.0\n")
    tell(here, workspace, SCANNED)
    assert json.loads((workspace / "scan.sarif").read_text())["version"] == "2.1.0"


def test_with_datasets(here, tmp_path):
    named = 'name = "flights"\nsource = "rows.csv"\ncontract = "flights.odcs.yaml"'
    toml = TOML.replace('name = "rows"\nsource = "rows.csv"', named)
    root = write_project(tmp_path / "data", toml=toml)
    rows = (root / "rows.csv").read_text().splitlines()
    words = ["carrier", *(("AA", "UA")[i % 2] for i in range(len(rows) - 1))]
    (root / "rows.csv").write_text("".join(f"{r},{w}\n" for r, w in zip(rows, words, strict=True)))
    head = (
        "apiVersion: v3.1.0\nkind: DataContract\nid: f\nname: f\nversion: 1.0.0\nstatus: active\n"
    )
    for name, column in (("flights", "y"), ("old", "y"), ("new", "a")):
        text = f"{head}schema:\n  - name: flights\n    properties: [{{name: {column}}}]\n"
        (root / f"{name}.odcs.yaml").write_text(text)
    step = {"i": 1, "assertion_type": "rows_distinct", "column": None, "active": True}
    step |= {"n": 1200, "n_failed": 0, "all_passed": True}
    (root / "validation.json").write_text(json.dumps([step]))
    tell(here, root, PROFILED)
    assert (root / "contracts" / "flights.odcs.yaml").is_file()
    assert (root / "profile.html").is_file()

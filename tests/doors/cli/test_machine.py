"""What programs rely on: one document on stdout, its keys, and the exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from commands import leaves
from small_project import TOML

from falaj.base.errors import Exit
from falaj.doors.cli.codes import explanations
from falaj.doors.cli.main import VERBS

GOLDEN = Path(__file__).parent / "golden"

# Fields whose keys are names of the user's own things: what stands below them is not ours.
MAPS = {
    "files", "parameters", "metrics", "details", "parts", "columns", "live", "canary", "numbers",
    "analysis", "margins", "slo", "reference", "value",
}  # fmt: skip
EVENT_DATA = {"data.events[].data"}


def paths(value, at=""):
    """Every path of the document, lists as one."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{at}{key}"
            own = isinstance(inner, dict) and (key in MAPS or f"{at}{key}" in EVENT_DATA)
            if not own:
                yield from paths(inner, f"{at}{key}.")
    elif isinstance(value, list):
        for inner in value:
            yield from paths(inner, at.removesuffix(".") + "[].")


def shape(document):
    return sorted(set(paths(document)))


READING = {  # the schema's name -> what is typed in a project with everything
    "status": ("status",),
    "run": ("run",),
    "run-explain": ("run", "--explain"),
    "gate": ("gate", "--explain"),
    "runs": ("runs", "list"),
    "runs-diff": ("runs", "diff", "FIRST"),  # the id of the oldest run stands there
    "model-explanation": ("model", "explain"),
    "model-comparison": ("model", "compare"),
    "releases": ("release", "list"),
    "release-diff": ("release", "diff", "1.0.0"),
    "advisories": ("scan", "database", "show"),
    "release-view": ("release", "show", "1.0.0"),
    "changes": ("change", "list"),
    "change-view": ("change", "show", "CHG-0001"),
    "drift": ("drift", "flight-delay"),
    "who-was-live": ("who-was-live", "flight-delay"),
    "verify": ("verify", ".falaj/releases/flight-delay/1.0.0"),
    "audit-log": ("audit", "log"),
    "identities": ("access", "list"),
    "config": ("config", "show"),
    "calendar": ("change", "calendar"),
    "change-metrics": ("change", "metrics"),
    "review": ("change", "review", "CHG-0001"),
    "timeline": ("timeline",),
}


def named(here, root, line):
    if "FIRST" not in line:
        return line
    oldest = here(root, "runs", "list", "--json").json()["data"][-1]["id"]
    return tuple(oldest if word == "FIRST" else word for word in line)


@pytest.mark.parametrize(("schema", "line"), READING.items(), ids=READING)
def test_stdout_is_one_document(here, live, schema, line):
    done = here(live, *named(here, live, line), "--json")
    assert done.code == 0, done.err
    assert done.out.count("\n") == 1
    document = done.json()
    assert list(document) == ["schema", "at", "data", "next"]
    assert document["schema"] == f"falaj.{schema}/1"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", document["at"])
    golden = json.loads((GOLDEN / f"{schema}.json").read_text())
    gone = set(golden["keys"]) - set(shape(document))
    assert golden["schema"] == document["schema"]
    assert gone == set(), "fields are only added; another meaning is another schema, /2"


def test_golden_files_and_commands_are_the_same():
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(READING)


def test_everything_that_reads_speaks_json():
    speaking = {
        path
        for path, command in leaves()
        if "--json" in {o for p in command.params for o in p.opts}
    }
    reading = {tuple(w for w in line if not w.startswith("-"))[:2] for line in READING.values()}
    assert all(any(path[:1] == line[:1] for path in speaking) for line in reading)
    dumb = {" ".join(path) for path, _ in leaves()} - {" ".join(path) for path in speaking}
    assert dumb == {
        "init", "up", "change take", "rollout start", "rollout pause", "rollout resume",
        "rollout abort", "rollout advance", "rollback", "down", "kpi", "serve", "worker", "evidence export", "access add",
        "access token", "explain", "runs log", "runs file", "release card",
        "audit prove", "audit growth", "audit checkpoint", "audit export",
        "keys create", "keys add", "keys rotate", "keys revoke", "keys require", "keys trust",
        "keys erase", "access forget", "evidence open",
    }, "a command that reads has --json"  # fmt: skip


def test_changing_commands_answer_in_json_too(here, workspace):
    for line, schema in (
        (("gate",), "gate"),
        (("release", "create", "--version", "2.0.0"), "release"),
        (("change", "open", "2.0.0"), "change"),
        (("--as", "layla", "approve", "CHG-0002", "-m", "read it"), "change"),
    ):
        done = here(workspace, *line, "--json")
        assert done.code == 0, done.err
        assert done.json()["schema"] == f"falaj.{schema}/1"


def test_a_watch_says_one_object_a_line_and_marks_the_last(here, live):
    done = here(live, "rollout", "watch", "RO-0001", "--json")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["final"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1]["rollout"]["phase"] == "promoted"


FAILING = {
    "no such change": (("change", "show", "CHG-9999"), Exit.USAGE, "store.no-change"),
    "no such model there": (("who-was-live", "other"), Exit.USAGE, "rollouts.nothing-live"),
    "not a role": (("--as", "zayed", "run"), Exit.NOT_ALLOWED, "access.denied"),
    "an own change": (("approve", "CHG-0001", "-m", "x"), Exit.NOT_ALLOWED, "access.four-eyes"),
    "an own change, another account": (
        ("--as", "owner-2", "approve", "CHG-0001", "-m", "x"), Exit.NOT_ALLOWED, "access.four-eyes",
    ),
    "nobody": (("--as", "nobody", "status"), Exit.NOT_ALLOWED, "access.unknown-identity"),
    "a version that is taken": (
        ("release", "create", "--version", "1.0.0"), Exit.CONFLICT, "releases.version-taken",
    ),
    "a parameter that is none": (("run", "-p", "colour=1"), Exit.USAGE, "pipelines.no-such-parameter"),
    "an option that is none": (("status", "--colour"), Exit.USAGE, "cli.usage"),
    "a verb that is none": (("statsu",), Exit.USAGE, "cli.usage"),
    "nothing to choose from": (("--as", "layla", "approve", "-m", "x"), Exit.USAGE, "cli.usage"),
    "a limit of nothing": (("audit", "log", "--limit", "0"), Exit.USAGE, "cli.usage"),
}  # fmt: skip


@pytest.mark.parametrize(("line", "code", "problem"), FAILING.values(), ids=FAILING)
def test_a_failure_is_one_problem(here, live, line, code, problem):
    done = here(live, *line, "--json")
    told = done.json()
    assert (done.code, told["code"]) == (code, problem), done.err
    assert told["exit"] == done.code
    assert set(told) >= {"type", "title", "status", "detail", "code", "fix", "place", "errors"}
    assert told["code"] in explanations()
    assert done.err, "people read the same on stderr"
    assert "Traceback" not in done.err


def test_a_mistake_in_the_project_file_has_its_place(here, workspace):
    file = workspace / "falaj.toml"
    file.write_text(
        file.read_text().replace(
            "at_least = 0.70", "at_least = 0.70\nmargin_to_champoin = 'hunter2'"
        )
    )
    done = here(workspace, "status", "--json")
    told = done.json()
    assert done.code == Exit.USAGE
    assert told["code"] == "config.unknown-key"
    assert told["place"]["file"].endswith("falaj.toml")
    assert told["place"]["line"] > 1
    assert "margin_to_champion" in str(told)
    assert "hunter2" not in done.out + done.err


def approved(here, root):
    assert here(root, "--as", "layla", "approve", "-m", "read it").code == 0


def worse(here, root):
    assert here(root, "run", "-p", "slope=-1.0").code == 0


def undecided(_here, root):
    (root / "falaj.toml").write_text(TOML.replace("at_least = 0.70", "at_least = 0.94"))


def damaged(_here, root):
    (path,) = (root / ".falaj/releases/flight-delay/1.0.0/model").glob("*.onnx")
    path.chmod(0o600)
    path.write_bytes(path.read_bytes() + b"x")


def nothing(_here, _root):
    """The prepared project as it is."""


RELEASE = ".falaj/releases/flight-delay/1.0.0"
ENDS = {
    "0 fine": (nothing, ("gate",), Exit.OK),
    "2 usage": (nothing, ("gate", "--colour"), Exit.USAGE),
    "2 configuration": (nothing, ("gate", "-e", "moon"), Exit.USAGE),
    "3 the gate fails": (worse, ("gate",), Exit.GATE_FAIL),
    "3 as explained again": (lambda h, r: (worse(h, r), h(r, "gate")), ("gate", "--explain"), 3),
    "4 a person has to act": (nothing, ("rollout", "start", "CHG-0001"), Exit.WAITS),
    "6 not allowed": (nothing, ("approve", "CHG-0001", "-m", "x"), Exit.NOT_ALLOWED),
    "7 a file differs": (damaged, ("verify", RELEASE), Exit.UNVERIFIED),
    "7 shown again": (damaged, ("release", "show", "1.0.0"), Exit.UNVERIFIED),
    "7 nothing is rolled out": (
        lambda h, r: (approved(h, r), damaged(h, r)), ("rollout", "start"), Exit.UNVERIFIED,
    ),
    "8 a conflict": (nothing, ("release", "create", "--version", "1.0.0"), Exit.CONFLICT),
    "9 inconclusive": (undecided, ("gate",), Exit.INCONCLUSIVE),
}  # fmt: skip


@pytest.mark.parametrize(("before", "line", "code"), ENDS.values(), ids=ENDS)
def test_exit_codes(here, workspace, before, line, code):
    before(here, workspace)
    done = here(workspace, *line)
    assert done.code == code, f"{done.out}\n{done.err}"


def test_a_gate_that_does_not_pass_still_prints_its_one_document(here, workspace):
    worse(here, workspace)
    done = here(workspace, "gate", "--json")
    assert done.code == Exit.GATE_FAIL
    assert done.json()["data"]["verdict"] == "fail"
    wanted = here(workspace, "release", "create")
    assert wanted.code == 0, "evidence is evidence: it may say no"
    refused = here(workspace, "change", "open", "1.1.0", "--json")
    assert refused.code == Exit.GATE_FAIL
    assert refused.json()["exit"] == Exit.GATE_FAIL


def test_the_exit_codes_of_the_program_are_those_of_the_process(apart, workspace):
    """What runs in a test's own process is what a shell sees."""
    assert apart(workspace, "approve", "CHG-0001", "-m", "x").code == Exit.NOT_ALLOWED
    done = apart(workspace, "status", "--json")
    assert done.code == 0
    assert done.json()["schema"] == "falaj.status/1"
    assert apart(workspace, "statsu").code == Exit.USAGE
    assert "status" in VERBS

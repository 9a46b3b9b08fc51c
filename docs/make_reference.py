"""Make the reference pages that stand in the source already: python docs/make_reference.py."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from falaj.base.settings import Setting, settings
from falaj.doors.api.app import PAGES as ROUTES
from falaj.doors.cli.main import VERBS, cli
from falaj.facts.changes import ChangeState
from falaj.facts.project import Project
from falaj.facts.rollouts import Phase
from falaj.facts.runs import RunStatus
from falaj.rollouts.rules import Verb

HERE = Path(__file__).parent / "reference"
WIDTH = 88


# --- falaj.toml ---

PROJECT = '''\
# falaj.toml

One typed tree. An unknown key is an error, with its place and the nearest name; all mistakes of a
file are shown at once. Times are texts with a unit: `30s`, `5m`, `12h`, `1d`. `[]` stands for each
element of a list of tables, `<name>` for a name of your choice. Secrets never stand in this file.
`falaj config show` prints each value in force and where it came from.

The file is read like this, and every mistake carries its place:

```python
from pathlib import Path
from typing import Any
from tempfile import TemporaryDirectory

from falaj.base.errors import FalajError
from falaj.links.files.project import config_values, read_project

TEXT = """
[project]
name = "flight-delay"
region = "ae"

[model]
name = "flight-delay"
pipeline = "pipeline:delay"
task = "binary-classification"
"""

with TemporaryDirectory() as folder:
    file = Path(folder) / "falaj.toml"
    file.write_text(TEXT)
    assert read_project(file).model.name == "flight-delay"
    assert config_values(file)[0] == ("project.name", "flight-delay", "falaj.toml:3")

    file.write_text(TEXT + "purpos = 'to plan crews'")
    try:
        read_project(file)
    except FalajError as error:
        assert error.code == "config.unknown-key"
        assert str(error.problems[0].place) == "falaj.toml:10:1"
        assert error.problems[0].fix == "did you mean `purpose`?"
```
'''


def project_page() -> str:
    lines = [PROJECT]
    for table, rows in groupby(settings(Project), key=table_of):
        lines += [f"## {table}", "", "| key | value | default | what it is |", "|---|---|---|---|"]
        lines += [row(setting) for setting in rows]
        lines.append("")
    return "\n".join(lines)


def table_of(setting: Setting) -> str:
    home = setting.path.rpartition(".")[0]
    return f"[[{home.removesuffix('[]')}]]" if home.endswith("[]") else f"[{home}]"


def row(setting: Setting) -> str:
    key = setting.path.rpartition(".")[2]
    default = setting.default if setting.default in ("required", "none") else f"`{setting.default}`"
    return cells(f"`{key}`", setting.kind, default, setting.about)


# --- the command line ---

COMMANDS = """\
# Commands

`falaj --help` shows the verbs by what one does with them; each one ends its own help with examples.
Every command that reads takes `--json` and then prints one document; [exit codes](exit-codes.md) are
a contract. Commands work on the project in this folder or above; with `FALAJ_URL` (and
`FALAJ_TOKEN_FILE`) they speak to a server instead. `FALAJ_CONFIG` names another project folder,
`NO_COLOR` and `CI` do what they do everywhere.
"""


def commands_page() -> str:
    lines = [COMMANDS]
    sections = [(section, name) for name, (section, _) in VERBS.items()]
    for section, verbs in groupby(sections, key=lambda pair: pair[0]):
        lines += [f"## {section}", ""]
        for _, name in verbs:
            for words, command in commands(name):
                lines += [f"### {words}", "", "```text", help_of(words, command), "```", ""]
    return "\n".join(lines)


def commands(name: str) -> Iterator[tuple[str, click.Command]]:
    """A verb, and each verb below it."""
    verb = cli.get_command(click.Context(cli), name)
    assert verb is not None
    yield f"falaj {name}", verb
    if isinstance(verb, click.Group):
        for below, command in sorted(verb.commands.items()):
            yield f"falaj {name} {below}", command


def help_of(words: str, command: click.Command) -> str:
    context = click.Context(command, info_name=words, terminal_width=WIDTH, **SETTINGS)
    text = command.get_help(context)
    return "\n".join(line.rstrip() for line in text.splitlines())


SETTINGS = {"help_option_names": ["-h", "--help"]}


# --- the API of the control plane ---

API = """\
# API of the control plane

What the command line speaks, in its own process or over HTTP; `falaj up` serves it. Facts are JSON as
they stand in the source (`src/falaj/facts/`); errors are RFC 9457 problems with `code`, `why`, `fix`
and `place`. A route cannot be declared without the permission that it needs, and a caller proves who
he is by a bearer token (`falaj access token`). The schema of a running server is at `/openapi.json`.
"""


def api_page() -> str:
    lines = [API, cells("method", "path", "needs", "on", "what it does"), "|---|---|---|---|---|"]
    found = []
    for handler in (handler for page in ROUTES for handler in page.ROUTES):
        about = (handler.fn.__doc__ or handler.fn.__name__.replace("_", " ")).strip()
        first = about.partition("\n")[0].strip().rstrip(".")
        needs, on = handler.opt["needs"], handler.opt["on"]
        for path in sorted(handler.paths):
            method = min(handler.http_methods - {"HEAD", "OPTIONS"})
            plain = path.replace(":str", "")
            found.append((plain, cells(method, f"`{plain}`", str(needs), str(on), first)))
    return "\n".join([*lines, *(line for _, line in sorted(found)), ""])


# --- events ---

EVENTS = """\
# Events

Every change of state writes its event in the same transaction. Events are CloudEvents 1.0, in one
order; their canonical bytes are the leaves of the audit log, a Merkle tree in the form of RFC 6962.
`falaj audit log` prints them, `GET /events` reads them. `type` stands with `falaj.` before it;
`subject` is the object, `actor` the pseudonym of a person or `worker:<id>`. `data` holds digests, ids
and counts, never a row and never a name. A type is never reused for another meaning.
"""

# type -> (subject, what happened, what `data` says)
HAPPENINGS = {
    "principal.added": ("principal", "an identity was added", "roles, hint of its key"),
    "person.forgotten": ("principal", "who stood behind a pseudonym was erased", "how many remarks"),
    "token.issued": ("principal", "a bearer token was made", "roles, hint of its key"),
    "access.denied": ("what was asked for", "the policy said no", "action, code, digest of the policy"),
    "run.started": ("run", "a pipeline began", ""),
    "model-version.made": ("model", "a run made a model version", "digest of its files, run"),
    "gate.checked": ("model", "a model was measured against its gates", "report, verdict, policy"),
    "tests.finished": (
        "test report", "the project's own tests were run", "verdict, digest of the code, counts"
    ),
    "evidence.taken-in": (
        "dataset", "the report of another tool's suite was taken in", "tool, version, file, checks"
    ),
    "gate.waived": ("model", "the risk role let an open check through", "report, check, reason, expiry"),
    "release.leaving": (
        "release",
        "a release is about to be brought to a place of others",
        "address, region",
    ),
    "release.pushed": (
        "release",
        "a release lies whole in a place of others",
        "address, region, digest there, tag",
    ),
    "release.scoring": ("release", "a release is about to answer a whole table", "last words of input and output"),
    "release.scored": ("release", "a release has answered a whole table", "job, digests of input and output, rows, rejected"),
    "release.created": ("release", "a release was built and signed", "version, evidence, run, report"),
    "change.opened": ("change", "somebody, or a retraining, asked for a change", "release, evidence, risk"),
    "change.approval-retracted": ("change", "somebody took an own approval back", "approval, release, evidence"),
    "change.refused": ("what was asked for", "a rule of changes said no", "what was asked, codes of the rules, digest of the policy"),
    "change.gates-made-up": ("change", "gates that an emergency had put off have passed", "gates, report"),
    "review.opened": ("change", "a change ended that people look back at", "outcome, due, digest of the numbers"),
    "template.signed": ("template", "somebody signed a template of standard changes", "digest of its words, expiry"),
    "change.approvals-voided": ("change", "new evidence voided its approvals", "release, evidence, risk"),
    "advisories.imported": ("advisories", "a signed database of advisories was taken in", "digest, built_at, records, signer"),
    "scan.finished": ("scan", "somebody scanned lock and code", "verdict, digest, lock, database"),
    "release.rescanned": ("release", "a release was held against newer advisories", "scan, database, findings, new ones"),
    "workspace.swept": ("project", "artifacts and cache entries that nothing needs were removed", "how many, how large"),
    "rollout.started": ("rollout", "an approved change began its way", "release, previous, change, digest of what policy allowed"),
    "rollback.started": ("rollout", "a person goes back to the release before", "release, previous, change"),
    "rollout.decided": ("rollout", "the analysis was asked and answered", "action, outcome, every number"),
    "plan.issued": ("environment", "a traffic plan was signed", "sequence number, digest"),
    "environment.down": ("environment", "a person stopped all its servers", ""),
    "environment.up": ("environment", "what was stopped may stand again", ""),
    "kpi.reported": ("environment", "the user's system counted a metric", "metric, canary, stable"),
    "release.tampered": (
        "environment",
        "a release that answers was changed in its folder; it was set aside and put back",
        "release, files",
    ),
    "server.drifted": ("environment", "a server is not as declared any more", "server, what, boot"),
    "server.repaired": ("environment", "a server is as declared again", "server, what, boot"),
    "server.seen": ("environment", "servers are ready for the first time", "servers"),
    "live.moved": ("environment", "the target answers with another release or share", "stable, canary, weight"),
    "alias.moved": ("model", "champion points to another release", "alias, release"),
    "monitor.read": ("monitor", "a monitor read on in the log", "how far, late and skipped rows"),
    "window.closed": ("monitor", "a window was compared with the reference", "rows, violated columns"),
    "alert.opened": ("alert", "drift, too many wrong answers, a rollback, or an advisory", "kind, release, reasons"),
    "alert.closed": ("alert", "a release that it does not speak of went live, or its advisories are gone", "kind, live release"),
    "retraining.proposed": ("proposal", "an alert asks for a retraining", "alert, model"),
    "retraining.advanced": ("proposal", "a proposal came a step further", "run, verdict, release, change"),
    "release.signed": ("release", "a further signature was added", "hint of the key"),
    "key.created": ("key", "a key was made, or got more roles", "its hint, roles"),
    "key.admitted": ("key", "a key or an authority from elsewhere is trusted", "its hint, roles"),
    "key.rotated": ("key", "a new key took the place of another", "its hint"),
    "key.revoked": ("key", "trust was taken back", "kind, hints or release, reason"),
    "trust.changed": ("key", "rules of the trust root, or its next version", "role and threshold, or version"),
    "scope.rewrapped": ("key", "scope keys were wrapped by a new key", "its id, how many"),
    "scope.erased": ("key", "the key of a scope was erased", "versions, both times, reason"),
    "evidence.exported": ("model", "an evidence pack was written", "releases"),
    "evidence.opened": ("evidence", "a sealed evidence pack was opened", "scope"),
    "log.witness-refused": ("witness", "a witness refused a checkpoint of this log", "code"),
    "log.witness-confirmed": ("witness", "a witness that refused holds the log again", "size"),
    "log.fork-seen": ("log", "another log that is witnessed here signed what it did not continue", "size, root, why"),
}  # fmt: skip

# Families whose last word is a state: beginning -> (states, subject, what happened, data)
FAMILIES: dict[str, tuple[type[StrEnum], str, str, str]] = {
    "run.": (RunStatus, "run", "a run is now {}", "commit, datasets"),
    "change.": (ChangeState, "change", "a change is now {}", "release, evidence, risk"),
    "rollout.": (Phase, "rollout", "a rollout is now {}", "release, previous, change"),
    "rollout.asked-to-": (Verb, "rollout", "a person asked to {}", "release, previous, change"),
}


def happenings() -> dict[str, tuple[str, str, str]]:
    found = dict(HAPPENINGS)
    for beginning, (states, subject, what, data) in FAMILIES.items():
        for state in states:
            words = str(state).replace("-", " ")
            found.setdefault(f"{beginning}{state}", (subject, what.format(words), data))
    return found


def events_page() -> str:
    lines = [EVENTS, cells("type", "subject", "what happened", "data"), "|---|---|---|---|"]
    lines += [cells(f"`{name}`", *rest) for name, rest in sorted(happenings().items())]
    return "\n".join([*lines, ""])


def cells(*found: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in found)} |"


PAGES: dict[str, Callable[[], str]] = {
    "falaj-toml.md": project_page,
    "commands.md": commands_page,
    "api.md": api_page,
    "events.md": events_page,
}

# --- the README: the help as it is, numbers as they were measured ---

README = HERE.parent.parent / "README.md"
RESULTS = HERE.parent.parent / "bench" / "results"
SHOWN = re.compile(r"(?<=^```text\n)Usage: falaj .*?(?=\n```$)", re.MULTILINE | re.DOTALL)
NUMBERS = re.compile(r"<!-- (back|pack|peek|startup) -->\n.*?<!-- ends -->", re.DOTALL)


def readme(page: str) -> str:
    """The README with the present `falaj --help`, and the numbers of benchmarks and excerpt."""
    context = click.Context(cli, info_name="falaj", terminal_width=100, **SETTINGS)
    shown = "\n".join(line.rstrip() for line in cli.get_help(context).splitlines())
    told = {"back": back(page), "pack": pack(page), "peek": peek(), "startup": startup()}
    page = SHOWN.sub(lambda _: shown, page)
    return NUMBERS.sub(lambda m: f"<!-- {m[1]} -->\n  {told[m[1]]} <!-- ends -->", page)


def back(page: str) -> str:
    """How soon the harmful release of the excerpt was gone, and what it cost."""
    stage = next(r for r in results("journey") if r["metric"] == "harmful-rollout")
    chapter = page[page.index("Its canary goes back by itself") :]
    (everything, harmful) = re.findall(r"([\d,]+) answers .*?1\.2\.0 ([\d,]+)\)", chapter)[0]
    return (
        f"It went back {stage['ours']:.0f} seconds after its rollout began, judged by labels that came a\n"
        f"  day late: {harmful} of {everything} answers were its own. `make bench NAME=journey`"
    )


def pack(page: str) -> str:
    files = re.findall(r"(\d+) files as listed and sealed", page)[0]
    events = re.findall(r"(\d+) events lead to root", page)[0]
    return (
        f"`falaj verify` holds {files} files and {events} events of the demo against one signed root; it\n"
        "  needs neither the workspace nor a network."
    )


def peek() -> str:
    """Shares of days on which a harmless release was sent back, over the scenarios."""
    rows = [r for r in results("stats") if r["metric"].startswith("false rollback")]
    tests = [r for r in rows if r["peer_name"] == "z each minute"]
    ours = [r["ours"] for r in tests]
    theirs = [r["peer"] for r in tests]
    return (
        f"With `alpha` at 1 % and a look each minute of a day: {min(ours):g} to {max(ours):g} % of simulated\n"
        f"  days in {len(tests)} scenarios, where a z-test at each look sends back {min(theirs):g} to "
        f"{max(theirs):g} %. `make bench NAME=stats`"
    )


def startup() -> str:
    rows = {(r["metric"], r["peer_name"]): r for r in results("startup")}
    mlflow = rows["falaj --help", "mlflow --help"]
    zenml = rows["falaj --help", "zenml --help"]
    status = rows["falaj status", "bare python"]
    return (
        f"`falaj --help` costs {mlflow['ours']:,.0f} ms of CPU, MLflow's {mlflow['peer']:,.0f}, ZenML's\n"
        f"  {zenml['peer']:,.0f}; `falaj status`, the whole application in one process, {status['ours']:,.0f}. "
        "`make bench NAME=startup`"
    )


def results(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((RESULTS / f"{name}.json").read_text())["rows"]
    return rows


if __name__ == "__main__":
    for name, page in PAGES.items():
        (HERE / name).write_text(page())
    README.write_text(readme(README.read_text()))

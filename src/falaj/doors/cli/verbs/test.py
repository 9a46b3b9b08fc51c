"""falaj test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from falaj.base.errors import Exit
from falaj.doors.cli import terminal
from falaj.doors.cli.client import connect

__all__ = ["command"]

ENDS = {
    "pass": Exit.OK,
    "fail": Exit.GATE_FAIL,
    "inconclusive": Exit.INCONCLUSIVE,
    "error": Exit.INTERNAL,
}
WIDEST = 160  # of a message in the table; the report holds more
WORDS = {"passed": "pass", "failed": "fail", "xfailed": "skipped", "xpassed": "pass"}


@click.command
@click.argument("paths", nargs=-1)
@click.option("-k", "keyword", default="", metavar="EXPRESSION", help="Only tests of these names.")
@click.option("--run", default="", help="The tests ask the model of this run; the newest's else.")
@click.option("--show", is_flag=True, help="Show the newest report; run nothing.")
@click.option("--full", is_flag=True, help="Show tests that passed, too.")
@click.option("--log", is_flag=True, help="Also print all that pytest said.")
@click.option(
    "--write",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the report as JUnit XML.",
)
@terminal.json_option
@click.pass_context
def command(
    ctx: click.Context,
    paths: tuple[str, ...],
    keyword: str,
    run: str,
    show: bool,
    full: bool,
    log: bool,
    write: Path | None,
    machine: bool,
) -> None:
    """Run the project's own tests of its data and models.

    A report on all tests is evidence for the gate `tests` of models made by this very code. Ends
    with 0 when they pass, 3 when one fails, 1 when they break, 9 when nothing was tested.

    \b
    Examples:
      falaj test
      falaj test tests -k model --full
      falaj test --show --write tests.xml
    """
    client = connect(ctx)
    if show:
        found = client.get("/tests", limit=1)
        if not found:
            raise click.UsageError("the tests were not run yet; run `falaj test`")
        report = found[0]
    else:
        report = client.post("/tests", {"paths": paths, "keyword": keyword, "run": run})
    if write:
        from falaj.base.files import write_atomic

        write_atomic(write, client.raw("GET", f"/tests/{report['id']}/junit"))
        click.echo(f"wrote {write}", err=True)
    if machine:
        terminal.as_json("test", report)
    else:
        if log:
            click.echo(client.raw("GET", f"/tests/{report['id']}/log").decode(), nl=False)
        told(report, full=full)
    ctx.exit(ENDS[report["verdict"]])


def told(report: dict[str, Any], *, full: bool) -> None:
    shown = [t for t in report["tests"] if full or t["outcome"] not in ("passed", "xpassed")]
    terminal.table(
        [
            (
                test["name"],
                marked(test["outcome"]),
                f"{test['seconds']:.2f} s",
                short(test["message"]),
            )
            for test in shown
        ],
        ("test", "outcome", "time", "why") if shown else (),
    )
    if report["error"]:
        click.echo(report["error"], err=True)
    click.echo(f"{briefly(report)} in {report['seconds']:.1f} s{about(report)}")
    if not report["tests"] and not report["error"]:
        click.echo("no tests were found: write tests/test_....py with functions test_...")
    click.echo(terminal.mark(report["verdict"]))


def short(message: str) -> str:
    text = " ".join(message.split())
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def marked(outcome: str) -> str:
    word = WORDS.get(outcome, outcome)
    return terminal.mark(word).replace(word, outcome)


def briefly(report: dict[str, Any]) -> str:
    """How many of each outcome."""
    outcomes = [test["outcome"] for test in report["tests"]]
    counts = {name: outcomes.count(name) for name in dict.fromkeys(outcomes)}
    return ", ".join(f"{number} {name}" for name, number in counts.items()) or "0 tests"


def about(report: dict[str, Any]) -> str:
    code = f"; code {terminal.short(report['tree'])}" if report["tree"] else ""
    commit = report["code"]["commit"]
    if commit:
        code += f", commit {commit[:12]}" + (" with changes" if report["code"]["dirty"] else "")
    chosen = " ".join(report["selection"])
    return code + (f"; only {chosen}: no evidence for a gate" if chosen else "")

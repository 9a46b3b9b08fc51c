"""falaj runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from falaj.doors.cli import terminal
from falaj.doors.cli.client import connect

__all__ = ["command"]

MOST_SAID = 15


@click.group("runs")
def command() -> None:
    """List, show and compare runs; read what a step printed."""


@command.command("list")
@click.argument("where", required=False, default="")
@click.option(
    "--order", default="", metavar="FIELD", help="metrics.NAME or params.NAME, asc or desc."
)
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many."
)
@terminal.json_option
@click.pass_context
def list_all(ctx: click.Context, where: str, order: str, limit: int, machine: bool) -> None:
    """List runs, newest first, or those that meet a filter.

    \b
    Examples:
      falaj runs list
      falaj runs list "metrics.auc > 0.7 and params.month_to = 4"
      falaj runs list --order "metrics.auc desc" --limit 5
    """
    found = connect(ctx).get("/runs", limit=limit, where=where, order=order)
    if machine:
        return terminal.as_json("runs", found)
    rows = [
        (run["id"], run["status"], terminal.ago(run["started"]), run["pipeline"], briefly(run))
        for run in found
    ]
    terminal.table(rows, ("run", "status", "started", "pipeline", "metrics"))
    if not rows:
        click.echo("no run meets this" if where else "no runs yet; make one: falaj run")
    return None


def briefly(run: dict[str, Any]) -> str:
    found = list(run["metrics"].items())
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return ", ".join(f"{name} {value:.4g}" for name, value in found[:3]) + more


@command.command
@click.argument("run", default="latest")
@click.option(
    "--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write a page."
)
@terminal.json_option
@click.pass_context
def show(ctx: click.Context, run: str, page: Path | None, machine: bool) -> None:
    """Show a run: steps, parameters, metrics, and why it failed.

    \b
    Examples:
      falaj runs show
      falaj runs show 01J8ZC2T --html run.html
    """
    client = connect(ctx)
    found = client.get(f"/runs/{run}")
    if page is not None:
        write_page(client, found, page)
    if machine:
        return terminal.as_json("run", found)
    if page is not None:
        return click.echo(f"wrote {page}")
    from falaj.doors.cli.verbs.run import show as shown

    for name, value in found["parameters"].items():
        click.echo(f"  {name} = {value}")
    shown(found)
    say_kept(found, client.get(f"/runs/{found['id']}/files"))
    tests = client.get("/tests", run=found["id"], limit=1)
    if tests:
        from falaj.doors.cli.verbs.test import briefly

        click.echo(f"tests of this code: {terminal.mark(tests[0]['verdict'])}, {briefly(tests[0])}")
    return None


def say_kept(run: dict[str, Any], files: list[dict[str, Any]]) -> None:
    """Params, tags and files of the steps; of each the first ones, `--json` has all."""
    for step in run["steps"]:
        kept = [(f["name"], f"{f['size']:,} B") for f in files if f["step"] == step["step"]]
        for what, rows in (
            ("params", [(n, plain(v)) for n, v in step["params"].items()]),
            ("tags", [(n, plain(v)) for n, v in step["tags"].items()]),
            ("files", kept),
        ):
            if rows:
                click.echo(f"{step['step']}: {what}")
                terminal.table([(f"  {name}", value) for name, value in rows[:MOST_SAID]])
            if len(rows) > MOST_SAID:
                click.echo(f"  and {len(rows) - MOST_SAID} more: falaj runs show --json")


def plain(text: str) -> str:
    """One line without signs that move a cursor, whatever a step said."""
    told = "".join(sign if sign.isprintable() else " " for sign in text[:120])
    return told + ("..." if len(text) > 120 else "")


def write_page(client: Any, run: dict[str, Any], page: Path) -> None:
    from falaj.base.runpage import page as made

    plots = client.get(f"/runs/{run['id']}/plots")
    drawn = client.get(f"/runs/{run['id']}/pictures")
    failed = [step["step"] for step in run["steps"] if step["status"] == "failed"]
    logs = {
        step: client.get(f"/runs/{run['id']}/log", step=step)["text"][-20_000:] for step in failed
    }
    kept = client.get(f"/runs/{run['id']}/files")
    tests = client.get("/tests", run=run["id"], limit=1)
    text = made(run, plots, pictures=drawn, files=kept, logs=logs, tests=tests)
    page.write_text(text, encoding="utf-8")


@command.command
@click.argument("one")
@click.argument("other", default="latest")
@terminal.json_option
@click.pass_context
def diff(ctx: click.Context, one: str, other: str, machine: bool) -> None:
    """Say every part in which the second run differs from the first.

    \b
    Examples:
      falaj runs diff 01J8ZC2T
      falaj runs diff 01J8ZC2T 01J8ZD9Q --json
    """
    rows = connect(ctx).get(f"/runs/{one}/diff/{other}")
    if machine:
        return terminal.as_json("runs-diff", rows)
    terminal.table(
        [
            (row["where"], row["what"] if row["before"] == row["after"] else change(row))
            for row in rows
        ]
    )
    if not rows:
        click.echo("nothing differs")
    return None


def change(row: dict[str, Any]) -> str:
    return f"{row['what']}: {told(row['before'])} -> {told(row['after'])}"


def told(value: Any) -> str:
    if isinstance(value, str) and ":" in value and len(value) > 40:
        return value[:19] + ".."
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@command.command
@click.argument("run")
@click.argument("step")
@click.option("--attempt", type=click.IntRange(min=1), default=None, help="The last when left out.")
@click.pass_context
def log(ctx: click.Context, run: str, step: str, attempt: int | None) -> None:
    """Print what a step printed, with the whole traceback of a failure.

    \b
    Examples:
      falaj runs log latest train
      falaj runs log 01J8ZC2T train --attempt 1
    """
    found = connect(ctx).get(f"/runs/{run}/log", step=step, attempt=attempt)
    click.echo(found["text"], nl=False)


@command.command("file")
@click.argument("run")
@click.argument("step")
@click.argument("name")
@click.option(
    "--write",
    "to",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to; the last part of its name when left out.",
)
@click.pass_context
def file_of(ctx: click.Context, run: str, step: str, name: str, to: Path | None) -> None:
    """Write a file that a step kept beside its answer.

    \b
    Examples:
      falaj runs file latest train notes.txt
      falaj runs file 01J8ZC2T train notes.txt --write train-notes.txt
    """
    from falaj.base.files import write_atomic

    data = connect(ctx).raw("GET", f"/runs/{run}/file", params={"step": step, "name": name})
    place = to or Path(Path(name).name)
    if to is None and place.exists():
        raise click.UsageError(f"{place} exists; say where to write with --write")
    write_atomic(place, data)
    click.echo(f"wrote {place}")

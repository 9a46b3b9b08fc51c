"""falaj gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from falaj.base.errors import Exit
from falaj.doors.cli import terminal
from falaj.doors.cli.client import Client, connect
from falaj.doors.cli.reports import rows, verdict_of

__all__ = ["command"]

ENDS = {"pass": Exit.OK, "fail": Exit.GATE_FAIL, "inconclusive": Exit.INCONCLUSIVE}


@click.command
@click.argument("run", required=False, default="")
@click.option(
    "-e",
    "--environment",
    default="production",
    show_default=True,
    help="The environment whose required checks are made.",
)
@click.option("--explain", is_flag=True, help="Show the last report in full; measure nothing.")
@click.option(
    "--what-if",
    "policy",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Decide the last report's numbers under the rules of this file; measure nothing.",
)
@click.option(
    "--write",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the report: .xml as JUnit, .md as Markdown, .html as a page.",
)
@terminal.json_option
@click.pass_context
def command(
    ctx: click.Context,
    run: str,
    environment: str,
    explain: bool,
    policy: Path | None,
    write: Path | None,
    machine: bool,
) -> None:
    """Tell whether a model would pass, and why not.

    Ends with 0 when it passes, 3 when a check fails, 9 when data cannot decide.

    \b
    Examples:
      falaj gate
      falaj gate --explain --write gate.xml
    """
    client = connect(ctx)
    if explain or policy:
        found = client.get("/gates", run=run, limit=1)
        if not found:
            raise click.UsageError("nothing was gated yet; run `falaj gate`")
        report = supposed(client, found[0], policy) if policy else found[0]
    else:
        report = client.post("/gates", {"run": run, "environment": environment})
    if write:
        written(client, report, write)
    verdict = verdict_of(report)
    if machine:
        terminal.as_json("gate", {**report, "verdict": verdict})
    else:
        terminal.table(rows(report, full=explain), ("check", "verdict", "measured", "why"))
        click.echo(f"{terminal.mark(verdict)}  model {terminal.short(report['subject'])}")
        if verdict == "pass" and not policy:
            click.echo("next: falaj release create")
    ctx.exit(ENDS.get(verdict, Exit.INTERNAL))


def supposed(client: Client, report: dict[str, Any], policy: Path) -> dict[str, Any]:
    """The stored report as the rules of a file would have made it."""
    import msgspec

    from falaj.links.files.project import read_policy

    rules = msgspec.to_builtins(read_policy(policy))
    found: dict[str, Any] = client.post(f"/gates/{report['id']}/what-if", rules)
    return found


def written(client: Client, report: dict[str, Any], path: Path) -> None:
    from falaj.base.files import write_atomic

    form = {".xml": "junit", ".md": "markdown", ".html": "html"}.get(path.suffix)
    if form is None:
        raise click.UsageError(f"{path}: expected a name that ends with .xml, .md or .html")
    write_atomic(path, client.raw("GET", f"/gates/{report['id']}/as/{form}"))
    click.echo(f"wrote {path}", err=True)

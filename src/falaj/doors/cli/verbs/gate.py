"""falaj gate."""

from __future__ import annotations

import click

from falaj.base.errors import Exit
from falaj.doors.cli import terminal
from falaj.doors.cli.client import connect
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
@terminal.json_option
@click.pass_context
def command(ctx: click.Context, run: str, environment: str, explain: bool, machine: bool) -> None:
    """Tell whether a model would pass, and why not.

    Ends with 0 when it passes, 3 when a check fails, 9 when data cannot decide.

    \b
    Examples:
      falaj gate
      falaj gate --explain
    """
    client = connect(ctx)
    if explain:
        found = client.get("/gates", run=run, limit=1)
        if not found:
            raise click.UsageError("nothing was gated yet; run `falaj gate`")
        report = found[0]
    else:
        report = client.post("/gates", {"run": run, "environment": environment})
    verdict = verdict_of(report)
    if machine:
        terminal.as_json("gate", {**report, "verdict": verdict})
    else:
        terminal.table(rows(report, full=explain), ("check", "verdict", "measured", "why"))
        click.echo(f"{terminal.mark(verdict)}  model {terminal.short(report['subject'])}")
        if verdict == "pass":
            click.echo("next: falaj release create")
    ctx.exit(ENDS.get(verdict, Exit.INTERNAL))

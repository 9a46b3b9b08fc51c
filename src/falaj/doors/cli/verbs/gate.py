"""falaj gate."""

from __future__ import annotations

from typing import Any

import click

from falaj.base.errors import Exit
from falaj.doors.cli import terminal
from falaj.doors.cli.client import connect

__all__ = ["command", "rows"]

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


def verdict_of(report: dict[str, Any]) -> str:
    """The required gates' worst verdict."""
    order = ["fail", "error", "inconclusive", "skipped", "pass"]
    found = dict.fromkeys(report["required"], "inconclusive")
    for gate in found:
        here = [r["verdict"] for r in report["results"] if r["gate"] == gate]
        if here:
            found[gate] = min(here, key=order.index)
    return min(found.values(), key=order.index, default="inconclusive")


def rows(report: dict[str, Any], *, full: bool = False) -> list[tuple[str, str, str, str]]:
    found = []
    data = [r for r in report["results"] if r["gate"] == "data"]
    passed = [r for r in data if r["verdict"] == "pass"]
    for r in report["results"]:
        if r["gate"] == "data" and r["verdict"] == "pass" and not full:
            continue
        found.append((r["check"], terminal.mark(r["verdict"]), measured(r), r["reason"]))
    if passed and not full:
        word = terminal.mark("pass")
        found.insert(0, ("data", word, f"{len(passed)} checks", "the contract is kept"))
    return found


def measured(r: dict[str, Any]) -> str:
    if r["value"] is None:
        return ""
    unit = f" {r['unit']}" if r["unit"] else ""
    value = f"{r['value']:.4g}{unit}"
    if r["low"] is not None and r["high"] is not None:
        value += f" [{r['low']:.4g}, {r['high']:.4g}]"
    elif r["high"] is not None:
        value += f" (at most {r['high']:.4g})"
    elif r["low"] is not None:
        value += f" (at least {r['low']:.4g})"
    return f"{value}, {r['requirement']}" if r["requirement"] else value

"""falaj down."""

from __future__ import annotations

import click

from falaj.doors.cli.client import connect

__all__ = ["command"]


@click.command
@click.argument("environment")
@click.option("-m", "--message", "why", required=True, help="Why; kept in the log.")
@click.option("--undo", is_flag=True, help="Let it stand up again.")
@click.pass_context
def command(ctx: click.Context, environment: str, why: str, undo: bool) -> None:
    """Stop all servers of an environment.

    They stay down until it is undone, or something is rolled out or back.

    \b
    Examples:
      falaj down production -m "moved to another machine"
      falaj down production --undo -m "it stays here"
    """
    connect(ctx).post(f"/environments/{environment}/down", {"why": why, "undo": undo})
    if undo:
        click.echo(f"{environment} stands up again; a worker does it: falaj worker")
    else:
        click.echo(f"{environment} is down; undo: falaj down {environment} --undo -m ...")

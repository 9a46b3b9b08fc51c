"""falaj which-release."""

from __future__ import annotations

import click

from falaj.doors.cli import terminal
from falaj.doors.cli.client import connect

__all__ = ["command"]


@click.command("which-release")
@click.argument("request")
@click.option("--log", is_flag=True, help="Look into the inference log as well: when, which arm.")
@terminal.json_option
@click.pass_context
def command(ctx: click.Context, request: str, log: bool, machine: bool) -> None:
    """Tell which release answered a request.

    REQUEST is its name in the header falaj-request. The name itself says it, also when the row of the
    log was lost.

    \b
    Examples:
      falaj which-release 6f1c0a52b3d94e870001000000000007
      falaj which-release 6f1c0a52b3d94e870001000000000007 --log
    """
    found = connect(ctx).get(f"/requests/{request}", log="true" if log else "")
    if machine:
        return terminal.as_json("which-release", found)
    click.echo(f"{found['model']} {found['version']}  {found['release']}".strip())
    click.echo(f"in {found['environment']}, by process {found['boot']} of {found['process_since']}")
    if found["rows"]:
        click.echo(
            f"at {found['at']} as {found['arm']}: {found['outcome']}, {found['rows']} row(s)"
        )
    elif log:
        click.echo("no row of the log; the name of the request alone says it")
    if found["change"]:
        click.echo(f"brought by {found['rollout']} of {found['change']}")
    return None

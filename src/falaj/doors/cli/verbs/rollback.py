"""falaj rollback."""

from __future__ import annotations

import click

from falaj.doors.cli.client import connect
from falaj.doors.cli.verbs.rollout import watch_until

__all__ = ["command"]


@click.command
@click.argument("environment", default="production")
@click.option("-m", "--message", "why", required=True, help="Why; kept in the change's record.")
@click.option("--model", default="", help="Which model, when the environment has several.")
@click.option("--wait/--no-wait", default=True, help="Stay until the target confirms.")
@click.pass_context
def command(ctx: click.Context, environment: str, why: str, model: str, wait: bool) -> None:
    """Go back to the release before, in one step.

    Ends the running rollout, or leaves the live release; needs no approval and opens its own
    emergency change.

    \b
    Examples:
      falaj rollback production -m "customers complain"
      falaj rollback production -m "wrong data" --no-wait
    """
    client = connect(ctx)
    rollout = client.post(f"/environments/{environment}/rollback", {"why": why, "model": model})
    click.echo(f"{rollout['id']}: going back to {rollout['previous_version']}")
    if wait:
        watch_until(client, rollout["id"])

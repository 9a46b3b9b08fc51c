"""falaj who-was-live."""

from __future__ import annotations

import click

from falaj.doors.cli import terminal
from falaj.doors.cli.client import Client, connect

__all__ = ["command", "only_model"]


@click.command("who-was-live")
@click.argument("model", required=False, default="")
@click.option("--at", default="", metavar="TIME", help="ISO 8601; now when not said.")
@click.option("-e", "--environment", default="production", show_default=True)
@terminal.json_option
@click.pass_context
def command(ctx: click.Context, model: str, at: str, environment: str, machine: bool) -> None:
    """Tell which release answered at a time.

    \b
    Examples:
      falaj who-was-live flight-delay
      falaj who-was-live flight-delay --at 2026-11-24T10:00:00Z
    """
    client = connect(ctx)
    name = model or only_model(client)
    move = client.get(f"/models/{name}/live", environment=environment, at=at)
    if machine:
        return terminal.as_json("who-was-live", move)
    click.echo(f"{move['stable_version']}  {move['stable']}")
    if move["canary"]:
        share = f"{move['weight_bp'] / 100:g} %"
        click.echo(f"with {move['canary_version']} as canary at {share}  {move['canary']}")
    click.echo(f"since {move['at']}, by {move['cause']}")
    return None


def only_model(client: Client) -> str:
    """The model that there are releases of, when it is one."""
    names = sorted({release["model"] for release in client.get("/releases")})
    if len(names) != 1:
        known = ", ".join(names) or "none"
        raise click.UsageError(f"name the model; there are releases of: {known}")
    return str(names[0])

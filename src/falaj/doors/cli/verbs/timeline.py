"""falaj timeline."""

from __future__ import annotations

from pathlib import Path

import click

from falaj.doors.cli import terminal
from falaj.doors.cli.client import connect
from falaj.doors.cli.verbs.who_was_live import only_model

__all__ = ["command"]


@click.command
@click.argument("model", required=False, default="")
@click.option("-e", "--environment", default="", help="Only what happened there.")
@click.option("--svg", type=click.Path(path_type=Path), help="Write it as a picture.")
@terminal.json_option
@click.pass_context
def command(
    ctx: click.Context, model: str, environment: str, svg: Path | None, machine: bool
) -> None:
    """Tell everything that happened to a model.

    Releases, changes, approvals, rollouts, what answered from when on, alerts; oldest first.

    \b
    Examples:
      falaj timeline
      falaj timeline flight-delay -e production --svg timeline.svg
    """
    client = connect(ctx)
    model = model or only_model(client)
    if svg is not None:
        svg.write_bytes(client.raw("GET", f"/models/{model}/timeline.svg"))
    found = client.get(f"/models/{model}/timeline")
    if machine:
        return terminal.as_json("timeline", found)
    rows = [
        (one["at"][:19].replace("T", " "), one["environment"] or "-", one["kind"], one["words"])
        for one in found["happenings"]
        if environment in ("", one["environment"]) or not one["environment"]
    ]
    terminal.table(rows, ("time (UTC)", "environment", "what", ""))
    if svg is not None:
        click.echo(f"picture: {svg}")
    return None

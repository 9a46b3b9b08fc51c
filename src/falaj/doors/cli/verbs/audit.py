"""falaj audit."""

from __future__ import annotations

import click

from falaj.doors.cli import terminal
from falaj.doors.cli.client import connect

__all__ = ["command"]


@click.group("audit")
def command() -> None:
    """Read the log of what happened."""


@command.command
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=50,
    show_default=True,
    help="How many events, newest last.",
)
@terminal.json_option
@click.pass_context
def log(ctx: click.Context, limit: int, machine: bool) -> None:
    """Print the newest events, with the root of the whole log.

    \b
    Examples:
      falaj audit log
      falaj audit log --limit 5 --json
    """
    client = connect(ctx)
    size = client.get("/events", limit=1)["size"]
    found = client.get("/events", after=max(size - limit, 0) - 1, limit=limit)
    if machine:
        return terminal.as_json("audit-log", found)
    people = {p["person"]: p["name"] for p in client.get("/identities")}
    terminal.table(
        [
            (
                str(event["place"]),
                event["time"],
                people.get(event["actor"], event["actor"]),
                event["type"].removeprefix("falaj."),
                event["subject"],
            )
            for event in found["events"]
        ],
        ("place", "time", "who", "what", "object"),
    )
    click.echo(f"{found['size']} events, root {found['root']}")
    return None

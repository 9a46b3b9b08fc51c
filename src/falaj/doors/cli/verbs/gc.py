"""falaj gc."""

from __future__ import annotations

import click

from falaj.doors.cli import terminal
from falaj.doors.cli.client import connect

__all__ = ["command"]


@click.command("gc")
@click.option(
    "--days",
    type=click.FloatRange(0, 36500),
    default=30.0,
    show_default=True,
    help="Runs younger than this keep all that they made.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be removed; remove nothing.")
@terminal.json_option
@click.pass_context
def command(ctx: click.Context, days: float, dry_run: bool, machine: bool) -> None:
    """Remove artifacts and cache entries that nothing needs any more.

    \b
    Examples:
      falaj gc --dry-run
      falaj gc --days 90
    """
    found = connect(ctx).post("/sweep", {"days": days, "dry_run": dry_run})
    if machine:
        return terminal.as_json("gc", found)
    word = "would remove" if dry_run else "removed"
    click.echo(
        f"{word} {found['blobs']} artifacts ({found['bytes'] / 1e6:.1f} MB) "
        f"and {found['entries']} cache entries"
    )
    click.echo(
        f"kept {found['kept_blobs']} artifacts of {found['kept_runs']} runs and all releases"
    )
    return None

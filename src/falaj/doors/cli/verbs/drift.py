"""falaj drift."""

from __future__ import annotations

import click

from falaj.doors.cli import terminal
from falaj.doors.cli.client import connect

__all__ = ["command"]


@click.command
@click.argument("model")
@click.option(
    "--windows",
    type=click.IntRange(1, 1000),
    default=8,
    show_default=True,
    help="How many windows to show.",
)
@terminal.json_option
@click.pass_context
def command(ctx: click.Context, model: str, windows: int, machine: bool) -> None:
    """Show how far live inputs have moved from training.

    \b
    Examples:
      falaj drift flight-delay
      falaj drift flight-delay --windows 4 --json
    """
    found = connect(ctx).get(f"/models/{model}/windows", limit=windows)
    if machine:
        return terminal.as_json("drift", found)
    if not found:
        click.echo("no window is closed yet; a worker closes them: falaj worker")
        return None
    rows = []
    for window in reversed(found):
        features = sorted(window["features"], key=lambda f: -f["psi"])
        moved = [f for f in features if f["violated"]]
        word = terminal.mark("fail" if moved else "pass")
        told = ", ".join(
            f"{f['feature']} {f['psi']:.2f} (limit {f['psi_limit']:.2f})"
            for f in (moved or features)[:3]
        )
        rows.append((window["opens"][:10], str(window["rows"]), word, told))
    terminal.table(rows, ("window", "rows", "verdict", "population stability index"))
    return None

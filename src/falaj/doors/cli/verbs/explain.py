"""falaj explain."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command
@click.argument("code", required=False, default="")
def command(code: str) -> None:
    """Explain an error code, offline.

    Without a code, list all.

    \b
    Examples:
      falaj explain config.unknown-key
      falaj explain access.four-eyes
    """
    from falaj.doors.cli import terminal
    from falaj.doors.cli.codes import explain, explanations

    if code:
        click.echo(explain(code))
    else:
        terminal.table([(found.code, found.what) for found in explanations().values()])

"""falaj explain."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command
@click.argument("code")
def command(code: str) -> None:
    """Explain an error code, offline.

    \b
    Examples:
      falaj explain config.unknown-key
      falaj explain access.four-eyes
    """
    from falaj.doors.cli.codes import explain

    click.echo(explain(code))

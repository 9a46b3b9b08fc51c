"""falaj init."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command
@click.argument("folder", type=click.Path(file_okay=False))
@click.option(
    "--template", type=click.Choice(["flights", "mortgage"]), default="flights", show_default=True
)
def command(folder: str, template: str) -> None:
    """Make a working project from a template.

    \b
    Examples:
      falaj init my-model
      falaj init my-model --template flights
    """
    from pathlib import Path

    from falaj.doors.cli.templates import unpack

    made = unpack(template, Path(folder))
    for path in made:
        click.echo(f"  {path}")
    first = "python data.py && " if Path(folder, "data.py") in made else ""
    click.echo(f"next: cd {folder} && {first}falaj run")

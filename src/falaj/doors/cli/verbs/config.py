"""falaj config."""

from __future__ import annotations

from typing import Any

import click

from falaj.doors.cli import terminal

__all__ = ["command"]


@click.group("config")
def command() -> None:
    """Show every setting and where it comes from."""


@command.command
@terminal.json_option
def show(machine: bool) -> None:
    """Print each setting, its value and the line that sets it.

    \b
    Examples:
      falaj config show
      falaj config show --json
    """
    from falaj.doors.cli.client import project_root
    from falaj.links.files.project import config_values

    found = config_values(project_root() / "falaj.toml")
    if machine:
        rows: list[dict[str, Any]] = [value._asdict() for value in found]
        return terminal.as_json("config", rows)
    terminal.table(
        [(v.path, repr(v.value), v.origin) for v in found], ("setting", "value", "origin")
    )
    return None

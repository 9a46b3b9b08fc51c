"""falaj evidence."""

from __future__ import annotations

from pathlib import Path

import click

from falaj.doors.cli.client import connect

__all__ = ["command"]


@click.group("evidence")
def command() -> None:
    """Export everything that proves a model's way."""


@command.command
@click.argument("model")
@click.option(
    "-o", "--output", default="evidence.zip", show_default=True, type=click.Path(dir_okay=False)
)
@click.pass_context
def export(ctx: click.Context, model: str, output: str) -> None:
    """Write the evidence pack, and the trust root beside it.

    Hand the two over by different ways: a pack never vouches for its own keys.

    \b
    Examples:
      falaj evidence export flight-delay
      falaj evidence export flight-delay -o audit/pack.zip
    """
    from falaj.base.files import write_atomic

    client = connect(ctx)
    pack = client.raw("GET", f"/models/{model}/evidence")
    trust = client.raw("GET", "/trust")
    path = Path(output)
    beside = path.with_name(f"{path.stem}.trust.json")
    write_atomic(path, pack)
    write_atomic(beside, trust)
    click.echo(f"{path}  {len(pack):,} bytes")
    click.echo(f"{beside}  the trust root")
    click.echo(f"next: falaj verify {path} --trust {beside}")

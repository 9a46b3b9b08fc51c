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
@click.option("--seal", is_flag=True, help="To keep it here: only this workspace can open it.")
@click.pass_context
def export(ctx: click.Context, model: str, output: str, seal: bool) -> None:
    """Write the evidence pack, and the trust root beside it.

    Hand the two over by different ways: a pack never vouches for its own keys.

    \b
    Examples:
      falaj evidence export flight-delay
      falaj evidence export flight-delay -o audit/pack.zip
      falaj evidence export flight-delay --seal -o kept.zip.fenc
    """
    from falaj.base.files import write_atomic

    client = connect(ctx)
    path = Path(output)
    if seal:
        pack = client.raw("GET", f"/models/{model}/evidence", params={"sealed": "true"})
        write_atomic(path, pack)
        click.echo(f"{path}  {len(pack):,} bytes, sealed")
        return click.echo(f"next: falaj evidence open {path}")
    pack = client.raw("GET", f"/models/{model}/evidence")
    trust = client.raw("GET", "/trust")
    beside = path.with_name(f"{path.stem}.trust.json")
    write_atomic(path, pack)
    write_atomic(beside, trust)
    click.echo(f"{path}  {len(pack):,} bytes")
    click.echo(f"{beside}  the trust root")
    click.echo(f"next: falaj verify {path} --trust {beside}")
    return None


@command.command("open")
@click.argument("pack", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    default="evidence.zip",
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
)
@click.pass_context
def open_(ctx: click.Context, pack: Path, output: Path) -> None:
    """Open an evidence pack that this workspace has sealed.

    A pack that was altered by a byte, or whose key was erased, is refused.

    \b
    Examples:
      falaj evidence open kept.zip.fenc
      falaj evidence open kept.zip.fenc -o audit/pack.zip
    """
    from base64 import b64encode

    from falaj.base.files import write_atomic

    sent = {"pack": b64encode(pack.read_bytes()).decode()}
    found = connect(ctx).raw("POST", "/evidence-openings", body=sent)
    write_atomic(output, found)
    click.echo(f"{output}  {len(found):,} bytes")

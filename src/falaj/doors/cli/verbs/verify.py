"""falaj verify."""

from __future__ import annotations

from pathlib import Path

import click

from falaj.base.errors import Exit
from falaj.doors.cli import terminal

__all__ = ["command"]


@click.command
@click.argument("what", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--trust",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The trust root that you received separately; the workspace's own when not said.",
)
@terminal.json_option
@click.pass_context
def command(ctx: click.Context, what: Path, trust: Path | None, machine: bool) -> None:
    """Check an evidence pack or a release folder, offline.

    Ends with 7 and names every file that differs.

    \b
    Examples:
      falaj verify evidence.zip --trust evidence.trust.json
      falaj verify .falaj/releases/flight-delay/1.0.0
    """
    from falaj.journeys import verify

    found = verify.look(what, trust or workspace_trust())
    if machine:
        terminal.as_json("verify", found._asdict())
    else:
        for line in found.facts:
            click.echo(f"{terminal.mark('pass')}  {line}")
        for finding in found.findings:
            click.echo(f"{terminal.mark('fail')}  {finding['file'] or what}: {finding['message']}")
        holds = "everything holds" if not found.findings else f"{len(found.findings)} finding(s)"
        click.echo(f"{what}: {holds}")
    ctx.exit(Exit.UNVERIFIED if found.findings else Exit.OK)


def workspace_trust() -> Path | None:
    """Inside a project its own trust root; elsewhere nothing: a pack never vouches for itself."""
    from falaj.app import STATE
    from falaj.base.errors import FalajError
    from falaj.doors.cli.client import project_root

    try:
        path = project_root() / STATE / "keys" / "trust.json"
    except FalajError:
        return None
    return path if path.is_file() else None

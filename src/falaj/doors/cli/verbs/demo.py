"""falaj demo."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command
@click.argument("folder", required=False, type=click.Path(file_okay=False))
@click.option("--json", "machine", is_flag=True, help="One JSON line a stage, for machines.")
def command(folder: str | None, machine: bool) -> None:
    """Walk the whole way on real flights, in about two minutes.

    Trains, gates, releases, approves, rolls out, replays real requests with labels that arrive
    late, promotes a good challenger, sends a harmful one back, finds drift, proposes a retraining,
    writes evidence and verifies it elsewhere. Nothing is scripted to succeed: when a gate fails the
    demo says so and ends non-zero. FOLDER must be empty; a temporary one when not said.

    \b
    Examples:
      falaj demo
      falaj demo my-demo --json
    """
    import shutil
    import sys
    import tempfile
    from pathlib import Path

    from falaj.doors.cli.demo.hands import Hands
    from falaj.doors.cli.demo.story import Tale
    from falaj.doors.cli.demo.tell import Story

    place = Path(folder) if folder else Path(tempfile.mkdtemp(prefix="falaj-demo-"))
    story = Story(machine=machine)
    with Hands(place.resolve(), story) as hands:
        Tale(hands).tell()
    if machine:
        return
    story.heading("Done. Everything stopped; the project stays.")
    found = shutil.which("falaj")
    for line in (
        f"cd {place}" if found else f"cd {place}; export PATH={Path(sys.executable).parent}:$PATH",
        "falaj status                      what is live, what waits for you",
        "falaj change list                 the changes, and the retraining that waits",
        "falaj gate --explain              why the last model passed",
        "falaj audit log                   who did what, in the log's order",
        "falaj worker                      brings the servers up again",
    ):
        click.echo(f"  {line}")

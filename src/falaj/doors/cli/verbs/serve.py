"""falaj serve."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@click.option(
    "--trust",
    type=click.Path(exists=True, dir_okay=False),
    help="The trust root; the workspace's own when not said.",
)
@click.option("--port", default=8080, show_default=True, help="0 takes a free one.")
@click.option("--grpc-port", type=int, help="Serve gRPC with reflection, too; 0 takes a free port.")
@click.pass_context
def command(
    ctx: click.Context, folder: str, trust: str | None, port: int, grpc_port: int | None
) -> None:
    """Serve one release folder; the data plane alone.

    Nothing is loaded whose digests or signature do not hold.

    \b
    Examples:
      falaj serve .falaj/releases/flight-delay/1.0.0
      falaj serve release/ --trust trust.json --port 9000 --grpc-port 9001
    """
    from pathlib import Path

    from falaj.app import STATE, find_root
    from falaj.doors.predict.main import serve_folder

    root = Path(trust) if trust else find_root(Path(folder)) / STATE / "keys" / "trust.json"
    ctx.exit(serve_folder(Path(folder), root, port, grpc_port))

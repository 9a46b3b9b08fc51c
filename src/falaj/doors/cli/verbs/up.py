"""falaj up."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command
@click.option("--host", default="127.0.0.1", show_default=True, help="Loopback only, without TLS.")
@click.option("--port", default=8765, show_default=True, help="0 takes a free one.")
@click.option("--worker/--no-worker", default=True, help="Work off what waits as well.")
@click.pass_context
def command(ctx: click.Context, host: str, port: int, worker: bool) -> None:
    """Serve the API and work off what waits, in one process.

    \b
    Examples:
      falaj up
      falaj up --port 9000 --no-worker
    """
    from falaj.app import Works
    from falaj.doors.cli.client import beside_steps, project_root
    from falaj.doors.worker.up import serve

    works = Works.open(project_root(), around=beside_steps)
    ctx.call_on_close(works.close)
    ctx.exit(serve(works, host=host, port=port, worker=worker, say=click.echo))

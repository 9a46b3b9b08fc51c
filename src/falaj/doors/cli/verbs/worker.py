"""falaj worker."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command
@click.option("--once", is_flag=True, help="One turn, then end.")
@click.option("--every", default=0.5, show_default=True, help="Seconds between turns.")
@click.pass_context
def command(ctx: click.Context, once: bool, every: float) -> None:
    """Reconcile rollouts, monitors and proposals.

    May be killed at any time; the next one goes on from what is stored.

    \b
    Examples:
      falaj worker --once
      falaj worker --every 2
    """
    from pathlib import Path

    from falaj.app import Works, find_root
    from falaj.doors.worker.loop import work

    works = Works.open(find_root(Path()))
    ctx.call_on_close(works.close)
    work(works, every=every, once=once, say=click.echo)

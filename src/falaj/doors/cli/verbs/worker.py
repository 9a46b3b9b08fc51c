"""falaj worker."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command
@click.option("--once", is_flag=True, help="One turn, then end.")
@click.option("--every", default=0.5, show_default=True, help="Seconds between turns.")
@click.option(
    "--duty",
    "duties",
    multiple=True,
    type=click.Choice(["rollouts", "monitors", "learning", "advisories", "mirror", "witnesses"]),
    help="Only this; several are allowed. Training in a worker of its own never delays a rollout.",
)
@click.pass_context
def command(ctx: click.Context, once: bool, every: float, duties: tuple[str, ...]) -> None:
    """Reconcile rollouts, monitors and proposals.

    May be killed at any time; the next one goes on from what is stored.

    \b
    Examples:
      falaj worker --once
      falaj worker --duty rollouts --duty monitors
    """
    from falaj.app import DUTIES, Works
    from falaj.doors.cli.client import beside_steps, project_root
    from falaj.doors.worker.loop import work

    works = Works.open(project_root(), around=beside_steps)
    ctx.call_on_close(works.close)
    chosen = frozenset(duties) or DUTIES
    work(works, every=every, once=once, duties=chosen, say=click.echo)

"""falaj waive."""

from __future__ import annotations

import click

from falaj.doors.cli import terminal
from falaj.doors.cli.client import connect
from falaj.doors.cli.reports import rows

__all__ = ["command"]


@click.command
@click.argument("check")
@click.option("-m", "--message", "reason", required=True, help="Why; printed on the model card.")
@click.option("--for", "life", default="30d", show_default=True, help="How long; at most 365d.")
@click.option("--run", default="", help="The run whose newest report is meant; else the newest.")
@terminal.json_option
@click.pass_context
def command(
    ctx: click.Context, check: str, reason: str, life: str, run: str, machine: bool
) -> None:
    """Let an inconclusive check through, with reason and expiry.

    For the role risk alone, and never for a model that one made oneself. What failed stays failed.
    Approvals that were given before are void: the evidence is another now.

    \b
    Examples:
      falaj --as noor waive bias.origin_airport=LGA -m "10 rows a month" --for 30d
      falaj --as noor waive quality.roc_auc -m "more data comes in May"
    """
    client = connect(ctx)
    found = client.get("/gates", run=run, limit=1)
    if not found:
        raise click.UsageError("nothing was gated yet; run `falaj gate`")
    report = client.post(
        f"/gates/{found[0]['id']}/waivers", {"check": check, "reason": reason, "life": life}
    )
    if machine:
        return terminal.as_json("gate", report)
    terminal.table(rows(report), ("check", "verdict", "measured", "why"))
    waiver = report["waivers"][-1]
    click.echo(f"waived {check} until {waiver['expires']}: {waiver['reason']}")
    return None

"""falaj approve."""

from __future__ import annotations

import click

from falaj.doors.cli import terminal
from falaj.doors.cli.client import connect
from falaj.doors.cli.verbs.change import one_waiting, say

__all__ = ["command"]


@click.command
@click.argument("change", required=False, default="")
@click.option("-m", "--message", "comment", required=True, help="Why; kept with the signature.")
@terminal.json_option
@click.pass_context
def command(ctx: click.Context, change: str, comment: str, machine: bool) -> None:
    """Sign an approval over a release and its evidence.

    The digests of what you decide about are read first and sent along: if the evidence
    changes in between, nothing is signed.

    \b
    Examples:
      falaj --as layla approve CHG-0001 -m "read the evidence"
      falaj --as layla approve -m "read the evidence"
    """
    client = connect(ctx)
    name = one_waiting(client, change, "awaiting-approval")
    shown = client.get(f"/changes/{name}")["change"]
    after = client.post(
        f"/changes/{name}/approve",
        {
            "comment": comment,
            "shown_release": shown["release"],
            "shown_evidence": shown["evidence"],
        },
    )
    if machine:
        return terminal.as_json("change", after)
    say(after)
    if after["state"] == "approved":
        click.echo(f"next: falaj rollout start {name}")
    return None

"""falaj change."""

from __future__ import annotations

from typing import Any

import click

from falaj.doors.cli import terminal
from falaj.doors.cli.client import connect
from falaj.doors.cli.reports import rows

__all__ = ["command", "judging", "one_waiting"]


@click.group("change")
def command() -> None:
    """Open, list and show changes; take up proposed ones."""


@command.command("open")
@click.argument("release", required=False, default="")
@click.option("-e", "--environment", default="production", show_default=True)
@click.option("-m", "--message", "reason", default="", help="Why.")
@terminal.json_option
@click.pass_context
def open_one(
    ctx: click.Context, release: str, environment: str, reason: str, machine: bool
) -> None:
    """Ask to bring a release (the newest when not said) to an environment.

    \b
    Examples:
      falaj change open
      falaj change open 1.1.0 -e production -m "trained on April too"
    """
    change = connect(ctx).post(
        f"/environments/{environment}/changes", {"release": release, "reason": reason}
    )
    if machine:
        return terminal.as_json("change", change)
    say(change)
    click.echo(f"next: somebody else types: falaj --as NAME approve {change['id']} -m ...")
    return None


@command.command("list")
@click.option("--state", default="", help="Only changes in this state.")
@terminal.json_option
@click.pass_context
def list_all(ctx: click.Context, state: str, machine: bool) -> None:
    """List changes, newest first.

    \b
    Examples:
      falaj change list
      falaj change list --state awaiting-approval
    """
    found = connect(ctx).get("/changes", state=state)
    if machine:
        return terminal.as_json("changes", found)
    terminal.table(
        [(c["id"], c["title"], c["environment"], c["state"], c["kind"]) for c in found],
        ("id", "change", "environment", "state", "kind"),
    )
    return None


@command.command
@click.argument("change")
@terminal.json_option
@click.pass_context
def show(ctx: click.Context, change: str, machine: bool) -> None:
    """Show what changes, the evidence, and what is still missing.

    \b
    Examples:
      falaj change show CHG-0001
      falaj change show CHG-0001 --json
    """
    found = connect(ctx).get(f"/changes/{change}")
    if machine:
        return terminal.as_json("change-view", found)
    say(found["change"])
    if found["report"]:
        terminal.table(rows(found["report"]), ("check", "verdict", "measured", "why"))
    for approval in found["approvals"]:
        state = f"void: {approval['void']}" if approval["void"] else "counts"
        said = f"{approval['decision']} by {approval['principal']}, {state}"
        click.echo(f"{said}: {approval['comment']}")
    return None


@command.command
@click.argument("change")
@click.pass_context
def take(ctx: click.Context, change: str) -> None:
    """Take up a proposed change; it then waits for approval.

    \b
    Examples:
      falaj change take CHG-0004
      falaj change show CHG-0004
    """
    say(connect(ctx).post(f"/changes/{change}/take"))


def say(change: dict[str, Any]) -> None:
    click.echo(f"{change['id']}  {change['title']}  ({change['environment']})")
    click.echo(f"{change['state']} · {change['kind']} · risk {change['risk']}")
    for reason in change["risk_reasons"]:
        click.echo(f"  {reason}")
    click.echo(f"plan: {change['plan']}; back-out: {change['back_out']}")
    click.echo(f"evidence {change['evidence']}, gate report {terminal.short(change['report'])}")


def one_waiting(client: Any, change: str, state: str) -> str:
    """The change that was named, or the only one in this state."""
    if change:
        return change
    found = client.get("/changes", state=state)
    if len(found) != 1:
        names = ", ".join(c["id"] for c in found) or "none"
        raise click.UsageError(f"name the change; {state}: {names}")
    return str(found[0]["id"])


def judging(verb: str, line: str) -> click.Command:
    """`approve` and `reject`: read what stands there, sign exactly that."""

    @click.command(
        verb,
        help=f"{line}\n\nThe digests of what you decide about are read first and sent along: if the "
        "evidence changes in between, nothing is signed.\n\n\b\nExamples:\n"
        f'  falaj --as layla {verb} CHG-0001 -m "read the evidence"\n'
        f'  falaj --as layla {verb} -m "read the evidence"',
    )
    @click.argument("change", required=False, default="")
    @click.option("-m", "--message", "comment", required=True, help="Why; kept with the signature.")
    @terminal.json_option
    @click.pass_context
    def judge(ctx: click.Context, change: str, comment: str, machine: bool) -> None:
        client = connect(ctx)
        name = one_waiting(client, change, "awaiting-approval")
        shown = client.get(f"/changes/{name}")["change"]
        after = client.post(
            f"/changes/{name}/{verb}",
            {
                "comment": comment,
                "shown_release": shown["release"],
                "shown_evidence": shown["evidence"],
                "shown_report": shown["report"],
            },
        )
        if machine:
            return terminal.as_json("change", after)
        say(after)
        if after["state"] == "approved":
            click.echo(f"next: falaj rollout start {name}")
        return None

    return judge

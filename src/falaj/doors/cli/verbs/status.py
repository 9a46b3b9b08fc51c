"""falaj status."""

from __future__ import annotations

from typing import Any

import click

from falaj.doors.cli import terminal
from falaj.doors.cli.client import connect

__all__ = ["command"]


@click.command
@terminal.json_option
@click.pass_context
def command(ctx: click.Context, machine: bool) -> None:
    """Show what is live where, and what waits for whom.

    \b
    Examples:
      falaj status
      falaj status --json
    """
    found = connect(ctx).get("/status")
    if machine:
        return terminal.as_json("status", found)
    waiting, rollouts, alerts = found["waiting"], found["rollouts"], found["alerts"]
    click.echo(
        f"{found['project']}: {len(waiting)} waiting · {len(rollouts)} rollout(s) in progress · "
        f"{len(alerts)} open alert(s)"
    )
    for change in waiting:
        click.echo(f"  needs you   {change['id']} {change['title']}: {change['state']}")
    for change in found["reviews"]:
        click.echo(
            f"  needs you   {change['id']} {change['title']}: review owed until "
            f"{change['review_due'][:10]}"
        )
    for rollout in rollouts:
        click.echo(f"  in progress {sentence(rollout)}")
    for alert in alerts:
        click.echo(f"  alert       {alert['title']} ({terminal.ago(alert['at'])})")
    for environment in found["environments"]:
        for server in environment["servers"]:
            if server["problem"]:
                click.echo(f"  problem     {server['name']}: {server['problem']}")
    for link in found["links"]:
        for line in told(link):
            click.echo(f"  warning     {link['link']}: {line}")
    live = [
        (
            move["model"],
            move["stable_version"],
            environment["environment"],
            terminal.ago(move["at"]),
            health(environment["servers"]),
            ", ".join(sorted({s["url"] for s in environment["servers"]})),
        )
        for environment in found["environments"]
        for move in environment["live"]
    ]
    if live:
        terminal.table(live, ("model", "release", "environment", "since", "health", "address"))
    else:
        click.echo("nothing is live yet; next: falaj run")
    return None


def told(link: dict[str, Any]) -> list[str]:
    """What is amiss with a server of others. It never holds anything up here."""
    lines = []
    if link["trouble"]:
        behind = f"{link['waiting']} item(s) wait for it" if link["waiting"] else "nothing waits"
        lines.append(f"{link['trouble']}, since {terminal.ago(link['since'])}; {behind}")
    if link["refused"]:
        lines.append(f"{link['refused']} item(s) are not shown there; the last: {link['refusal']}")
    return lines


def health(servers: list[dict[str, Any]]) -> str:
    if not servers:
        return "no server"
    if all(server["ready"] and not server["problem"] for server in servers):
        return "ok"
    return "isolated" if any(server["problem"] for server in servers) else "not ready"


def sentence(rollout: dict[str, Any]) -> str:
    plan = rollout["plan"]["steps_pct"]
    share = f" at {plan[rollout['step']]} %" if rollout["phase"] == "progressing" else ""
    why = f": {rollout['why']}" if rollout["why"] else ""
    return f"{rollout['id']} {rollout['version']} {rollout['phase']}{share}{why}"

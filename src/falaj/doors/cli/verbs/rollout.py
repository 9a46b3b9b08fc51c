"""falaj rollout."""

from __future__ import annotations

import time
from typing import Any

import click

from falaj.base.errors import Exit
from falaj.doors.cli import terminal
from falaj.doors.cli.client import Client, connect
from falaj.doors.cli.verbs.change import one_waiting
from falaj.doors.cli.verbs.status import sentence

__all__ = ["command", "describe", "watch_until"]

OTHERS = {
    "blue-green": "the whole of it beside what is live, then all traffic at once, and back at once",
    "rolling": "server after server",
    "shadow": "copies of requests, judged on the same rows; it answers nobody until it is proven",
}
OVER = {"promoted": Exit.OK, "rolled-back": Exit.ROLLED_BACK, "aborted": Exit.ROLLED_BACK}


@click.group("rollout")
def command() -> None:
    """Plan, start, watch, steer and replay rollouts."""


@command.command
@click.argument("change", required=False, default="")
@click.option("--watch/--no-watch", "stay", default=False, help="Stay until it is over.")
@click.pass_context
def start(ctx: click.Context, change: str, stay: bool) -> None:
    """Begin the rollout of an approved change.

    \b
    Examples:
      falaj rollout start
      falaj rollout start CHG-0001 --watch
    """
    client = connect(ctx)
    name = one_waiting(client, change, "approved")
    environment = client.get(f"/changes/{name}")["change"]["environment"]
    expected = client.get(f"/environments/{environment}/forecast")
    rollout = client.post(f"/changes/{name}/rollout")
    click.echo(f"{rollout['id']} {rollout['version']} started: {describe(rollout)}")
    if rollout["plan"]["strategy"] != "direct":
        click.echo(f"  {expected['sentences'][0]}")
    if stay:
        ctx.exit(watch_until(client, rollout["id"]))
    click.echo("next: falaj rollout watch")


def describe(rollout: dict[str, Any]) -> str:
    plan = rollout["plan"]
    if plan["strategy"] == "direct":
        return "the first release, straight to 100 %"
    if plan["strategy"] != "canary":
        return OTHERS[plan["strategy"]]
    steps = ", ".join(f"{pct} %" for pct in plan["steps_pct"])
    return (
        f"{steps}; a release that is no worse is rolled back with probability "
        f"{plan['alpha']:g} at most, over the whole rollout"
    )


@command.command
@click.argument("rollout", required=False, default="")
@click.option("-e", "--environment", default="", help="The newest rollout there.")
@terminal.json_option
@click.pass_context
def watch(ctx: click.Context, rollout: str, environment: str, machine: bool) -> None:
    """Watch a rollout until it is over; ends with 5 when it went back.

    Without a server (FALAJ_URL) watching also does the worker's turns, when none is running.

    \b
    Examples:
      falaj rollout watch
      falaj rollout watch RO-0002 --json
    """
    client = connect(ctx)
    if not rollout:
        found = client.get("/rollouts", environment=environment, limit=1)
        if not found:
            raise click.UsageError("no rollout yet; `falaj rollout start` begins one")
        rollout = found[0]["id"]
    ctx.exit(watch_until(client, rollout, machine=machine))


def watch_until(client: Client, rollout: str, *, machine: bool = False) -> int:
    """Print each decision once, in order; return the exit code of the end."""
    import json

    seen: set[str] = set()
    last = ""
    while True:
        client.post("/reconcile")
        view = client.get(f"/rollouts/{rollout}", decisions=200)
        now = view["rollout"]
        for decision in reversed(view["decisions"]):
            if decision["id"] in seen:
                continue
            seen.add(decision["id"])
            if machine:
                click.echo(json.dumps(decision | {"final": False}))
            elif decision["action"] != "hold":
                click.echo(f"{terminal.stamp()} {decision['action']}: {decision['reasons'][0]}")
        line = sentence(now)
        if line != last and not machine:
            click.echo(f"{terminal.stamp()} {line}")
            if now["phase"] == "paused":
                click.echo("next: falaj rollout resume -m ..., or falaj rollout abort -m ...")
            last = line
        if now["phase"] in OVER:
            if machine:
                click.echo(json.dumps({"final": True, "rollout": now}))
            return OVER[now["phase"]]
        time.sleep(1.0)


def steering(verb: str, line: str) -> click.Command:
    @click.command(
        verb,
        help=f"{line}\n\n\b\nExamples:\n"
        f'  falaj rollout {verb} -m "looks odd"\n'
        f'  falaj rollout {verb} -e production -m "looks odd"',
    )
    @click.option("-e", "--environment", default="production", show_default=True)
    @click.option("-m", "--message", "why", required=True, help="Why.")
    @click.pass_context
    def steer(ctx: click.Context, environment: str, why: str) -> None:
        found = connect(ctx).post(f"/environments/{environment}/rollout/{verb}", {"why": why})
        click.echo(f"{found['id']}: asked to {verb}; the worker does it within a second")

    return steer


@command.command("plan")
@click.option("-e", "--environment", default="production", show_default=True)
@terminal.json_option
@click.pass_context
def expect(ctx: click.Context, environment: str, machine: bool) -> None:
    """Tell what a rollout will take, before it starts.

    \b
    Examples:
      falaj rollout plan
      falaj rollout plan -e production --json
    """
    found = connect(ctx).get(f"/environments/{environment}/forecast")
    if machine:
        return terminal.as_json("rollout-plan", found)
    click.echo(f"{environment}: {found['strategy']}")
    for line in found["sentences"]:
        click.echo(f"  {line}")
    return None


@command.command
@click.argument("rollout")
@terminal.json_option
@click.pass_context
def replay(ctx: click.Context, rollout: str, machine: bool) -> None:
    """Take every decision once more from the log; ends with 7 when one comes out otherwise.

    All evidence is summed up again from the counts in the log, and compared bit by bit.

    \b
    Examples:
      falaj rollout replay RO-0002
      falaj rollout replay RO-0002 --json
    """
    found = connect(ctx).get(f"/rollouts/{rollout}/replay")
    if machine:
        terminal.as_json("rollout-replay", found)
    else:
        for one in found["decisions"]:
            if one["differs"]:
                click.echo(
                    f"{one['decision']} {one['action']}: differs in {', '.join(one['differs'])}"
                )
        word = "the same, bit by bit" if found["same"] else "NOT the same"
        click.echo(f"{found['rollout']}: {len(found['decisions'])} decisions, {word}")
    ctx.exit(Exit.OK if found["same"] else Exit.UNVERIFIED)


for _verb, _line in (
    ("pause", "Hold the running rollout at its weight."),
    ("resume", "Let a paused rollout go on."),
    ("advance", "Take the next step, where people move it (modes observe and advise)."),
    ("abort", "End the running rollout; traffic goes back to stable."),
):
    command.add_command(steering(_verb, _line))

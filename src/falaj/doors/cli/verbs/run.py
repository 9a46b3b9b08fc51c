"""falaj run."""

from __future__ import annotations

from typing import Any

import click

from falaj.doors.cli import terminal
from falaj.doors.cli.client import Client, connect
from falaj.doors.cli.reports import marked

__all__ = ["command", "value_of"]


def value_of(text: str) -> Any:
    """A parameter's value: JSON where it is JSON, else the text itself."""
    import json

    try:
        return json.loads(text)
    except ValueError:
        return text


def pairs(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in given:
        name, equals, text = item.partition("=")
        if not equals:
            raise click.BadParameter(f"got {item!r}, expected NAME=VALUE")
        found[name] = value_of(text)
    return found


@click.command
@click.argument("pipeline", required=False, default="")
@click.option(
    "-p",
    "--param",
    "parameters",
    multiple=True,
    callback=pairs,
    metavar="NAME=VALUE",
    help="A parameter of the pipeline; several are allowed.",
)
@click.option("--seed", type=int, help="Seed of the run; the project's is the default.")
@click.option("--from", "source", metavar="RUN", help="Take the parameters and the seed of a run.")
@click.option("--only", default="", metavar="STEP", help="Run up to this step and no other.")
@click.option("--fail-fast", is_flag=True, help="End the other steps when the first one fails.")
@click.option("--explain", is_flag=True, help="Say what would run and why; run nothing.")
@terminal.json_option
@click.pass_context
def command(
    ctx: click.Context,
    pipeline: str,
    parameters: dict[str, Any],
    seed: int | None,
    source: str | None,
    only: str,
    fail_fast: bool,
    explain: bool,
    machine: bool,
) -> None:
    """Run a pipeline; unchanged steps come from the cache.

    \b
    Examples:
      falaj run
      falaj run -p month_to=4 --explain
      falaj run --from 01J8ZC2T --only train
    """
    from falaj.doors.cli.progress import watching

    with watching() as on_step:
        client = connect(ctx, on_step=on_step)
        body = {"pipeline": pipeline, "parameters": parameters, "seed": seed, "only": only}
        body["fail_fast"] = fail_fast
        if source:
            body |= taken_from(client, source, body)
        return told(client, body, explain=explain, machine=machine)


def taken_from(client: Client, source: str, given: dict[str, Any]) -> dict[str, Any]:
    """What a run like that one is asked for; what was given goes before."""
    old = client.get(f"/runs/{source}")
    return {
        "pipeline": given["pipeline"] or old["pipeline"],
        "parameters": {**old["parameters"], **given["parameters"]},
        "seed": old["seed"] if given["seed"] is None else given["seed"],
        "parent": old["id"],
    }


def told(client: Client, body: dict[str, Any], *, explain: bool, machine: bool) -> None:
    if body.get("parent") and not machine:
        say_differences(client.post("/runs/explain", body), body["parent"])
    if explain:
        steps = client.post("/runs/explain", body)
        if machine:
            return terminal.as_json("run-explain", steps)
        return terminal.table([(s["step"], s["would"], s["why"]) for s in steps])
    run = client.post("/runs", body)
    if machine:
        return terminal.as_json("run", run)
    show(run)
    return None


def say_differences(steps: list[dict[str, Any]], parent: str) -> None:
    rows = [(step["step"], words) for step in steps for words in step["differs"]]
    click.echo(f"from run {parent}: {len(rows) or 'no'} parts differ", err=True)
    for step, words in rows:
        click.echo(f"  {step}: {words}", err=True)


def show(run: dict[str, Any]) -> None:
    terminal.table(
        [
            (step["step"], step["status"], f"{step['seconds']:.2f} s", step["why"])
            for step in run["steps"]
        ],
        ("step", "status", "time", "why"),
    )
    for one in run["set_aside"]:
        checked = ", ".join(f"{name} {n:,}" for name, n in one["checks"].items())
        click.echo(f"{one['dataset']}: {one['rows']:,} of {one['of']:,} rows set aside ({checked})")
    checks = [check for step in run["steps"] for check in step["checks"]]
    terminal.table(
        [(check["check"], marked(check), check["reason"]) for check in checks],
        ("check", "verdict", "why") if checks else (),
    )
    for name, value in run["metrics"].items():
        click.echo(f"  {name} = {value:.4f}")
    if run["error"]:
        click.echo(run["error"], err=True)
    click.echo(f"run {run['id']} {run['status']}")
    if run["status"] == "ok":
        click.echo("next: falaj gate")

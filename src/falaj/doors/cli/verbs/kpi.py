"""falaj kpi."""

from __future__ import annotations

import click

from falaj.doors.cli.client import connect

__all__ = ["command"]


class Counts(click.ParamType[dict[str, int]]):
    """`ALL:BAD`, such as 1000:12."""

    name = "ALL:BAD"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, int]:
        if isinstance(value, dict):
            return value
        n, colon, bad = str(value).partition(":")
        if not (colon and n.isdecimal() and bad.isdecimal()):
            self.fail(f"got {str(value)[:40]!r}, expected ALL:BAD, such as 1000:12", param, ctx)
        return {"n": int(n), "bad": int(bad)}


@click.command
@click.argument("metric")
@click.option("-e", "--environment", default="production", show_default=True)
@click.option(
    "--stable", type=Counts(), default="0:0", help="Events of stable since the last report."
)
@click.option("--canary", type=Counts(), default="0:0", help="Events of the canary.")
@click.option("--id", "report", default="", help="The report's name; the same again counts once.")
@click.option("--model", default="", help="Which model, when the environment has several.")
@click.pass_context
def command(
    ctx: click.Context,
    metric: str,
    environment: str,
    stable: dict[str, int],
    canary: dict[str, int],
    report: str,
    model: str,
) -> None:
    """Report what your own system counted of both arms.

    The metric stands in falaj.toml. Answers name their release, so your system knows the arm.

    \b
    Examples:
      falaj kpi conversion --stable 1900:57 --canary 100:4 --id 2026-11-24T10:00
      falaj kpi conversion --stable 2000:61
    """
    sent = {"metric": metric, "id": report, "model": model, "stable": stable, "canary": canary}
    found = connect(ctx).post(f"/environments/{environment}/kpi", sent)
    click.echo(
        f"{metric}: counted {found['x_s']} bad of {found['n_s']} of stable, "
        f"{found['x_c']} of {found['n_c']} of the canary"
    )

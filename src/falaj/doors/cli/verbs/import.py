"""falaj import."""

from __future__ import annotations

import click

from falaj.doors.cli import terminal
from falaj.doors.cli.client import connect

__all__ = ["command"]


@click.group("import")
def command() -> None:
    """Bring a model of another registry under governance."""


@command.command
@click.argument("name")
@click.option("--evaluation", required=True, metavar="DATASET", help="The rows that judge it.")
@click.option("--label", required=True, metavar="COLUMN", help="Its column of the truth, 0 or 1.")
@click.option("--where", default="", metavar="COLUMN=VALUE", help="Only these rows are held out.")
@click.option(
    "--reference",
    default="",
    metavar="DATASET",
    help="Rows as it was trained on; nothing: those that are not held out.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="The answer is yes when the score is above.",
)
@click.option("--columns", default="", metavar="A,B", help="Inputs, where no signature names them.")
@click.option("--output", default="", metavar="NAME", help="The score, of several ONNX outputs.")
@click.option("--trust", multiple=True, metavar="TYPE", help="A type in a skops file you know.")
@terminal.json_option
@click.pass_context
def mlflow(
    ctx: click.Context,
    name: str,
    evaluation: str,
    label: str,
    where: str,
    reference: str,
    threshold: float,
    columns: str,
    output: str,
    trust: tuple[str, ...],
    machine: bool,
) -> None:
    """Import a model version from the MLflow server of falaj.toml.

    NAME is models:/NAME@ALIAS or models:/NAME/3. ONNX is taken as it is, scikit-learn in skops
    is converted and compared; pickles are refused. What is said of it there stays a claim.

    \b
    Examples:
      falaj import mlflow models:/loan@champion --evaluation rows --label y
      falaj import mlflow loan/3 --evaluation rows --label y --where held=1 --json
    """
    asked = {
        "name": name,
        "evaluation": evaluation,
        "label": label,
        "where": where,
        "reference": reference,
        "threshold": threshold,
        "columns": [part.strip() for part in columns.split(",") if part.strip()],
        "output": output,
        "trust": list(trust),
    }
    found = connect(ctx).post("/imports", asked)
    if machine:
        return terminal.as_json("import", found)
    origin = found["origin"]
    click.echo(
        f"imported {origin['name']}/{origin['version']} ({origin['flavor']}): run {found['id']}"
    )
    for path, digest in sorted(origin["files"].items()):
        click.echo(f"  {digest[:19]}  {path}")
    for metric, value in sorted(origin["claimed"].items()):
        click.echo(f"  claimed there, not measured: {metric} = {value:g}")
    click.echo("next: falaj gate")
    return None

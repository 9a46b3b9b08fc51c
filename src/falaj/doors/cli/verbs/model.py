"""falaj model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from falaj.doors.cli import terminal
from falaj.doors.cli.client import connect

__all__ = ["command"]

PAGE = click.Path(dir_okay=False, path_type=Path)


@click.group("model")
def command() -> None:
    """Look into models, and convert pickles of others."""


@command.command
@click.argument("run", required=False, default="")
@click.option(
    "--together",
    multiple=True,
    metavar="PATTERN",
    help="Columns that are shuffled together, such as `dep_*|arr_*`; several are allowed.",
)
@click.option("--metric", default="", help="What is lost; the quality gate's when not said.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of all draws.")
@click.option(
    "--repeats", type=click.IntRange(1, 100), default=5, show_default=True, help="Shuffles of each."
)
@click.option(
    "--rows", type=click.IntRange(1, 1_000_000), default=2000, show_default=True, help="At most."
)
@click.option("--html", "page", type=PAGE, help="Also write a page with pictures.")
@terminal.json_option
@click.pass_context
def explain(
    ctx: click.Context,
    run: str,
    together: tuple[str, ...],
    metric: str,
    seed: int,
    repeats: int,
    rows: int,
    page: Path | None,
    machine: bool,
) -> None:
    """Tell which columns move the answers, and how.

    Of the newest run's model when none is named.

    \b
    Examples:
      falaj model explain
      falaj model explain latest --together "a|b" --html explanation.html
    """
    from falaj.doors.cli.progress import telling

    with telling() as tell:
        found = connect(ctx, tell=tell).post(
            "/explanations",
            {
                "run": run,
                "metric": metric,
                "together": list(together),
                "seed": seed,
                "repeats": repeats,
                "rows": rows,
            },
        )
    if page is not None:
        write_page(page, found)
    if machine:
        return terminal.as_json("model-explanation", found)
    terminal.table(
        [
            (one["name"], f"{one['value']:.4f}", bounds(one), ", ".join(one["alike"]))
            for one in found["importances"]
        ],
        ("column", f"loss of {found['metric']}", "95 % bounds", "says nearly the same as"),
    )
    click.echo(f"{found['metric']} {found['baseline']:.4f} on {found['rows']:,} rows")
    return None


@command.command
@click.argument("run", required=False, default="")
@click.option("--with", "other", default="", metavar="VERSION", help="A release or run; else live.")
@click.option("--html", "page", type=PAGE, help="Also write a page with pictures.")
@terminal.json_option
@click.pass_context
def compare(ctx: click.Context, run: str, other: str, page: Path | None, machine: bool) -> None:
    """Compare a run's model with what is live, on the same rows.

    \b
    Examples:
      falaj model compare --with 1.0.0
      falaj model compare latest --with 1.0.0 --html comparison.html
    """
    found = connect(ctx).post("/comparisons", {"run": run, "other": other})
    if page is not None:
        import msgspec

        from falaj.base.files import write_atomic
        from falaj.evaluation.pages import comparison_page
        from falaj.facts.explanations import Comparison

        write_atomic(page, comparison_page(msgspec.convert(found, Comparison)).encode())
        click.echo(f"wrote {page}", err=True)
    if machine:
        return terminal.as_json("model-comparison", found)
    terminal.table(
        [
            (
                p["name"],
                terminal.mark(p["word"]),
                number(p["candidate"]),
                number(p["champion"]),
                number(p["difference"]),
                bounds(p),
            )
            for p in (*found["metrics"], *found["slices"])
        ],
        ("", "", "candidate", "champion", "difference", "95 % bounds"),
    )
    click.echo(f"{found['candidate']} against {found['champion']}, {found['rows']:,} rows")
    return None


@command.command
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="A folder that is made for it."
)
@click.option(
    "--sample",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Rows to compare on: CSV, Parquet, npy; 1,000 drawn ones when not said.",
)
@click.option(
    "--to",
    type=click.Choice(["onnx", "skops", "xgboost-ubj", "lightgbm"]),
    help="The new format; the natural one of the model's library when not said.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=1e-4,
    show_default=True,
    help="How far answers may lie apart, relative above 1.",
)
@click.option(
    "--timeout", type=click.IntRange(1, 86400), default=300, show_default=True, help="Seconds."
)
@click.option(
    "--memory", type=click.IntRange(256), default=4096, show_default=True, help="Megabytes."
)
@terminal.json_option
def convert(
    file: Path,
    out: Path,
    sample: Path | None,
    to: str | None,
    tolerance: float,
    timeout: int,
    memory: int,
    machine: bool,
) -> None:
    """Convert a pickle or joblib file in a sandbox.

    It is held against a list of names, then read in a sandbox without network, where nothing of
    this machine can be written. Only the new file goes on, when it answers as the old one did.

    \b
    Examples:
      falaj model convert model.pkl --out converted
      falaj model convert model.joblib --out converted --sample rows.csv --to onnx
    """
    from falaj.app import sandbox_of
    from falaj.doors.cli.progress import telling
    from falaj.journeys.convert import Asked
    from falaj.journeys.convert import convert as converted

    asked = Asked(file=file, out=out, sample=sample, tolerance=tolerance, to=to or "")
    with telling() as tell:
        found = converted(asked, sandbox_of(seconds=timeout, memory_mb=memory), tell=tell)
    if machine:
        return terminal.as_json("model-conversion", found._asdict())
    rows = f"{found.rows:,} drawn rows" if found.drawn else f"{found.rows:,} rows"
    click.echo(f"{found.kind} is {found.format} now: {out / found.file}")
    click.echo(f"  {terminal.mark('pass')}  answers at most {found.apart:.2g} apart on {rows}")
    word = "skipped" if found.opinion.startswith("absent") else "pass"
    click.echo(f"  {terminal.mark(word)}  second opinion {found.opinion}")
    click.echo(f"  {terminal.short(found.old)} became {terminal.short(found.digest)}")
    click.echo("do not keep the pickle where models are loaded from")
    return None


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def bounds(one: dict[str, Any]) -> str:
    return "too few rows" if one["low"] is None else f"[{one['low']:.4f}, {one['high']:.4f}]"


def write_page(page: Path, found: dict[str, Any]) -> None:
    import msgspec

    from falaj.base.files import write_atomic
    from falaj.evaluation.pages import explanation_page
    from falaj.facts.explanations import Explanation

    write_atomic(page, explanation_page(msgspec.convert(found, Explanation)).encode())
    click.echo(f"wrote {page}", err=True)

"""falaj data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from falaj.base.errors import Exit, FalajError
from falaj.doors.cli import terminal
from falaj.doors.cli.client import connect
from falaj.doors.cli.reports import marked

__all__ = ["command"]

ENDS = {"pass": Exit.OK, "fail": Exit.GATE_FAIL, "inconclusive": Exit.INCONCLUSIVE}
FIRST = 5  # rows that are printed
ORDER = ("fail", "error", "inconclusive", "skipped", "pass")
WRITE = click.option(
    "--write",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write it: .html as a page, .json as it is.",
)


@click.group("data")
def command() -> None:
    """Check, profile and quarantine datasets; take in other suites; propose contracts."""


@command.command
@click.argument("dataset", required=False, default="")
@click.option("--full", is_flag=True, help="Show checks that passed, too.")
@click.option(
    "--sample-pct",
    type=click.FloatRange(0, 100, min_open=True),
    help="Look at so many of the rows; the same ones every time.",
)
@WRITE
@terminal.json_option
@click.pass_context
def check(
    ctx: click.Context,
    dataset: str,
    full: bool,
    sample_pct: float | None,
    write: Path | None,
    machine: bool,
) -> None:
    """Hold a dataset against its contract, now and on all its rows.

    Ends with 0 when every promise is kept, 3 when one is broken, 9 when data cannot decide.

    \b
    Examples:
      falaj data check
      falaj data check flights --write report.html
      falaj data check flights --sample-pct 10
    """
    asked = {"dataset": dataset, "sample_pct": sample_pct}
    reports = connect(ctx).post("/data/check", asked)
    if write:
        written(write, reports, page_of_reports)
    counted = [r["verdict"] for one in reports for r in one["results"] if r["gate"] == "data"]
    verdict = min(counted, key=ORDER.index, default="inconclusive")
    if machine:
        terminal.as_json("data-check", {"verdict": verdict, "reports": reports})
    else:
        for report in reports:
            click.echo(f"{report['dataset']}: {size_of(report)}")
            shown = [r for r in report["results"] if full or r["verdict"] != "pass"]
            terminal.table(
                [(r["check"], marked(r), told(r)) for r in shown],
                ("check", "verdict", "why") if shown else (),
            )
            kept = sum(r["verdict"] == "pass" for r in report["results"])
            click.echo(f"{kept} of {len(report['results'])} promises are kept")
        click.echo(terminal.mark(verdict))
    ctx.exit(ENDS.get(verdict, Exit.GATE_FAIL if verdict == "error" else Exit.INCONCLUSIVE))


def size_of(report: dict[str, Any]) -> str:
    """How many rows, and which of them the checks looked at."""
    words = f"{report['rows']:,} rows"
    if report["set_aside"]:
        words += f", {report['set_aside']:,} more are set aside"
    if report["sample_pct"] is not None:
        words += f"; checks about single rows look at a sample of {report['sample_pct']:g} %"
    return words


def told(result: dict[str, Any]) -> str:
    """Why, and the first rows that break it; they come masked."""
    rows = result["details"].get("sample", [])[:3]
    words = ", ".join(f"row {row['row']}: {row['value']}" for row in rows)
    return f"{result['reason']} ({words})" if words else str(result["reason"])


@command.command
@click.argument("dataset")
@click.option(
    "--write",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the rows: .csv, or .json with the counts.",
)
@terminal.json_option
@click.pass_context
def quarantine(ctx: click.Context, dataset: str, write: Path | None, machine: bool) -> None:
    """Show the rows that break the contract, with the checks that they break.

    Values of confidential columns are shown as their shape, those of personal ones as tokens. At
    most the first 10,000 rows are written. Whether such rows are set aside in a run says
    `quarantine_pct` of the dataset.

    \b
    Examples:
      falaj data quarantine flights
      falaj data quarantine flights --write rejected.csv
    """
    found = connect(ctx).post("/data/quarantine", {"dataset": dataset})
    if write:
        write_rows(write, found)
    if machine:
        return terminal.as_json("data-quarantine", found)
    share = 100 * found["rows"] / found["of"] if found["of"] else 0.0
    click.echo(
        f"{dataset}: {found['rows']:,} of {found['of']:,} rows ({share:.3g} %) break the contract"
    )
    terminal.table([(name, f"{n:,}") for name, n in found["checks"].items()])
    for row in found["shown"][:FIRST]:
        values = ", ".join(
            f"{column} {value}"
            for column, value in zip(found["columns"], row["values"], strict=True)
        )
        click.echo(f"row {row['row']}: {', '.join(row['checks'])}: {values[:200]}")
    limit = found["limit_pct"]
    if limit is not None:
        click.echo(f"a run sets them aside, up to {limit:g} % of the rows")
    elif found["rows"]:
        click.echo("a run stops; `quarantine_pct` of the dataset would set them aside")
    return None


def write_rows(path: Path, found: dict[str, Any]) -> None:
    if path.suffix not in {".csv", ".json"}:
        raise click.UsageError(
            f"--write: got {path.suffix or 'no ending'!r}, expected .csv or .json"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return
    import csv

    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["falaj_row", "falaj_broken", *found["columns"]])
        for row in found["shown"]:
            writer.writerow([row["row"], " ".join(row["checks"]), *row["values"]])


@command.command
@click.argument("dataset")
@click.option("--by", default="", metavar="COLUMN", help="Also rates of 0/1 columns in its groups.")
@click.option(
    "--edges",
    type=click.Path(file_okay=False, path_type=Path),
    help="Also write COLUMN.edges.json files, for distribution rules of a contract.",
)
@WRITE
@terminal.json_option
@click.pass_context
def profile(
    ctx: click.Context,
    dataset: str,
    by: str,
    edges: Path | None,
    write: Path | None,
    machine: bool,
) -> None:
    """Show what the columns of a dataset hold, as far as their class lets it be seen.

    \b
    Examples:
      falaj data profile flights
      falaj data profile flights --by carrier --write profile.html
    """
    found = connect(ctx).post("/data/profile", {"dataset": dataset, "by": by})
    if write:
        written(write, found, page_of_profile)
    if edges:
        edges.mkdir(parents=True, exist_ok=True)
        for column in found["columns"]:
            if column["edges"] and column["name"].replace("_", "").isalnum():
                text = json.dumps(column["edges"], sort_keys=True, separators=(",", ":"))
                (edges / f"{column['name']}.edges.json").write_text(text)
    if machine:
        return terminal.as_json("data-profile", found)
    click.echo(f"{found['dataset']}: {found['rows']:,} rows, {found['version'][:21]}")
    terminal.table(
        [
            (
                column["name"],
                column["type"],
                count(column["nulls"]),
                count(column["distinct"]) if column["distinct"] is not None else "",
                seen(column),
            )
            for column in found["columns"]
        ],
        ("column", "type", "nulls", "distinct", "values"),
    )
    for rate in found["rates"]:
        bounds = "" if rate["rate"] is None else f"{rate['rate']:.3f}"
        if rate["low"] is not None:
            bounds += f" [{rate['low']:.3f}, {rate['high']:.3f}]"
        click.echo(f"{rate['column']} where {found['by']} = {rate['group']}: {bounds or 'too few'}")
    return None


def count(value: int | None) -> str:
    return "few" if value is None else f"{value:,}"


def seen(column: dict[str, Any]) -> str:
    if not column["is_open"]:
        return f"{column['classification']}: not shown"
    if column["quantiles"]:
        middle = column["quantiles"].get("0.5")
        return f"{column['minimum']} to {column['maximum']}, median {middle:g}"
    if column["top"]:
        return ", ".join(f"{one['value']} ({one['count']:,})" for one in column["top"][:3])
    ends = (column["minimum"], column["maximum"])
    return "" if ends == (None, None) else f"{ends[0]} to {ends[1]}"


@command.group
def contract() -> None:
    """Propose a contract; compare two."""


@contract.command
@click.argument("dataset")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write; nothing: contracts/DATASET.odcs.yaml.",
)
@terminal.json_option
@click.pass_context
def init(ctx: click.Context, dataset: str, output: Path | None, machine: bool) -> None:
    """Propose a contract from the rows of a dataset; a person goes through it.

    \b
    Examples:
      falaj data contract init flights
      falaj data contract init flights -o proposed.odcs.yaml
    """
    path = output or Path("contracts", f"{dataset}.odcs.yaml")
    if path.exists():
        raise FalajError(
            "data.contract-exists",
            f"{path} is there already",
            why="a contract is an agreement; it is never written over",
            fix="name another file with -o and compare: falaj data contract diff OLD NEW",
        )
    found = connect(ctx).post("/data/contract", {"dataset": dataset})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(found["contract"], encoding="utf-8")
    marks = found["contract"].count("# check:")
    if machine:
        return terminal.as_json("data-contract", {"file": str(path), "to_check": marks, **found})
    click.echo(f"wrote {path}; {marks} lines say `# check:`, where a person has to decide")
    click.echo(f'next: name it in falaj.toml: contract = "{path}"; then falaj data check {dataset}')
    return None


@contract.command
@click.argument("old", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("new", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@terminal.json_option
@click.pass_context
def diff(ctx: click.Context, old: Path, new: Path, machine: bool) -> None:
    """Tell whether data of a new contract still keeps the old one.

    Ends with 0 when it does, 3 when a change is breaking. Both files are read here.

    \b
    Examples:
      falaj data contract diff old.odcs.yaml new.odcs.yaml
      falaj data contract diff old.odcs.yaml new.odcs.yaml --json
    """
    from falaj.data.compare import compare
    from falaj.data.odcs import read_contract
    from falaj.facts.wire import plain

    changes = compare(read_contract(old), read_contract(new))
    breaking = [change for change in changes if change.kind == "breaking"]
    verdict = "breaking" if breaking else "compatible"
    if machine:
        terminal.as_json(
            "data-contract-diff", {"verdict": verdict, "changes": [plain(c) for c in changes]}
        )
    else:
        if changes:
            terminal.table([(c.kind, c.where, c.what) for c in changes])
        click.echo(f"{verdict}: {len(changes)} changes, {len(breaking)} of them breaking")
    ctx.exit(Exit.GATE_FAIL if breaking else Exit.OK)


@command.command("take-in")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dataset", required=True, help="The dataset that the suite looked at.")
@click.option("--full", is_flag=True, help="Show checks that passed, too.")
@terminal.json_option
@click.pass_context
def take_in(ctx: click.Context, file: Path, dataset: str, full: bool, machine: bool) -> None:
    """Take in what a suite of another tool found; the gate `data` counts it.

    FILE is the JSON that the tool writes: a validation result of Great Expectations, the JSON report
    of Pointblank, the failure cases of Pandera. No value of a row is kept.

    \b
    Examples:
      falaj data take-in validation.json --dataset flights
      falaj data take-in validation.json --dataset flights --full --json
    """
    text = file.read_text(encoding="utf-8", errors="replace")
    report = connect(ctx).post("/data/suites", {"dataset": dataset, "report": text})
    counted = [r["verdict"] for r in report["results"] if r["gate"] == "data"]
    verdict = min(counted, key=ORDER.index, default="inconclusive")
    if machine:
        terminal.as_json("data-take-in", {**report, "verdict": verdict})
    else:
        shown = [r for r in report["results"] if full or r["verdict"] != "pass"]
        terminal.table(
            [(r["check"], marked(r), told(r)) for r in shown],
            ("check", "verdict", "why") if shown else (),
        )
        kept = sum(r["verdict"] == "pass" for r in report["results"])
        click.echo(f"{report['tool']}: {kept} of {len(report['results'])} checks pass")
        click.echo(terminal.mark(verdict))
    ctx.exit(ENDS.get(verdict, Exit.GATE_FAIL if verdict == "error" else Exit.INCONCLUSIVE))


def written(path: Path, found: Any, page: Any) -> None:
    if path.suffix not in {".html", ".json"}:
        raise click.UsageError(
            f"--write: got {path.suffix or 'no ending'!r}, expected .html or .json"
        )
    text = page(found) if path.suffix == ".html" else json.dumps(found, indent=1) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def page_of_reports(found: Any) -> str:
    import msgspec

    from falaj.data.pages import report_page
    from falaj.facts.data import ContractReport

    return report_page(msgspec.convert(found, list[ContractReport]))


def page_of_profile(found: Any) -> str:
    import msgspec

    from falaj.data.pages import profile_page
    from falaj.facts.profiles import Profile

    return profile_page(msgspec.convert(found, Profile))

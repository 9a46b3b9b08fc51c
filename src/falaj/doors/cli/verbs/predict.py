"""falaj predict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from falaj.doors.cli import terminal
from falaj.doors.cli.client import connect

__all__ = ["command"]


@click.command
@click.argument("rows", nargs=-1, required=True)
@click.option("--model", "-M", default="", help="Which model, where several are live.")
@click.option("--url", default="", help="Address of a server; else the environment's is asked.")
@click.option("-e", "--environment", default="", help="Whose server; the last one when not said.")
@click.option(
    "--batch",
    type=click.IntRange(1, 10_000),
    default=500,
    show_default=True,
    help="Rows of one request.",
)
@click.option(
    "--retries", type=click.IntRange(0, 20), default=3, show_default=True, help="At most."
)
@click.option("--timeout", type=float, default=10.0, show_default=True, help="Seconds a request.")
@click.option("--token-file", default="", help="A file with the token for that server.")
@terminal.json_option
@click.pass_context
def command(
    ctx: click.Context,
    rows: tuple[str, ...],
    model: str,
    url: str,
    environment: str,
    batch: int,
    retries: int,
    timeout: float,
    token_file: str,
    machine: bool,
) -> None:
    """Ask a live model: rows from a file, from standard input, or typed.

    A file is CSV with a line of names, JSON (a list of objects, or {"rows": [...]}), or an object a
    line; `-` is standard input. Typed rows are NAME=VALUE. A refused connection, 503 and 429 are
    tried again, what may have been answered is not.

    \b
    Examples:
      falaj predict hour=18 distance=733
      falaj predict flights.csv --model flight-delay --json
      falaj predict - --url http://127.0.0.1:8080 < rows.json
    """
    from falaj.client import Client, Policy, Refused

    given = list(read(rows))
    address = url or found(ctx, environment, model)
    token = text_of(token_file).strip() if token_file else ""
    predictions: list[dict[str, Any]] = []
    answers = []
    policy = Policy(retries=retries)
    with Client(address, token=token, timeout_s=timeout, policy=policy) as client:
        for first in range(0, len(given), batch):
            try:
                answer = client.predict(given[first : first + batch], model=model)
            except Refused as error:
                raise placed(error, first) from None
            answers.append(answer)
            predictions.extend(
                {"row": first + at, **one, "request": answer.request}
                for at, one in enumerate(answer.predictions)
            )
    if machine:
        told = {
            "predictions": predictions,
            "model": answers[0].model,
            "releases": sorted({answer.release for answer in answers}),
        }
        return terminal.as_json("predict", told)
    names = [name for name in predictions[0] if name not in ("row", "request")]
    lines = [[str(at), *(shown(one[name]) for name in names)] for at, one in enumerate(predictions)]
    terminal.table(lines, ("row", *names))
    for release in dict.fromkeys(answer.release for answer in answers):
        of = next(answer for answer in answers if answer.release == release)
        click.echo(f"{of.model} {of.version} ({terminal.short(release)}) · request {of.request}")
    return None


def placed(error: Exception, first: int) -> Exception:
    """Say where the rows that were refused begin; the server counts from the request's first."""
    from dataclasses import replace

    from falaj.base.errors import FalajError

    if first == 0 or not isinstance(error, FalajError):
        return error
    return FalajError.of(
        tuple(
            replace(problem, message=f"of the rows from {first} on: {problem.message}")
            for problem in error.problems
        )
    )


def shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def found(ctx: click.Context, environment: str, model: str) -> str:
    """Address of a server that is ready, of the last environment where the model is live."""
    from falaj.base.errors import FalajError

    environments = connect(ctx).get("/status")["environments"]
    for one in reversed(environments):
        if environment and one["environment"] != environment:
            continue
        live = {move["model"] for move in one["live"]}
        if model and model not in live:
            continue
        for server in one["servers"]:
            if live and server["ready"]:
                return str(server["url"])
    where = f" in {environment}" if environment else ""
    raise FalajError(
        "serving.unreachable",
        f"{model or 'no model'} is {'not ' if model else ''}live{where}, or no server is ready",
        fix="look at `falaj status`, or give --url",
    )


def read(words: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Rows of what was typed: NAME=VALUE for one row, else files. Raises FalajError."""
    if all("=" in word for word in words):
        yield {name: cell(text) for name, _, text in (word.partition("=") for word in words)}
        return
    for word in words:
        rows = parse(word, text_of(word))
        if not rows:
            raise unreadable(word, "it has no rows")
        yield from rows


def text_of(word: str) -> str:
    import sys
    from pathlib import Path

    try:
        if word == "-":
            return sys.stdin.read()
        return Path(word).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(word, getattr(error, "strerror", None) or "not UTF-8") from None


def parse(word: str, text: str) -> list[dict[str, Any]]:
    """Rows of JSON, of an object a line, or of CSV: what the first sign says."""
    import csv
    import io
    import json

    start = text.lstrip()[:1]
    if start in ("[", "{"):
        try:
            told = json.loads(text)
        except ValueError:
            try:
                told = [json.loads(line) for line in text.splitlines() if line.strip()]
            except ValueError as error:
                raise unreadable(word, f"neither JSON nor an object a line: {error}") from None
        if isinstance(told, dict):
            told = told["rows"] if isinstance(told.get("rows"), list) else [told]
        if not all(isinstance(row, dict) for row in told):
            raise unreadable(word, "a row is an object by column name")
        return list(told)
    lines = [line for line in csv.reader(io.StringIO(text, newline="")) if line]
    if any(len(line) != len(lines[0]) for line in lines):
        raise unreadable(word, "its lines have different numbers of values")
    return [
        {name: cell(text) for name, text in zip(lines[0], line, strict=True)} for line in lines[1:]
    ]


def cell(text: str) -> Any:
    """Read a number, true, false, nothing (null), or text."""
    word = text.strip()
    if word in ("", "null"):
        return None
    if word in ("true", "false"):
        return word == "true"
    for kind in (int, float):
        try:
            value: Any = kind(word)
        except ValueError:
            continue
        # What JSON cannot say, a server would not read either.
        return value if value == value and abs(value) != float("inf") else text  # noqa: PLR0124
    return text


def unreadable(word: str, why: str) -> Exception:
    from falaj.base.errors import FalajError

    return FalajError(
        "cli.rows",
        f"{'standard input' if word == '-' else word}: {why}",
        why="rows are CSV with a line of names, JSON, or NAME=VALUE",
        fix="see `falaj predict --help`",
    )

"""falaj score."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from falaj.doors.cli import terminal

__all__ = ["command"]


@click.command
@click.argument("release")
@click.argument("input")
@click.argument("output")
@click.option(
    "--keep", multiple=True, metavar="COLUMN", help="A column that goes through, such as a key."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["parquet", "csv", "arrow", "jsonl"]),
    default="parquet",
    show_default=True,
    help="Of what is written.",
)
@click.option(
    "--part-rows",
    default=1_000_000,
    show_default=True,
    type=click.IntRange(1),
    help="Rows of a part, about.",
)
@click.option(
    "--max-rejected",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="More bad rows than this end the job.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where parts are made.",
)
@click.option(
    "--trust",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The trust root; the workspace's own when not said.",
)
@terminal.json_option
@click.pass_context
def command(
    ctx: click.Context,
    release: str,
    input: str,
    output: str,
    keep: tuple[str, ...],
    form: str,
    part_rows: int,
    max_rejected: int,
    engine: str,
    trust: Path | None,
    machine: bool,
) -> None:
    """Answer a whole table with one release, part by part, resumably.

    RELEASE is a version, an id or a folder; it is verified before it is loaded. INPUT is a file, a
    folder or a pattern of Parquet, CSV, Arrow or JSON lines, delta:PATH or s3://BUCKET/PREFIX. OUTPUT is
    a folder of parts, or s3://BUCKET/PREFIX; killed and run again, the job makes what is missing and
    ends with the very same digest.

    \b
    Examples:
      falaj score 1.0.0 flights.parquet scored --keep id
      falaj score release/ rows.csv scored --trust trust.json --format csv
    """
    from falaj.app import cluster_tasks, row_formats
    from falaj.journeys.score import Asked, score

    told, folder, root, name = placed(ctx, release, input, output, trust)
    project = own_project() if told is not None else None
    given, work = local(ctx, input, output, project)
    asked = Asked(
        folder=folder,
        trust=root,
        input=given,
        output=work,
        keep=tuple(keep),
        format=form,
        rows=part_rows,
        max_rejected=max_rejected,
    )
    tasks = None
    if engine == "ray":
        from falaj.doors.cli.client import project_root

        tasks = cluster_tasks(own_project(), project_root())
    with watching() as tell:
        job = score(asked, row_formats(), tasks=tasks, tell=tell)
    if output.startswith("s3://"):
        from falaj.app import bucket_tables

        bucket_tables(output, project).send(work, output)
    if told is not None:
        import msgspec

        told.post(f"/releases/{name}/scored", msgspec.to_builtins(job))
    if machine:
        import msgspec

        return terminal.as_json("score", msgspec.to_builtins(job))
    click.echo(
        f"{job.rows:,} rows answered by {job.model} {job.version}, {job.rejected:,} rejected, "
        f"{job.parts} part(s) in {output}"
    )
    click.echo(f"tree {job.tree}")
    if told is None:
        click.echo("not written into a log: the release is of no project here", err=True)
    return None


def own_project() -> Any:
    from falaj.doors.cli.client import project_root
    from falaj.links.files.project import read_project

    return read_project(project_root() / "falaj.toml")


def local(ctx: click.Context, input: str, output: str, project: Any) -> tuple[str, Path]:
    """Where the table and the parts lie on this machine; a table in a bucket is brought first."""
    import tempfile

    from falaj.app import bucket_tables
    from falaj.base import digests
    from falaj.base.errors import FalajError

    given, work = input, Path(output)
    if input.startswith("s3://"):
        scratch = tempfile.TemporaryDirectory(prefix="falaj-score-")
        ctx.call_on_close(scratch.cleanup)
        given = str(bucket_tables(input, project).bring(input, Path(scratch.name)))
    if output.startswith("s3://"):
        if project is None:
            raise FalajError(
                "score.not-listed",
                f"{output} is no place that a project lists",
                why="where rows may go is decided in [[links.remotes]] of falaj.toml",
                fix="score it inside the project, or into a folder",
            )
        from falaj.doors.cli.client import project_root

        work = (
            project_root() / ".falaj" / "scored" / digests.short(digests.of_bytes(output.encode()))
        )
    return given, work


def placed(
    ctx: click.Context, release: str, input: str, output: str, trust: Path | None
) -> tuple[Any, Path, str, str]:
    """Who hears of it, the release's folder, the trust root, the release's id."""
    from falaj.base.errors import FalajError, NotFound
    from falaj.doors.cli.client import connect, project_root

    folder = Path(release)
    if folder.is_dir() and trust is not None:
        return None, folder, trust.read_text(encoding="utf-8"), ""
    client = connect(ctx)
    root = project_root()
    name = release
    if folder.is_dir():
        from falaj.base import digests

        manifest = folder / "release.json"
        if not manifest.is_file():
            raise FalajError(
                "serving.no-release",
                f"{folder} holds no release.json",
                why="a release folder has one",
                fix="give the folder that `falaj release` made",
            )
        name = digests.of_file(manifest)
    text = (trust or root / ".falaj" / "keys" / "trust.json").read_text(encoding="utf-8")
    try:
        found = client.post(f"/releases/{name}/scoring", {"input": input, "output": output})
    except NotFound:
        raise
    except FalajError as error:
        if error.code == "releases.unknown" and folder.is_dir():
            return None, folder, text, ""
        raise
    return client, folder if folder.is_dir() else root / found["folder"], text, found["id"]


@contextmanager
def watching() -> Iterator[Callable[[int, int, int, int], None]]:
    """A bar with rate and time left on a terminal; a line now and then elsewhere."""
    import sys
    import time

    begun = time.monotonic()
    if not sys.stderr.isatty():
        last = begun

        def plain(parts: int, of: int, rows: int, _total: int) -> None:
            nonlocal last
            if time.monotonic() - last >= 2.0:
                last = time.monotonic()
                rate = rows / max(last - begun, 1e-9)
                left = (of - parts) * (last - begun) / max(parts, 1)
                click.echo(
                    f"  {parts} of {of} parts, {rows:,} rows, {rate:,.0f}/s, {left:.0f} s left",
                    err=True,
                )

        yield plain
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(24),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("verifying", total=None)

        def alive(parts: int, of: int, rows: int, total: int) -> None:
            rate = rows / max(time.monotonic() - begun, 1e-9)
            words = f"{parts} of {of} parts, {rows:,} rows, {rate:,.0f}/s"
            done, whole = (rows, total) if total > 0 else (parts, of)
            bar.update(task, total=whole, completed=done, description=words)

        yield alive

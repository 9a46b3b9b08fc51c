"""falaj audit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from falaj.base.errors import Exit
from falaj.doors.cli import terminal
from falaj.doors.cli.client import connect

__all__ = ["command"]

LIMIT = click.IntRange(1, 1000)


@click.group("audit")
def command() -> None:
    """Read the log of what happened; prove it, export it, verify it."""


@command.command
@click.option(
    "--limit", type=LIMIT, default=50, show_default=True, help="How many events, newest last."
)
@terminal.json_option
@click.pass_context
def log(ctx: click.Context, limit: int, machine: bool) -> None:
    """Print the newest events, with the root of the whole log.

    \b
    Examples:
      falaj audit log
      falaj audit log --limit 5 --json
    """
    client = connect(ctx)
    size = client.get("/events", limit=1)["size"]
    found = client.get("/events", after=max(size - limit, 0) - 1, limit=limit)
    if machine:
        return terminal.as_json("audit-log", found)
    rows(client, found["events"])
    click.echo(f"{found['size']} events, root {found['root']}")
    return None


@command.command("list")
@click.option("--who", default="", help="A name, or a person's pseudonym.")
@click.option("--object", "subject", default="", help="Such as change/CHG-0001.")
@click.option("--type", "kind", default="", help="Such as change.approved, or change. for all.")
@click.option("--since", default="", help="From this time on.")
@click.option("--until", default="", help="Before this time.")
@click.option("--before", type=int, help="Only places below this one: the next page.")
@click.option("--limit", type=LIMIT, default=50, show_default=True, help="How many events.")
@terminal.json_option
@click.pass_context
def list_some(
    ctx: click.Context,
    who: str,
    subject: str,
    kind: str,
    since: str,
    until: str,
    before: int | None,
    limit: int,
    machine: bool,
) -> None:
    """List events by who, what and when, the newest first; with the ids that `prove` wants.

    \b
    Examples:
      falaj audit list --who owner --type change.
      falaj audit list --object change/CHG-0001 --since 2026-01-01 --json
    """
    client = connect(ctx)
    people = {p["name"]: p["person"] for p in client.get("/identities")} if who else {}
    asked: dict[str, Any] = {
        "actor": people.get(who, who),
        "subject": subject,
        "type": kind,
        "since": since,
        "until": until,
        "limit": limit,
    }
    if before is not None:
        asked["before"] = before
    found = client.get("/log/events", **asked)
    if machine:
        return terminal.as_json("audit-list", found)
    rows(client, found["events"], ids=True)
    if found["next"]:
        click.echo(f"more: the same with --before {found['next']}")
    return None


def rows(client: Any, events: list[dict[str, Any]], *, ids: bool = False) -> None:
    people = {p["person"]: p["name"] for p in client.get("/identities")}
    terminal.table(
        [
            (
                str(event["place"]),
                *((event["id"],) if ids else ()),
                event["time"],
                people.get(event["actor"], event["actor"]),
                event["type"].removeprefix("falaj.") + refusal(event["data"]),
                event["subject"],
            )
            for event in events
        ],
        ("place", *(("id",) if ids else ()), "time", "who", "what", "object"),
    )


def refusal(data: dict[str, Any]) -> str:
    """Of what was refused: by which rules."""
    codes = data.get("codes") or [data["code"]] if "code" in data else []
    return f" [{', '.join(map(str, codes))}]" if codes else ""


@command.command
@click.argument("event")
@click.option("-o", "--output", default="", help="The file; EVENT.tlog-proof when not said.")
@click.pass_context
def prove(ctx: click.Context, event: str, output: str) -> None:
    """Write a proof that one event (its id, or `latest`) stands in the log, to be checked elsewhere.

    \b
    Examples:
      falaj audit prove latest
      falaj audit prove latest -o audit/approval.tlog-proof
    """
    data = connect(ctx).raw("GET", f"/log/proofs/{event}")
    wrote(Path(output or f"{event}.tlog-proof"), data)


@command.command
@click.argument("size", type=click.IntRange(min=0))
@click.option("-o", "--output", default="log.growth", show_default=True, help="The file.")
@click.pass_context
def growth(ctx: click.Context, size: int, output: str) -> None:
    """Write a proof that the log continues what it was when it had SIZE events.

    SIZE is the second line of the checkpoint that you kept.

    \b
    Examples:
      falaj audit growth 12
      falaj audit growth 12 -o audit/2026-03.growth
    """
    wrote(Path(output), connect(ctx).raw("GET", f"/log/growth/{size}"))


@command.command
@click.option("-o", "--output", default="checkpoint", show_default=True, help="The file.")
@click.pass_context
def checkpoint(ctx: click.Context, output: str) -> None:
    """Write the newest checkpoint, to be kept elsewhere and compared later.

    \b
    Examples:
      falaj audit checkpoint
      falaj audit checkpoint -o audit/2026-03.checkpoint
    """
    wrote(Path(output), connect(ctx).raw("GET", "/log/checkpoint"))


@command.command
@click.option("-o", "--output", default="log-export", show_default=True, help="A new folder.")
@click.pass_context
def export(ctx: click.Context, output: str) -> None:
    """Write the whole log as files: every event, the tiles of the tree, the checkpoint.

    \b
    Examples:
      falaj audit export
      falaj audit export -o audit/log
    """
    import io

    from falaj.audit.container import bytes_of, read_members
    from falaj.base.errors import FalajError

    folder = Path(output)
    if folder.exists():
        raise FalajError(
            "audit.export-exists",
            f"{folder} exists already",
            why="files of another export would stay between these",
            fix="name a new folder with -o",
        )
    data = connect(ctx).raw("GET", "/log/export")
    file = io.BytesIO(data)
    members = read_members(file)
    for member in members:
        path = folder / member.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes_of(file, member, most=member.size))
    click.echo(f"{folder}  {len(members)} files, {len(data):,} bytes")


@command.command
@terminal.json_option
@click.pass_context
def verify(ctx: click.Context, machine: bool) -> None:
    """Compute the whole log anew and compare; ends with 7 and the first place that differs.

    \b
    Examples:
      falaj audit verify
      falaj audit verify --json
    """
    found = connect(ctx).get("/log/verification")
    if machine:
        terminal.as_json("audit-verify", found)
    else:
        for finding in found["findings"]:
            click.echo(f"{terminal.mark('fail')}  {finding['message']}")
        if found["findings"]:
            click.echo(f"the log differs, first at place {found['first']}")
        else:
            click.echo(
                f"{terminal.mark('pass')}  {found['size']} events lead to root {found['root'][:16]}, "
                f"as {found['checkpoints']} signed checkpoints say; {found['witnessed']} times "
                "seen by witnesses"
            )
    ctx.exit(Exit.UNVERIFIED if found["findings"] else Exit.OK)


@command.group("witness")
def witness() -> None:
    """Show who holds the checkpoints of the log; try them."""


@witness.command("list")
@terminal.json_option
@click.pass_context
def list_witnesses(ctx: click.Context, machine: bool) -> None:
    """List the witnesses of falaj.toml, and the keys to hand to their operators.

    \b
    Examples:
      falaj audit witness list
      falaj audit witness list --json
    """
    told(connect(ctx).get("/log"), machine)


@witness.command
@terminal.json_option
@click.pass_context
def check(ctx: click.Context, machine: bool) -> None:
    """Try what each witness promises, and show it the newest checkpoint now.

    Ends with 7 when one of them refuses, with 8 when one is away.

    \b
    Examples:
      falaj audit witness check
      falaj audit witness check --json
    """
    found = connect(ctx).post("/log/witnesses", {})
    told(found, machine)
    codes = {one["code"] for one in found["witnesses"] if one["code"]}
    if codes - {"audit.witness-away"}:
        ctx.exit(Exit.UNVERIFIED)
    ctx.exit(Exit.CONFLICT if codes else Exit.OK)


def told(found: dict[str, Any], machine: bool) -> None:
    if machine:
        return terminal.as_json("audit-witnesses", found)
    click.echo(f"log {found['origin']}, {found['size']} events, signed {found['signed']}")
    for key in found["keys"]:
        click.echo(f"its key, for whoever is to witness it: {key}")
    click.echo(f"key of the witness that is here: {found['own']}")
    if not found["witnesses"]:
        click.echo("no witness: who administers this log could write it anew unseen")
    for one in found["witnesses"]:
        seen = f"{one['size']} events at {one['at']}" if one["size"] else "nothing yet"
        mark = terminal.mark("fail" if one["trouble"] else "pass" if one["size"] else "no data")
        click.echo(f"{mark}  {one['name']}  {seen}  {one['where']}")
        for word in one["probed"]:
            click.echo(f"      {word}")
        if one["trouble"]:
            click.echo(f"      {one['trouble']}")
    return None


def wrote(path: Path, data: bytes) -> None:
    from falaj.base.files import write_atomic

    write_atomic(path, data)
    click.echo(f"{path}  {len(data):,} bytes")

"""falaj scan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from falaj.base.errors import Exit, FalajError
from falaj.doors.cli import terminal
from falaj.doors.cli.client import connect
from falaj.doors.cli.reports import marked

__all__ = ["command"]

ENDS = {"pass": Exit.OK, "fail": Exit.GATE_FAIL, "inconclusive": Exit.INCONCLUSIVE}
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group("scan", invoke_without_command=True)
@click.option(
    "--only", type=click.Choice(["dependencies", "code"]), default=None, help="One of the two."
)
@click.option(
    "--sarif",
    "to",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write it as SARIF 2.1.0.",
)
@click.option("--full", is_flag=True, help="Show checks that passed, too.")
@terminal.json_option
@click.pass_context
def command(
    ctx: click.Context, only: str | None, to: Path | None, full: bool, machine: bool
) -> None:
    """Look for known vulnerabilities, licences and secrets, offline.

    Ends with 0 when nothing counts, 3 when something does, 9 when it cannot be said, 1 when a scanner
    is missing.

    \b
    Examples:
      falaj scan --only dependencies --sarif scan.sarif
      falaj scan --only dependencies --json
    """
    if ctx.invoked_subcommand is not None:
        return
    client = connect(ctx)
    scan = client.post("/scans", {"what": [only] if only else ["dependencies", "code"]})
    if to is not None:
        from falaj.base.files import write_atomic

        write_atomic(to, client.raw("GET", f"/scans/{scan['id']}/sarif"))
        click.echo(f"wrote {to}", err=True)
    if machine:
        terminal.as_json("scan", scan)
    else:
        shown = [r for r in scan["results"] if full or r["verdict"] != "pass"]
        terminal.table(
            [(r["check"], marked(r), r["reason"]) for r in shown],
            ("check", "verdict", "why") if shown else (),
        )
        click.echo(told(scan))
        click.echo(terminal.mark(scan["verdict"]))
    ctx.exit(ENDS.get(scan["verdict"], Exit.INTERNAL))


def told(scan: dict[str, Any]) -> str:
    against = "no advisories"
    if scan["database"]:
        against = f"advisories {terminal.short(scan['database'])} of {scan['built_at'][:10]}"
    tools = "".join(f", {tool} {version}" for tool, version in scan["tools"].items())
    return f"{scan['packages']} packages of {scan['lock_file'] or 'what is installed'}, {against}{tools}"


@command.group
def database() -> None:
    """Build, import and show the database of advisories."""


@database.command
@click.argument("archive", type=FILE)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("advisories.zip"),
    show_default=True,
    help="The bundle to write; the trust root comes beside it.",
)
@click.option(
    "--keys",
    type=click.Path(file_okay=False, path_type=Path),
    help="The key ring that signs; inside a project its own when not said.",
)
@click.option("--ecosystem", default="PyPI", show_default=True, help="Whose packages.")
@terminal.json_option
def build(archive: Path, output: Path, keys: Path | None, ecosystem: str, machine: bool) -> None:
    """Make a signed bundle from an export of OSV records; outside, where a network is.

    ARCHIVE is all.zip of one ecosystem, as the OSV project publishes it.

    \b
    Examples:
      falaj scan database build all.zip --keys vulndb-keys
      falaj scan database build all.zip -o pypi.zip
    """
    from falaj.base import time
    from falaj.base.files import write_atomic
    from falaj.facts.wire import plain
    from falaj.links.keyring.keys import KeyRing
    from falaj.links.osv.records import build as made

    ring = KeyRing(keys or own_ring())
    ring.create("vulndb", ("vulndb",))
    stated = made(
        archive, output, ecosystem=ecosystem, signer=ring.signer("vulndb"), now=time.now()
    )
    trust = output.with_name(f"{output.stem}.trust.json")
    write_atomic(trust, ring.trust_text().encode())
    if machine:
        return terminal.as_json(
            "scan-database", {**plain(stated), "bundle": str(output), "trust": str(trust)}
        )
    newest = f", the newest of {time.text(stated.newest)[:10]}" if stated.newest else ""
    click.echo(f"{stated.records:,} records about {stated.ecosystem}{newest}")
    click.echo(f"wrote {output}, signed by role vulndb, and {trust}")
    click.echo(f"next, inside: falaj scan database import {output} --trust {trust}")
    return None


def own_ring() -> Path:
    from falaj.app import STATE
    from falaj.doors.cli.client import project_root

    try:
        return project_root() / STATE / "keys"
    except FalajError:
        raise click.UsageError("outside of a project, name a key ring with --keys") from None


@database.command("import")
@click.argument("bundle", type=FILE)
@click.option("--trust", type=FILE, help="The trust root of who signs; else the workspace's own.")
@terminal.json_option
@click.pass_context
def take_in(ctx: click.Context, bundle: Path, trust: Path | None, machine: bool) -> None:
    """Verify a bundle, use it from now on, look at all released models again.

    An older one than that in use is refused.

    \b
    Examples:
      falaj scan database import advisories.zip --trust advisories.trust.json
      falaj scan database import pypi.zip --json
    """
    from base64 import b64encode

    found = connect(ctx).post(
        "/advisories",
        {
            "bundle": b64encode(bundle.read_bytes()).decode(),
            "trust": trust.read_text(encoding="utf-8", errors="replace") if trust else "",
        },
    )
    if machine:
        return terminal.as_json("advisories", found)
    say(found)
    for line in found["alerts"]:
        click.echo(f"{terminal.mark('warning')}  {line}")
    if not found["alerts"]:
        click.echo("nothing new about the models that are released")
    return None


@database.command
@terminal.json_option
@click.pass_context
def show(ctx: click.Context, machine: bool) -> None:
    """Show the database in use, and how old it is.

    \b
    Examples:
      falaj scan database show
      falaj scan database show --json
    """
    found = connect(ctx).get("/advisories")
    if machine:
        return terminal.as_json("advisories", found)
    if found["database"] is None:
        return click.echo("none yet; import one: falaj scan database import BUNDLE")
    return say(found)


def say(found: dict[str, Any]) -> None:
    kept = found["database"]
    click.echo(
        f"{kept['records']:,} records about {kept['ecosystem']}, {terminal.short(kept['id'])}"
    )
    click.echo(f"built {kept['built_at']}, {found['age_days']:.1f} days ago, from {kept['source']}")
    click.echo(f"signed by {kept['signer']} ({kept['key'][:16]})")

"""falaj release."""

from __future__ import annotations

from pathlib import Path

import click

from falaj.base.errors import Exit
from falaj.doors.cli import terminal
from falaj.doors.cli.client import connect

__all__ = ["command"]


@click.group("release")
def command() -> None:
    """Create, sign, list and show releases."""


@command.command
@click.argument("run", required=False, default="")
@click.option("--version", default="", help="Its version; the next minor one when not said.")
@terminal.json_option
@click.pass_context
def create(ctx: click.Context, run: str, version: str, machine: bool) -> None:
    """Build and sign the release of a run's model.

    Of the newest run's when none is named.

    \b
    Examples:
      falaj release create
      falaj release create --version 1.1.0
    """
    release = connect(ctx).post("/releases", {"run": run, "version": version})
    if machine:
        return terminal.as_json("release", release)
    click.echo(f"release {release['model']} {release['version']}  {release['id']}")
    click.echo(f"folder {release['folder']}, signed")
    click.echo("next: falaj change open")
    return None


@command.command
@click.argument("release", required=False, default="")
@click.option("--as", "identity", metavar="NAME", help="Whose key signs; your own when not said.")
@terminal.json_option
@click.pass_context
def sign(ctx: click.Context, release: str, identity: str | None, machine: bool) -> None:
    """Add a further signature to a release, with a key of its own.

    The newest release when none is named. The first signature is in signature.json, each further
    one lies below signatures/.

    \b
    Examples:
      falaj release sign 1.0.0 --as layla
      falaj --as layla release sign
    """
    if identity:
        ctx.obj["as"] = identity
    client = connect(ctx)
    name = release or newest(client.get("/releases"))
    done = client.post("/release-signatures", {"release": name})
    if machine:
        return terminal.as_json("signed", done)
    signed = done["release"]
    click.echo(f"{signed['model']} {signed['version']} signed with key {done['key'][:16]}")
    return None


@command.command("list")
@terminal.json_option
@click.pass_context
def list_all(ctx: click.Context, machine: bool) -> None:
    """List the releases, newest first.

    \b
    Examples:
      falaj release list
      falaj release list --json
    """
    found = connect(ctx).get("/releases")
    if machine:
        return terminal.as_json("releases", found)
    terminal.table(
        [(r["model"], r["version"], terminal.short(r["id"]), r["created"]) for r in found],
        ("model", "version", "id", "created"),
    )
    return None


@command.command
@click.argument("release")
@terminal.json_option
@click.pass_context
def show(ctx: click.Context, release: str, machine: bool) -> None:
    """Show a release by version or id, verified again now.

    \b
    Examples:
      falaj release show 1.0.0
      falaj release show 1.0.0 --json
    """
    found = connect(ctx).get(f"/releases/{release}")
    if machine:
        terminal.as_json("release-view", found)
    else:
        r, manifest = found["release"], found["manifest"]
        click.echo(f"{r['model']} {r['version']}  {r['id']}")
        commit = manifest["code"]["commit"] or "none"
        click.echo(f"made {r['created']} by run {r['run']}, commit {commit}")
        terminal.table([(terminal.short(d), name) for name, d in manifest["files"].items()])
        for finding in found["findings"]:
            click.echo(terminal.mark("fail") + f"  {finding}")
        if not found["findings"]:
            click.echo(f"{terminal.mark('pass')}  digests and signature hold")
    ctx.exit(Exit.UNVERIFIED if found["findings"] else Exit.OK)


@command.command
@click.argument("release", required=False, default="")
@click.option(
    "--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write the page."
)
@click.option(
    "--language",
    type=click.Choice(["en", "ar"]),
    default="en",
    show_default=True,
    help="Of the page.",
)
@click.pass_context
def card(ctx: click.Context, release: str, page: Path | None, language: str) -> None:
    """Show the model card of a release, as it was signed.

    Of the newest release when none is named.

    \b
    Examples:
      falaj release card
      falaj release card 1.0.0 --html card.html
    """
    client = connect(ctx)
    name = release or newest(client.get("/releases"))
    form = language if page else "markdown"
    text = client.raw("GET", f"/releases/{name}/card/{form}")
    if page is None:
        return click.echo(text.decode(), nl=False)
    from falaj.base.files import write_atomic

    write_atomic(page, text)
    return click.echo(f"wrote {page}", err=True)


def newest(found: list[dict[str, str]]) -> str:
    if not found:
        raise click.UsageError("there is no release yet; run `falaj release create`")
    return found[0]["id"]

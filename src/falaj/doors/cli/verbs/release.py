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
    """Create, sign, list, show and compare releases; push and pull them."""


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


@command.command
@click.argument("one")
@click.argument("other", required=False, default="")
@click.option(
    "--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Also write a page."
)
@terminal.json_option
@click.pass_context
def diff(ctx: click.Context, one: str, other: str, page: Path | None, machine: bool) -> None:
    """Tell what differs from one release to another.

    Data, features, code, parameters, dependencies, metrics with their intervals, gates and
    evidence. To the newest release when no other one is named.

    \b
    Examples:
      falaj release diff 1.0.0
      falaj release diff 1.0.0 1.1.0 --html diff.html
    """
    client = connect(ctx)
    name = other or newest(client.get("/releases"))
    found = client.get(f"/releases/{one}/diff/{name}")
    if page is not None:
        import msgspec

        from falaj.base.files import write_atomic
        from falaj.facts.releases import ReleaseDiff
        from falaj.releases.diff import page as made

        write_atomic(page, made(msgspec.convert(found, ReleaseDiff)).encode())
        click.echo(f"wrote {page}", err=True)
    if machine:
        terminal.as_json("release-diff", found)
    else:
        terminal.table(
            [
                (row["section"], row["what"], row["change"], from_to(row), row["note"])
                for row in found["rows"]
            ]
        )
        for finding in found["findings"]:
            click.echo(f"{terminal.mark('fail')}  {finding}")
        names = f"{found['one_version']} and {found['other_version']}"
        if not found["rows"]:
            click.echo(f"nothing differs between {names}")
        else:
            click.echo(f"{len(found['rows'])} differences between {names}")
    ctx.exit(Exit.UNVERIFIED if found["findings"] else Exit.OK)


def from_to(row: dict[str, str]) -> str:
    shown = [
        terminal.short(side) if side.startswith("sha256:") else side
        for side in (row["before"], row["after"])
    ]
    return {"added": shown[1], "removed": shown[0]}.get(
        row["change"], " -> ".join(shown).strip(" ->")
    )


@command.command
@click.argument("release")
@click.argument("address")
@click.option("--move-tag", is_flag=True, help="Let the tag name this release from now on.")
@terminal.json_option
@click.pass_context
def push(ctx: click.Context, release: str, address: str, move_tag: bool, machine: bool) -> None:
    """Bring a release to a registry or a bucket that falaj.toml lists.

    ADDRESS is oci://HOST/REPOSITORY[:TAG] or s3://BUCKET/PREFIX[:TAG]; without a tag the version is
    the tag. Who we are is read from docker's auth file, never from the command line. What lies
    there already is not sent again.

    \b
    Examples:
      falaj release push 1.0.0 oci://127.0.0.1:5000/team/delay
      falaj release push 1.0.0 oci://r.example/team/delay:stable --move-tag
    """
    done = connect(ctx).post(f"/releases/{release}/push", {"to": address, "move_tag": move_tag})
    if machine:
        return terminal.as_json("pushed", done)
    click.echo(f"{done['address']}  tag {done['tag']}")
    click.echo(
        f"{done['sent']} files sent, {done['sent_bytes']:,} bytes; {done['there']} were there"
    )
    click.echo(f"next: falaj release pull {done['address']} FOLDER")
    return None


@command.command
@click.argument("address")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--trust",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The trust root that you received separately; the workspace's own when not said.",
)
@click.option("--plain-http", is_flag=True, help="Not on this machine alone.")
@click.option("--endpoint", default="", metavar="URL", help="Of a bucket: its store.")
@click.option("--s3-region", default="us-east-1", show_default=True, help="Of a bucket.")
@terminal.json_option
def pull(
    address: str,
    folder: Path,
    trust: Path | None,
    plain_http: bool,
    endpoint: str,
    s3_region: str,
    machine: bool,
) -> None:
    """Bring a release from a registry or a bucket, verified before anything is kept.

    FOLDER is new; it appears whole or not at all. Works outside a project with --trust. A tag is
    looked up, and the digest that it stands for is said; by a digest nothing can be exchanged.

    \b
    Examples:
      falaj release pull oci://127.0.0.1:5000/team/delay:1.0.0 pulled
      falaj release pull oci://r.example/delay@sha256:0f3... new --trust trust.json
    """
    from contextlib import closing

    from falaj.app import remote
    from falaj.base import time
    from falaj.doors.cli.verbs.verify import workspace_trust
    from falaj.facts.project import RemoteTable
    from falaj.journeys import remotes, verify

    root = verify.trusted(trust or workspace_trust(), address)
    table = RemoteTable(
        address=address, region="", plain_http=plain_http, endpoint=endpoint, s3_region=s3_region
    )

    def tell(line: str) -> None:
        click.echo(line, err=True)

    with closing(remote(address, table)) as place:
        found = remotes.pull(place, folder, root, now=time.now(), tell=tell)
    if machine:
        told = {
            "address": found.address,
            "asked": found.asked,
            "release": found.release,
            "model": found.manifest.model,
            "version": found.manifest.version,
            "folder": str(folder),
            "signers": found.signers,
            "published_by": found.outer,
            "files": found.files,
            "bytes": found.bytes,
        }
        return terminal.as_json("pulled", told)
    click.echo(f"{found.manifest.model} {found.manifest.version}  {found.release}")
    signers = ", ".join(found.signers)
    click.echo(f"{terminal.mark('pass')}  {found.files} files as listed, signed by {signers}")
    if not found.outer and not found.address.endswith(found.release):
        click.echo("nobody signed that it lies under this digest there; its own signature holds")
    click.echo(f"in {folder}, verified")
    return None


def newest(found: list[dict[str, str]]) -> str:
    if not found:
        raise click.UsageError("there is no release yet; run `falaj release create`")
    return found[0]["id"]

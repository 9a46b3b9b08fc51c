"""falaj keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from falaj.doors.cli import terminal
from falaj.doors.cli.client import connect

__all__ = ["command"]

ROLES = [
    "approval",
    "build",
    "gate",
    "log",
    "plan",
    "release",
    "root",
    "token",
    "vulndb",
    "witness",
]
AS_WHAT = "What it may sign; more than one may be said."
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group("keys")
def command() -> None:
    """Show, make, rotate and revoke keys; the trust root and its next version."""


@command.command("list")
@terminal.json_option
@click.pass_context
def list_all(ctx: click.Context, machine: bool) -> None:
    """List keys and certificate authorities, and who may sign in which role.

    \b
    Examples:
      falaj keys list
      falaj keys list --json
    """
    found = connect(ctx).get("/keys")
    if machine:
        return terminal.as_json("keys", found)
    return show(found)


def show(found: dict[str, Any]) -> None:
    terminal.table(
        [
            (
                key["identity"],
                key["hint"][:16],
                key["state"],
                ", ".join(key["roles"]),
                key["not_after"][:10],
                "here" if key["here"] else "elsewhere",
            )
            for key in found["keys"]
        ],
        ("identity", "key", "state", "roles", "until", "private key"),
    )
    for authority in found["authorities"]:
        click.echo(
            f"{authority['identity']}: certificates for {authority['name']}, "
            f"{', '.join(authority['roles'])}"
        )
    click.echo()
    terminal.table(
        [(role["role"], asked(role), ", ".join(role["identities"])) for role in found["roles"]],
        ("role", "needs", "identities"),
    )
    until = (
        f", list of revocations until {found['next_update'][:10]}" if found["next_update"] else ""
    )
    click.echo(f"\ntrust root version {found['version']}, until {found['expires'][:10]}{until}")


def asked(role: dict[str, Any]) -> str:
    """`1, production 2 witnessed`."""
    parts = [str(role["threshold"])]
    for name in sorted({*role["environments"], *role["witnessed"]}):
        number = role["environments"].get(name, role["threshold"])
        parts.append(f"{name} {number}{' witnessed' if name in role['witnessed'] else ''}")
    return ", ".join(parts)


@command.command
@click.argument("identity")
@click.option(
    "--role", "roles", multiple=True, required=True, type=click.Choice(ROLES), help=AS_WHAT
)
@click.pass_context
def create(ctx: click.Context, identity: str, roles: tuple[str, ...]) -> None:
    """Make a key, or let the one that there is sign in more roles.

    \b
    Examples:
      falaj keys create layla --role release
      falaj keys create gate-runner --role gate --role build
    """
    found = connect(ctx).post("/keys", {"identity": identity, "roles": roles})
    click.echo(f"{identity}: key {found['hint'][:16]}, {', '.join(roles)}")


@command.command
@click.argument("identity")
@click.argument("file", type=FILE)
@click.option(
    "--role", "roles", multiple=True, required=True, type=click.Choice(ROLES), help=AS_WHAT
)
@click.option(
    "--name", default="", help="Whom the authority vouches for: a URI, DNS name or address."
)
@click.pass_context
def add(ctx: click.Context, identity: str, file: Path, roles: tuple[str, ...], name: str) -> None:
    """Trust a public key from elsewhere, or one name of a certificate authority.

    FILE is a PEM, or the one-line key of a witness of the audit log.

    \b
    Examples:
      falaj keys add auditor auditor.pem --role gate
      falaj keys add ci ca.pem --role release --name spiffe://example.org/ci
    """
    body = {
        "identity": identity,
        "roles": roles,
        "pem": file.read_text(encoding="utf-8", errors="replace"),
        "name": name,
    }
    found = connect(ctx).post("/trusted-keys", body)
    click.echo(f"{identity}: {found['hint'][:16]}, {', '.join(roles)}")


@command.command
@click.argument("identity")
@click.pass_context
def rotate(ctx: click.Context, identity: str) -> None:
    """Make a new key in the same roles; what the old one signed stays good.

    The next trust root is signed by the old root key and the new one when `root` is rotated.

    \b
    Examples:
      falaj keys rotate release-signer
      falaj keys rotate root
    """
    found = connect(ctx).post("/key-rotations", {"identity": identity})
    click.echo(f"{identity}: key {found['hint'][:16]}")


@command.command
@click.argument("subject")
@click.option(
    "--kind",
    type=click.Choice(["compromised", "retired", "withdrawn"]),
    default="compromised",
    show_default=True,
    help="In other hands; signs no more; a release that is never loaded again.",
)
@click.option("--since", default="", metavar="TIME", help="From when on; always when not said.")
@click.option("--except", "releases", multiple=True, metavar="RELEASE", help="Good all the same.")
@click.option("-m", "--message", "reason", required=True, help="Why, for those who read it later.")
@click.pass_context
def revoke(
    ctx: click.Context, subject: str, kind: str, since: str, releases: tuple[str, ...], reason: str
) -> None:
    """Take trust back from an identity, a key, a certificate, or a release.

    \b
    Examples:
      falaj keys revoke layla --kind retired -m "left the team"
      falaj keys revoke 1.1.0 --kind withdrawn -m "trained on wrong data"
      falaj keys revoke gate-runner --except 1.0.0 -m "laptop stolen"
    """
    body = {
        "subject": subject,
        "kind": kind,
        "since": since,
        "reason": reason,
        "releases": releases,
    }
    for one in connect(ctx).post("/revocations", body):
        click.echo(f"{kind}: {terminal.short(one)}")


@command.command
@click.argument("role", type=click.Choice(ROLES))
@click.argument("threshold", type=click.IntRange(1, 64))
@click.option("-e", "--environment", default="", help="For this one only.")
@click.option(
    "--witnessed", is_flag=True, help="Refuse a time of signing that only the signer says."
)
@click.pass_context
def require(
    ctx: click.Context, role: str, threshold: int, environment: str, witnessed: bool
) -> None:
    """Ask for the signatures of so many distinct identities.

    \b
    Examples:
      falaj keys require release 2 -e production
      falaj keys require gate 2 -e production --witnessed
    """
    if witnessed and not environment:
        raise click.UsageError("--witnessed is asked for by one environment: add -e NAME")
    body = {
        "role": role,
        "threshold": threshold,
        "environment": environment,
        "witnessed": witnessed,
    }
    found = connect(ctx).post("/key-rules", body)
    for one in found["roles"]:
        if one["role"] == role:
            click.echo(f"{role}: {asked(one)}")


@command.command
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it.")
@click.option("--sign", "proposed", type=FILE, help="Add this workspace's root signature to it.")
@click.option("--adopt", "adopted", type=FILE, help="Go on to it, when enough roots have signed.")
@click.pass_context
def trust(
    ctx: click.Context, output: Path | None, proposed: Path | None, adopted: Path | None
) -> None:
    """Show the trust root, write it to a file, sign the next one of somebody, go on to the next.

    \b
    Examples:
      falaj keys trust
      falaj keys trust -o trust.json
    """
    from falaj.base.files import write_atomic

    client = connect(ctx)
    if proposed is not None and adopted is not None:
        raise click.UsageError("--sign and --adopt are two steps")
    if adopted is not None:
        found = client.post("/trust-versions", {"text": text_of(adopted)})
        return click.echo(f"trust root version {found['version']}")
    if proposed is not None:
        signed = client.post("/trust-signatures", {"text": text_of(proposed)})["text"]
        write_atomic(output or proposed, signed.encode())
        return click.echo(f"signed {output or proposed}")
    if output is None:
        return show(client.get("/keys"))
    write_atomic(output, client.raw("GET", "/trust"))
    return click.echo(f"wrote {output}", err=True)


@command.command
@terminal.json_option
@click.pass_context
def scopes(ctx: click.Context, machine: bool) -> None:
    """List what is sealed at rest, by the keys that it is erased with.

    \b
    Examples:
      falaj keys scopes
      falaj keys scopes --json
    """
    found = connect(ctx).get("/scopes")
    if machine:
        return terminal.as_json("scopes", found)
    if not found:
        return click.echo("nothing is sealed at rest")
    terminal.table(
        [
            (s["scope"], str(s["version"]), s["kek"] or "-", s["created"][:10], s["erased"] or "")
            for s in found
        ],
        ("scope", "version", "wrapped by", "since", "erased"),
    )
    return None


@command.command
@terminal.json_option
@click.pass_context
def rewrap(ctx: click.Context, machine: bool) -> None:
    """Wrap all keys of what is sealed under a new one; seal what still lies in the clear.

    No sealed file changes, so it takes as long as there are scopes, not as there are files.

    \b
    Examples:
      falaj keys rewrap
      falaj keys rewrap --json
    """
    done = connect(ctx).post("/scope-rewraps")
    if machine:
        return terminal.as_json("rewrapped", done)
    return click.echo(
        f"{done['rewrapped']} keys wrapped by {done['kek']}, {done['sealed']} artifacts sealed"
    )


@command.command
@click.argument("scope")
@click.option("-m", "--message", "reason", required=True, help="Why, for the certificate.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default="erasure.json",
    show_default=True,
    help="The signed certificate.",
)
@click.pass_context
def erase(ctx: click.Context, scope: str, reason: str, output: Path) -> None:
    """Erase the key of everything in a scope, for ever; write a certificate of it.

    \b
    Examples:
      falaj keys erase artifacts/2026-03 -m "kept for two years"
      falaj keys erase artifacts/2026-04 -m "asked for by the person" -o april.json
    """
    from falaj.base.files import write_atomic

    done = connect(ctx).post("/erasures", {"scope": scope, "reason": reason})
    write_atomic(output, done["certificate"].encode())
    click.echo(f"{scope}: erased {done['erased']}, complete {done['complete']}")
    click.echo(f"wrote {output}", err=True)


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")

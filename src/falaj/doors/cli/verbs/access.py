"""falaj access."""

from __future__ import annotations

import click

from falaj.doors.cli import terminal
from falaj.doors.cli.client import connect

__all__ = ["command"]

ROLES = ["owner", "author", "approver", "validator", "operator", "risk", "viewer"]


@click.group("access")
def command() -> None:
    """Add and list identities; make tokens."""


@command.command
@click.argument("name")
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice(ROLES),
    required=True,
    help="What it may do; several are allowed.",
)
@click.option("--person", default="", help="An identity of the same person, for another account.")
@click.option("--group", "groups", multiple=True, help="A team it belongs to; several are allowed.")
@click.pass_context
def add(
    ctx: click.Context, name: str, roles: tuple[str, ...], person: str, groups: tuple[str, ...]
) -> None:
    """Add an identity with its own key for approvals.

    \b
    Examples:
      falaj access add layla --role approver
      falaj access add omar --role operator --role viewer
    """
    found = connect(ctx).post(
        "/identities", {"name": name, "roles": roles, "person": person, "groups": groups}
    )
    click.echo(f"{found['name']} ({', '.join(found['roles'])}), key {found['key'][:16]}")
    click.echo(f"next: falaj --as {name} status")


@command.command("list")
@terminal.json_option
@click.pass_context
def list_all(ctx: click.Context, machine: bool) -> None:
    """List identities and their roles.

    \b
    Examples:
      falaj access list
      falaj access list --json
    """
    found = connect(ctx).get("/identities")
    if machine:
        return terminal.as_json("identities", found)
    terminal.table(
        [
            (
                p["name"],
                ", ".join(p["roles"]),
                ", ".join(p["groups"]) or "-",
                p["key"][:16],
                p["created"],
            )
            for p in found
        ],
        ("name", "roles", "groups", "key", "since"),
    )
    return None


@command.command
@click.argument("name", default="owner")
@click.option("--lifetime", default="15m", show_default=True, help="At most 12h.")
@click.pass_context
def token(ctx: click.Context, name: str, lifetime: str) -> None:
    """Make a bearer token for remote use; it dies by itself.

    \b
    Examples:
      falaj access token > token
      falaj access token owner --lifetime 1h > token
    """
    click.echo(connect(ctx).post("/tokens", {"name": name, "lifetime": lifetime})["token"])


@command.command
@click.argument("name")
@click.pass_context
def forget(ctx: click.Context, name: str) -> None:
    """Erase who stood behind a pseudonym.

    That person's words beside events go as well. The log keeps the pseudonym and verifies as before.
    Refused while approvals or waivers of that person are evidence.

    \b
    Examples:
      falaj access forget omar
      falaj access forget layla
    """
    found = connect(ctx).post(f"/identities/{name}/forget", {})
    click.echo(f"{name} is forgotten, with {found['remarks']} remarks")
    click.echo("the trust root still names the key by this account: it verifies what was signed")

"""Identities, tokens, the trust root."""

from __future__ import annotations

from typing import Final

import msgspec
from litestar import Response
from litestar.datastructures import State

from falaj.app import Works
from falaj.base import time
from falaj.base.errors import FalajError, NotAllowed
from falaj.doors.api.route import get, post
from falaj.facts.access import Action, Permit, Principal, ResourceKind, Role

__all__ = ["ROUTES", "AddIdentity", "MakeToken"]


class AddIdentity(msgspec.Struct, forbid_unknown_fields=True):
    """person: the name of an existing identity of the same person, for a further account."""

    name: str
    roles: tuple[Role, ...]
    person: str = ""
    groups: tuple[str, ...] = ()


class MakeToken(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    lifetime: str = "15m"


class Token(msgspec.Struct):
    token: str


@get("/identities", needs=Action.READ, on=ResourceKind.PROJECT)
def list_identities(works: Works) -> list[Principal]:
    return works.ground.store.find(Principal)


@post("/identities", needs=Action.MANAGE_ACCESS, on=ResourceKind.PROJECT, status=201)
def add_identity(works: Works, permit: Permit, data: AddIdentity) -> Principal:
    """Make an identity with its own key for approvals."""
    person = works.access.principal(data.person).person if data.person else ""
    return works.access.add(
        data.name, data.roles, actor=permit.person, person=person, groups=data.groups
    )


class Forgotten(msgspec.Struct):
    remarks: int


@post("/identities/{name:str}/forget", needs=Action.MANAGE_ACCESS, on=ResourceKind.PROJECT)
def forget_identity(works: Works, permit: Permit, name: str) -> Forgotten:
    """Erase who stood behind a pseudonym, and that person's remarks; the log stays as it is."""
    return Forgotten(works.access.forget(name, actor=permit.person))


@post("/tokens", needs=Action.MANAGE_ACCESS, on=ResourceKind.PROJECT, status=201)
def make_token(works: Works, state: State, permit: Permit, data: MakeToken) -> Token:
    """Make a bearer token for an identity; it dies by itself.

    From afar only for oneself: an owner with somebody else's token would be two persons.
    """
    if not state.embedded and works.access.principal(data.name).person != permit.person:
        raise NotAllowed(
            "access.token-of-another",
            f"{permit.principal} may not make a token for {data.name} from afar",
            why="who holds the tokens of two persons can approve an own change (four eyes)",
            fix=f"where the server runs: `falaj access token {data.name}`",
        )
    try:
        lifetime = time.parse_span(data.lifetime)
    except ValueError as error:
        raise FalajError("api.bad-time", f"lifetime: {error}") from None
    return Token(works.access.token(data.name, lifetime))


@get("/trust", needs=Action.READ, on=ResourceKind.PROJECT)
def trust(works: Works) -> Response[bytes]:
    """The signed trust root: give it to verifiers by another way than what they verify."""
    return Response(works.ground.keys.trust_text().encode(), media_type="application/json")


ROUTES: Final = (list_identities, add_identity, forget_identity, make_token, trust)

"""A house with an issuer of tokens, an authority of certificates, and a plan that knows both."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
from authority import EKU, authority, leaf
from cryptography.hazmat.primitives import serialization

from falaj.base import dsse, tokens
from falaj.facts.serving import AccessPlan, TokenIssuer

ISSUER, AUDIENCE = "https://tokens.example", "flights"
CLIENT = "spiffe://example.org/ns/apps/sa/tower"


def pem_of(key):
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def write_pair(folder, holder, name="server"):
    files = folder / f"{name}.pem", folder / f"{name}.key"
    for file, data in zip(files, (holder.pem.encode(), pem_of(holder.key)), strict=True):
        part = file.with_suffix(".part")
        part.write_bytes(data)
        part.replace(file)
    return files


class Place:
    """A house with an issuer of tokens and an authority of certificates."""

    def __init__(self, house):
        self.house = house
        house.ring.create("tokens", ())
        self.signer = house.ring.signer("tokens")
        self.now = datetime.now(UTC)
        self.authority = authority(self.now)
        self.stable = house.release("1")
        for made in (self.stable,):
            house.place(made)

    def token(self, subject="ops", *, lifetime=300, audience=AUDIENCE, now=None, **more):
        return tokens.issue(
            self.signer,
            issuer=ISSUER,
            audience=audience,
            subject=subject,
            now=now or datetime.now(UTC),
            lifetime=timedelta(seconds=lifetime),
            **more,
        )

    def access(self, **about):
        keys = {dsse.hint_of(self.signer.public): self.signer.public.decode()}
        given = {
            "issuers": (TokenIssuer(issuer=ISSUER, audience=AUDIENCE, keys=keys),),
            "allow": (
                ("role:callers", "infer", "delay"),
                ("labels", "ground-truth", "delay"),
                ("chief", "infer", "*"),
                (CLIENT, "infer", "delay"),
            ),
            "roles": {"ops": ("callers",), "busy": ("callers",)},
            "rate": {"busy": 3},
        }
        return AccessPlan(**(given | about))

    def apply(self, canary=None, weight_bp=0, **about):
        if canary is not None:
            self.house.place(canary)
        plan = self.house.plan(self.stable, canary, weight_bp)
        return self.house.write(msgspec.structs.replace(plan, access=self.access(**about)))


def tower(place, **more):
    return leaf(place.authority, place.now, name=CLIENT, purposes=(EKU.CLIENT_AUTH,), **more)

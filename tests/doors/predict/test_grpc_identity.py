"""Who may call over gRPC: the same table, tokens and rates as over HTTP; mostly refusals."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest
from rpc_client import RpcClient, infer_request, refused
from servers import House

from falaj.base import dsse, tokens
from falaj.facts.models import Datatype
from falaj.facts.serving import AccessPlan, TokenIssuer

ISSUER, AUDIENCE = "https://tokens.example", "flights"
ROW = {"x": (Datatype.FP32, np.array([[30.0, 733.0, 14.0]], np.float32))}
HEALTH = "grpc.health.v1.Health"


class Place:
    """A house whose plan lets a few principals in."""

    def __init__(self, house):
        self.house = house
        house.ring.create("tokens", ())
        self.signer = house.ring.signer("tokens")
        keys = {dsse.hint_of(self.signer.public): self.signer.public.decode()}
        access = AccessPlan(
            issuers=(TokenIssuer(issuer=ISSUER, audience=AUDIENCE, keys=keys),),
            allow=(("role:callers", "infer", "delay"), ("chief", "infer", "*")),
            roles={"ops": ("callers",), "busy": ("callers",)},
            rate={"busy": 3},
        )
        stable = house.release("1")
        house.place(stable)
        house.write(msgspec.structs.replace(house.plan(stable), access=access))

    def token(self, subject, *, audience=AUDIENCE, now=None):
        return tokens.issue(
            self.signer,
            issuer=ISSUER,
            audience=audience,
            subject=subject,
            now=now or datetime.now(UTC),
            lifetime=timedelta(seconds=300),
        )


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    place = Place(House(tmp_path_factory.mktemp("guarded-grpc")))
    place.house.start("--grpc-port", "0")
    client = RpcClient(place.house.started["grpc"])
    yield place, client
    client.close()
    place.house.close()


def bearer(token):
    return (("authorization", f"Bearer {token}"),)


def ask(client, method, metadata=(), **fields):
    from falaj.serving.wire.messages import protos

    request = protos().message(f"inference.{method}Request")(**fields)
    return client.send(method, request, metadata=metadata)


def test_a_role_with_the_right_gets_an_answer(guarded):
    place, client = guarded
    token = bearer(place.token("ops"))
    assert client.infer("delay", ROW, metadata=token)["label"].shape == (1,)
    assert ask(client, "ModelMetadata", token, name="delay").name == "delay"
    assert ask(client, "ServerMetadata", token).name == "falaj"


NOBODY = {
    "no token": lambda place: (),
    "no bearer": lambda place: (("authorization", "Basic abc"),),
    "noise": lambda place: bearer("a.b.c"),
    "another audience": lambda place: bearer(place.token("ops", audience=AUDIENCE + "-other")),
    "one that ran out": lambda place: bearer(
        place.token("ops", now=datetime(2020, 1, 1, tzinfo=UTC))
    ),
}


@pytest.mark.parametrize("made", NOBODY.values(), ids=NOBODY)
def test_nobody_is_refused(guarded, made):
    place, client = guarded
    metadata = made(place)
    for act in (
        lambda: client.infer("delay", ROW, metadata=metadata),
        lambda: ask(client, "ModelMetadata", metadata, name="delay"),
        lambda: ask(client, "ModelReady", metadata, name="nobody"),
        lambda: ask(client, "ServerMetadata", metadata),
    ):
        code, _, told = refused(act)
        assert (code, told["falaj-code"]) == ("UNAUTHENTICATED", "serving.identity")


def test_the_table_decides(guarded):
    place, client = guarded
    token = bearer(place.token("stranger"))
    for act in (
        lambda: client.infer("delay", ROW, metadata=token),
        lambda: client.infer("nobody", ROW, metadata=token),
        lambda: ask(client, "ModelMetadata", token, name="delay"),
    ):
        assert refused(act)[0] == "PERMISSION_DENIED"
    chief = bearer(place.token("chief"))
    assert refused(lambda: client.infer("nobody", ROW, metadata=chief))[0] == "NOT_FOUND"


def test_what_is_no_request_tells_nobody_anything(guarded):
    _, client = guarded
    assert refused(lambda: client.send("ModelInfer", b"\xff\xff"))[0] == "UNAUTHENTICATED"


def test_one_principal_cannot_take_the_server_from_others(guarded):
    place, client = guarded
    token = bearer(place.token("busy"))
    data = infer_request("delay", ROW)
    codes = []
    for _ in range(10):
        try:
            client.send("ModelInfer", data, metadata=token)
            codes.append("OK")
        except Exception as error:
            codes.append(error.code().name)
    assert "OK" in codes
    assert "RESOURCE_EXHAUSTED" in codes
    assert client.infer("delay", ROW, metadata=bearer(place.token("ops")))["label"].shape == (1,)


def test_health_is_for_everybody_and_names_no_model(guarded):
    _, client = guarded
    assert client.call("Check", HEALTH).status == 1
    assert refused(lambda: client.call("Check", HEALTH, service="delay"))[0] == "NOT_FOUND"
    assert ask(client, "ServerLive").live
    assert ask(client, "ServerReady").ready

"""The access table holds at the other door, too."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
from authority import EKU, authority, leaf
from cryptography.x509 import DNSName
from identities import CLIENT, Place, pem_of, tower, write_pair
from rpc_client import RpcClient

from falaj.base.tls import thumbprint_of
from falaj.facts.models import Datatype

X = {"x": (Datatype.FP32, np.array([(30.0, 733.0, 14.0)], np.float32))}


def code(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def bearer(token):
    return (("authorization", f"Bearer {token}"),)


def infer(rpc, metadata=()):
    return code(lambda: rpc.infer("delay", X, metadata=metadata))


@pytest.fixture
def place(house):
    return Place(house)


def test_a_call_needs_a_token_with_the_right(place):
    place.apply()
    place.house.start("--grpc-port", "0")
    rpc = RpcClient(place.house.started["grpc"])
    assert infer(rpc, bearer(place.token())) == "OK"
    assert infer(rpc) == "UNAUTHENTICATED"
    assert infer(rpc, bearer("a.b.c")) == "UNAUTHENTICATED"
    assert infer(rpc, bearer(place.token("stranger"))) == "PERMISSION_DENIED"
    found = [infer(rpc, bearer(place.token("busy"))) for _ in range(8)]
    assert found.count("OK") in (3, 4)
    assert set(found) == {"OK", "RESOURCE_EXHAUSTED"}
    assert code(lambda: rpc.call("ServerLive")) == "OK"
    assert code(lambda: rpc.call("ServerReady")) == "OK"
    for method, fields in (("ServerMetadata", {}), ("ModelMetadata", {"name": "delay"})):
        assert code(lambda m=method, f=fields: rpc.call(m, **f)) == "UNAUTHENTICATED"
    rpc.close()


def test_a_client_certificate_is_an_identity_there_too(place, tmp_path):
    place.apply()
    server = leaf(
        place.authority,
        place.now,
        name="localhost",
        kind=DNSName,
        purposes=(EKU.SERVER_AUTH,),
    )
    cert, key = write_pair(tmp_path, server)
    ca = tmp_path / "clients.pem"
    ca.write_text(place.authority.pem)
    place.house.start(
        *("--grpc-port", "0", "--grpc-cert", str(cert), "--grpc-key", str(key)),
        *("--grpc-clients", str(ca)),
    )
    address = place.house.started["grpc"].replace("127.0.0.1", "localhost")

    def client(holder):
        return RpcClient(
            address,
            grpc.ssl_channel_credentials(
                place.authority.pem.encode(), pem_of(holder.key), holder.pem.encode()
            ),
        )

    holder = tower(place)
    other = leaf(place.authority, place.now, name=CLIENT + "-2", purposes=(EKU.CLIENT_AUTH,))
    wrong = leaf(
        authority(place.now, "Another"), place.now, name=CLIENT, purposes=(EKU.CLIENT_AUTH,)
    )
    assert infer(client(holder)) == "OK"
    assert infer(client(other)) == "PERMISSION_DENIED"
    assert infer(client(wrong)) == "UNAVAILABLE"
    bound = bearer(place.token(thumbprint=thumbprint_of(holder.chain[0])))
    assert infer(client(holder), bound) == "OK"
    assert infer(client(other), bound) == "UNAUTHENTICATED"

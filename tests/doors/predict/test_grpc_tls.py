"""TLS of gRPC: refusals without the right certificates, and reload without a restart."""

from __future__ import annotations

import shutil
import time

import grpc
import numpy as np
import pytest
from certificates import Authority
from rpc_client import RpcClient, refused

from falaj.facts.models import Datatype

ROW = {"x": (Datatype.FP32, np.array([[30.0, 733.0, 14.0]], np.float32))}


@pytest.fixture
def tls(house, tmp_path):
    house.apply(house.release("1"))
    house.authority = Authority(tmp_path / "pki")
    certificate, key = house.authority.issue("server", server=True)
    house.files = tmp_path / "server.crt", tmp_path / "server.key"
    shutil.copy(certificate, house.files[0])
    shutil.copy(key, house.files[1])
    house.tls = ("--grpc-cert", str(house.files[0]), "--grpc-key", str(house.files[1]))
    return house


def start(house, *more):
    house.start("--grpc-port", "0", *house.tls, *more)
    return house.started["grpc"]


def connect(house, address, authority=None, pair=None):
    root = (authority or house.authority).path.read_bytes()
    chain, key = (path.read_bytes() for path in pair) if pair else (None, None)
    return RpcClient(address, grpc.ssl_channel_credentials(root, key, chain))


def test_answers_come_over_tls_and_plain_text_is_refused(tls):
    address = start(tls)
    assert connect(tls, address).infer("delay", ROW)["label"].shape == (1,)
    assert refused(lambda: RpcClient(address).infer("delay", ROW))[0] == "UNAVAILABLE"


def test_a_server_of_another_authority_is_refused(tls, tmp_path):
    other = Authority(tmp_path / "other", "other")
    address = start(tls)
    client = connect(tls, address, other)
    assert refused(lambda: client.infer("delay", ROW))[0] == "UNAVAILABLE"


def test_client_certificates(tls, tmp_path):
    address = start(tls, "--grpc-clients", str(tls.authority.path))
    mine = tls.authority.issue("layla")
    assert connect(tls, address, pair=mine).infer("delay", ROW)["label"].shape == (1,)
    assert refused(lambda: connect(tls, address).infer("delay", ROW))[0] == "UNAVAILABLE"
    foreign = Authority(tmp_path / "foreign", "foreign").issue("layla")
    client = connect(tls, address, pair=foreign)
    assert refused(lambda: client.infer("delay", ROW))[0] == "UNAVAILABLE"


def test_new_certificates_are_taken_up_and_bad_ones_are_not(tls, tmp_path):
    address = start(tls)
    old = connect(tls, address)
    old.infer("delay", ROW)
    tls.files[1].write_text("nothing")
    assert connect(tls, address).infer("delay", ROW)["label"].shape == (1,)
    other = Authority(tmp_path / "other", "other")
    certificate, key = other.issue("server", server=True)
    shutil.copy(certificate, tls.files[0])
    shutil.copy(key, tls.files[1])
    until = time.monotonic() + 10
    while True:
        try:
            connect(tls, address, other).infer("delay", ROW)
            break
        except grpc.RpcError:
            assert time.monotonic() < until
            time.sleep(0.1)
    assert refused(lambda: connect(tls, address).infer("delay", ROW))[0] == "UNAVAILABLE"
    assert old.infer("delay", ROW)["label"].shape == (1,)


BAD = {
    "a certificate without its key": ("--grpc-cert", "{0}"),
    "authorities alone": ("--grpc-clients", "{0}"),
    "the key of another": ("--grpc-cert", "{0}", "--grpc-key", "{2}"),
    "no PEM": ("--grpc-cert", "{3}", "--grpc-key", "{1}"),
    "no file": ("--grpc-cert", "{0}", "--grpc-key", "{1}.gone"),
}


@pytest.mark.parametrize("words", BAD.values(), ids=BAD)
def test_certificates_that_cannot_be_used_are_said_at_the_start(tls, tmp_path, words):
    _, key = tls.authority.issue("other")
    (tmp_path / "noise").write_text("noise")
    places = (*map(str, tls.files), str(key), str(tmp_path / "noise"))
    asked = [word.format(*places) for word in words]
    process = tls.start("--grpc-port", "0", *asked, ready=False)
    _, err = process.communicate(timeout=20)
    assert b"serving.tls-files" in err
    assert process.returncode != 0

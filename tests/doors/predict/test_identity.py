"""Who may ask the data plane: tokens, client certificates, rights, rates. Half of it is refusals."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from datetime import UTC, datetime, timedelta

import pytest
from authority import EKU, authority, leaf
from cryptography.x509 import DNSName
from identities import CLIENT, Place, tower, write_pair
from servers import infer_body, read_all

from falaj.base.tls import thumbprint_of
from falaj.doors.predict.main import main

BODY = json.dumps(infer_body((30.0, 733.0, 14.0))).encode()
INFER = "/v2/models/delay/infer"


@pytest.fixture
def place(house):
    return Place(house)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    from servers import House

    place = Place(House(tmp_path_factory.mktemp("guarded")))
    place.apply()
    client = place.house.start()
    yield place, client
    client.close()
    place.house.close()


def bearer(token):
    return {"authorization": f"Bearer {token}"}


def test_a_role_with_the_right_gets_an_answer(guarded):
    place, client = guarded
    for _ in range(3):  # the second one comes from memory
        status, headers, _ = client.ask("POST", INFER, BODY, bearer(place.token()))
        assert (status, headers["falaj-release"]) == (200, place.stable.id)


def forged(place):
    token = place.token()
    return token[:-4] + ("AAAA" if not token.endswith("AAAA") else "BBBB")


NOBODY = {
    "no token": lambda place: {},
    "another scheme": lambda place: {"authorization": "Basic b3BzOm9wcw=="},
    "no token behind the word": lambda place: {"authorization": "Bearer "},
    "rubbish": lambda place: bearer("a.b.c"),
    "a forged signature": lambda place: bearer(forged(place)),
    "another audience": lambda place: bearer(place.token(audience="other")),
    "expired": lambda place: bearer(
        place.token(now=datetime.now(UTC) - timedelta(hours=1), lifetime=60)
    ),
    "lives too long": lambda place: bearer(place.token(lifetime=7200)),
    "bound to a certificate that is not there": lambda place: bearer(
        place.token(thumbprint="A" * 43)
    ),
    "a subject that looks like a certificate's name": lambda place: bearer(place.token(CLIENT)),
    "a subject that looks like a role": lambda place: bearer(place.token("role:callers")),
    "two headers": lambda place: {"authorization": f"Bearer {place.token()}, Bearer x"},
}


@pytest.mark.parametrize("made", NOBODY.values(), ids=NOBODY)
def test_nobody_is_refused(guarded, made):
    place, client = guarded
    status, headers, told = client.ask("POST", INFER, BODY, made(place))
    assert (status, told["code"]) == (401, "serving.identity")
    assert headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("subject", "method", "path", "status"),
    [
        ("stranger", "POST", INFER, 403),
        ("labels", "POST", INFER, 403),
        ("ops", "POST", "/ground-truth/delay", 403),
        ("ops", "POST", "/v2/models/%64elay/infer", 200),  # another spelling, the same right
        ("stranger", "POST", "/v2/models/%64elay/infer", 403),
        ("stranger", "POST", "/predict?model=delay&x=1", 403),
        ("stranger", "GET", "/v2/models/delay", 403),
        ("ops", "GET", "/v2/models/delay", 200),
        ("ops", "GET", "/v2", 200),
        ("stranger", "GET", "/v2", 403),
        ("ops", "GET", "/metrics", 403),
        ("chief", "GET", "/metrics", 200),
        ("ops", "GET", "/", 403),
    ],
)
def test_the_table_decides(guarded, subject, method, path, status):
    place, client = guarded
    body = BODY if method == "POST" else None
    assert client.ask(method, path, body, bearer(place.token(subject)))[0] == status


def test_who_is_unknown_does_not_learn_which_models_there_are(guarded):
    _, client = guarded
    for path in ("/", "/metrics", "/v2", "/v2/models/delay", "/v2/models/none", "/predict?model=x"):
        method = "POST" if "predict" in path else "GET"
        status, _, told = client.ask(method, path, BODY if method == "POST" else None)
        assert (status, "delay" in str(told)) == (401, False), path
    status, _, told = client.get("/v2/health/ready")
    assert (status, told) == (200, {"live": True, "ready": True})


def test_a_token_on_a_kept_connection_serves_nobody_else(guarded):
    place, client = guarded
    assert client.ask("POST", INFER, BODY, bearer(place.token()))[0] == 200
    assert client.ask("POST", INFER, BODY)[0] == 401
    assert client.ask("POST", INFER, BODY, bearer(place.token("stranger")))[0] == 403


def test_a_token_is_not_good_past_its_end(guarded):
    place, client = guarded
    # The leeway is for clocks that differ: 28 of its 30 seconds are spent.
    token = place.token(now=datetime.now(UTC) - timedelta(seconds=88), lifetime=60)
    assert client.ask("POST", INFER, BODY, bearer(token))[0] == 200
    time.sleep(2.5)
    assert client.ask("POST", INFER, BODY, bearer(token))[0] == 401


def test_one_principal_cannot_take_the_server_from_others(guarded):
    place, client = guarded
    one, two = bearer(place.token("busy")), bearer(place.token("busy", lifetime=200))
    found = [client.ask("POST", INFER, BODY, (one, two)[i % 2]) for i in range(12)]
    statuses = [status for status, _, _ in found]
    assert statuses.count(200) in (3, 4)
    assert set(statuses) == {200, 429}
    late = next(headers for status, headers, _ in found if status == 429)
    assert int(late["retry-after"]) >= 1
    assert client.ask("POST", INFER, BODY, bearer(place.token()))[0] == 200


def test_only_those_with_the_right_choose_their_arm_and_count_in_none(place):
    canary = place.house.release("2")
    extra = (("role:callers", "infer", "delay"), ("tester", "infer", "delay"))
    place.apply(canary, 0, allow=(*extra, ("tester", "override", "delay")))
    client = place.house.start()

    def asked(subject, arm="canary"):
        headers = bearer(place.token(subject)) | {"falaj-arm": arm}
        return client.ask("POST", INFER, BODY, headers)[1]["falaj-release"]

    assert asked("tester") == canary.id
    assert asked("tester", "stable") == place.stable.id
    assert asked("ops") == place.stable.id
    client.terminate()
    lines = [
        json.loads(line)
        for file in (place.house.root / "spool").glob("counts-*.jsonl")
        for line in file.read_text().splitlines()
    ]
    newest = {(x["metric"], x["stratum"]): x for x in lines}
    requests = [x for (metric, _), x in newest.items() if metric == "requests"]
    assert sum(x["n_s"] for x in requests) == 1  # the one who had no such right
    assert sum(x["n_c"] for x in requests) == 0


def test_a_new_plan_ends_what_was_decided_before(place):
    place.apply()
    client = place.house.start()
    token = bearer(place.token())
    assert client.ask("POST", INFER, BODY, token)[0] == 200
    seq = place.apply(roles={}).seq
    end = time.monotonic() + 10
    while client.ask("POST", INFER, BODY, token)[0] == 200 and time.monotonic() < end:
        time.sleep(0.1)
    status, _, told = client.ask("POST", INFER, BODY, token)
    assert (status, told["code"]) == (403, "serving.not-allowed"), seq


def test_a_table_that_ran_out_lets_nobody_in(place):
    place.apply(expires=datetime.now(UTC) - timedelta(seconds=1))
    client = place.house.start()
    status, _, told = client.ask("POST", INFER, BODY, bearer(place.token()))
    assert status == 401
    assert "ran out" in told["error"]
    assert client.get("/v2/health/ready")[0] == 200


# TLS


def asked(address, context, headers=None, body=BODY):
    """Status and release over a fresh connection."""
    connection = http.client.HTTPSConnection(*address, context=context, timeout=5)
    try:
        connection.request("POST", INFER, body, headers or {})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def client_context(place, holder=None, trust=None, folder=None):
    context = ssl.create_default_context(cadata=(trust or place.authority).pem)
    context.check_hostname = False
    if holder is not None:
        context.load_cert_chain(*write_pair(folder, holder, "client"))
    return context


def served(place, tmp_path, *more, clients=True):
    server = leaf(
        place.authority, place.now, name="server", kind=DNSName, purposes=(EKU.SERVER_AUTH,)
    )
    cert, key = write_pair(tmp_path, server)
    ca = tmp_path / "clients.pem"
    ca.write_text(place.authority.pem)
    wanted = ("--tls-clients", str(ca)) if clients else ()
    client = place.house.start("--tls-cert", str(cert), "--tls-key", str(key), *wanted, *more)
    host, _, port = client.url.removeprefix("https://").rpartition(":")
    assert client.url.startswith("https://")
    return client, (host, int(port))


def test_a_client_certificate_is_an_identity_and_binds_tokens(place, tmp_path):
    place.apply()
    _, address = served(place, tmp_path)
    holder = tower(place)
    known = client_context(place, holder, folder=tmp_path)
    assert asked(address, known) == 200
    bound = place.token(thumbprint=thumbprint_of(holder.chain[0]))
    assert asked(address, known, bearer(bound)) == 200
    assert asked(address, client_context(place), bearer(bound)) == 401
    assert asked(address, client_context(place), bearer(place.token())) == 200
    assert asked(address, client_context(place)) == 401
    other = leaf(place.authority, place.now, name=CLIENT + "-2", purposes=(EKU.CLIENT_AUTH,))
    assert asked(address, client_context(place, other, folder=tmp_path)) == 403


BAD_CLIENTS = {
    "none": lambda place: None,
    "of another authority": lambda place: leaf(
        authority(place.now, "Another"), place.now, name=CLIENT, purposes=(EKU.CLIENT_AUTH,)
    ),
    "expired": lambda place: tower(place, begins=timedelta(days=-3)),
    "for servers": lambda place: leaf(
        place.authority, place.now, name=CLIENT, purposes=(EKU.SERVER_AUTH,)
    ),
}


def test_the_four_bad_clients_are_refused_at_the_handshake(place, tmp_path):
    place.apply()
    client, address = served(place, tmp_path, "--tls-required")
    for name, made in BAD_CLIENTS.items():
        context = client_context(place, made(place), folder=tmp_path)
        with pytest.raises((OSError, http.client.HTTPException)):
            raise AssertionError(f"{name}: {asked(address, context, bearer(place.token()))}")
    assert asked(address, client_context(place, tower(place), folder=tmp_path)) == 200
    with socket.create_connection(address, timeout=5) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert b"HTTP" not in read_all(sock)  # plain text gets nothing
    assert client.process.poll() is None


def test_certificates_are_taken_up_without_a_restart_and_bad_ones_are_not(place, tmp_path):
    place.apply()
    client, address = served(place, tmp_path)
    kept = http.client.HTTPSConnection(*address, context=client_context(place), timeout=5)
    old = place.authority

    def until(check):
        end = time.monotonic() + 8
        while time.monotonic() < end:
            try:
                if check():
                    return True
            except OSError:
                pass
            time.sleep(0.2)
        return False

    (tmp_path / "server.key").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n")
    assert "not taken up" in client.process.stderr.readline().decode()
    assert asked(address, client_context(place), bearer(place.token())) == 200
    fresh = authority(place.now, "A new one")
    server = leaf(fresh, place.now, name="server", kind=DNSName, purposes=(EKU.SERVER_AUTH,))
    write_pair(tmp_path, server)
    new = client_context(place, trust=fresh)
    assert until(lambda: asked(address, new, bearer(place.token())) == 200)
    # An authority that is taken away is trusted no more from the next handshake on.
    (tmp_path / "clients.pem").write_text(fresh.pem)
    holder = client_context(place, tower(place), trust=fresh, folder=tmp_path)

    def turned_away():
        try:
            return asked(address, holder) != 200
        except (OSError, http.client.HTTPException):
            return True

    assert until(turned_away)
    assert old.pem != fresh.pem
    kept.close()


def test_a_handshake_that_says_nothing_takes_no_place_of_others(place, tmp_path):
    place.apply()
    _, address = served(place, tmp_path, clients=False)
    silent = [socket.create_connection(address, timeout=5) for _ in range(40)]
    try:
        assert asked(address, client_context(place), bearer(place.token())) == 200
    finally:
        for sock in silent:
            sock.close()


def test_more_handshakes_than_64_are_turned_away_at_accept(place, tmp_path):
    place.apply()
    _, address = served(place, tmp_path, clients=False)
    silent = [socket.create_connection(address, timeout=5) for _ in range(80)]
    try:
        time.sleep(0.3)
        ended = 0
        for sock in silent:
            sock.settimeout(0.01)
            try:
                ended += sock.recv(1) == b""
            except TimeoutError:
                pass
            except ConnectionResetError:
                ended += 1
        assert ended == 16
    finally:
        for sock in silent:
            sock.close()
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            if asked(address, client_context(place), bearer(place.token())) == 200:
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail("the places were not given back")


def test_a_refusal_over_tls_arrives_though_the_client_goes_on_sending(place, tmp_path):
    place.apply()
    _, address = served(place, tmp_path, clients=False)
    head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 33554432\r\n\r\n"
    with (
        socket.create_connection(address, timeout=5) as sock,
        client_context(place).wrap_socket(sock) as tls,
    ):
        tls.sendall(head + bytes(30_000))
        assert tls.recv(4096).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "more",
    [
        ("--host", "0.0.0.0"),
        ("--host", "::"),
        ("--host", "example.org"),
        ("--host", "0.0.0.0", "--grpc-port", "0", "--tls-cert", "a", "--tls-key", "b"),
    ],
)
def test_nothing_listens_in_plain_text_beyond_this_machine(tmp_path, capsys, more):
    given = ("--root", str(tmp_path), "--trust", str(tmp_path / "trust.json"), *more)
    assert main(given) == 6
    assert "serving.plain" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more",
    [
        ("--tls-cert", "a"),
        ("--tls-key", "a"),
        ("--tls-clients", "a"),
        ("--tls-required",),
        ("--tls-cert", "a", "--tls-key", "b", "--tls-required"),
    ],
)
def test_half_of_tls_is_refused(tmp_path, capsys, more):
    given = ("--root", str(tmp_path), "--trust", str(tmp_path / "trust.json"), *more)
    assert main(given) != 0
    assert "serving.tls-files" in capsys.readouterr().err


def test_beyond_this_machine_nobody_is_let_in_without_a_table(place):
    place.house.write(place.house.plan(place.stable))
    client = place.house.start("--host", "0.0.0.0", "--plain-beyond-loopback")
    client.host = "127.0.0.1"
    assert client.get("/v2/health/live")[0] == 200
    assert client.ask("POST", INFER, BODY)[0] == 401

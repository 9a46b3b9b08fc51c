"""The command line against a server: `falaj up` as a process, tokens, refusals, the end."""

from __future__ import annotations

import contextlib
import http.server
import re
import signal
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
from small_project import TOML, write_project
from typing_hands import environment, run_here

from falaj.access.service import AUDIENCE, ISSUER_KEY
from falaj.app import Works
from falaj.base import tokens
from falaj.base.errors import Exit
from falaj.links.keyring.keys import KeyRing


@contextlib.contextmanager
def up(root, *more):
    """`falaj up` on a free port; yields the process and its address."""
    child = subprocess.Popen(
        [sys.executable, "-m", "falaj", "up", "--port", "0", *more],
        cwd=root,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said = child.stdout.readline()
        found = re.search(r"http://\S+", said)
        assert found, said + child.stderr.read()
        yield child, found[0]
    finally:
        if child.poll() is None:
            child.kill()
        child.communicate()


@pytest.fixture(scope="module")
def server(prepared, tmp_path_factory):
    import shutil

    root = shutil.copytree(prepared, tmp_path_factory.mktemp("remote") / "project")
    with up(root) as (_, url):
        yield root, url


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A folder without any project: what is typed here goes over the wire or nowhere."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def remote(server, elsewhere):
    """Types with the token of an identity, made where the server runs."""
    root, url = server
    files = {}

    def type_(*line, by="owner"):
        if by not in files:
            done = run_here(root, "access", "token", by)
            assert done.code == 0, done.err
            files[by] = elsewhere / f"{by}.token"
            files[by].write_text(done.out)
        return run_here(elsewhere, *line, FALAJ_URL=url, FALAJ_TOKEN_FILE=str(files[by]))

    return type_


def with_token(server, elsewhere, text, *line):
    path = elsewhere / "some.token"
    path.write_text(text)
    return run_here(elsewhere, *line, FALAJ_URL=server[1], FALAJ_TOKEN_FILE=str(path))


def test_the_way_over_the_wire_is_the_way(remote):
    status = remote("status", "--json")
    assert status.code == 0, status.err
    assert status.json()["data"]["project"] == "small"
    run = remote("run", "-p", "slope=1.5", "--json")
    assert run.code == 0, run.err
    assert run.json()["data"]["status"] == "ok"
    gate = remote("gate", "--json")
    assert gate.code == 0, gate.err
    assert gate.json()["data"]["run"] == run.json()["data"]["id"]
    changes = remote("change", "list", "--json")
    assert [c["id"] for c in changes.json()["data"]] == ["CHG-0001"]
    assert "nothing is live" in remote("status").out


def test_roles_hold_over_the_wire(remote):
    assert remote("status", by="zayed").code == 0
    refused = remote("run", by="zayed")
    assert refused.code == Exit.NOT_ALLOWED
    assert "error[access.denied]" in refused.err
    own = remote("approve", "CHG-0001", "-m", "fine", by="owner-2")
    assert own.code == Exit.NOT_ALLOWED
    assert "error[access.four-eyes]" in own.err


def test_a_failure_over_the_wire_is_the_failure_here(remote, server):
    root, _ = server
    line = ("change", "show", "CHG-9999", "--json")
    here, there = run_here(root, *line), remote(*line)
    assert there.code == here.code == Exit.USAGE
    assert there.json() == here.json()
    assert there.err == here.err
    mistake = remote("gate", "--json", "-e", "moon")
    assert mistake.json()["code"] == "config.no-environment"


def test_a_gate_that_fails_over_the_wire_ends_with_3(remote):
    assert remote("run", "-p", "slope=-1.0").code == 0
    assert remote("gate").code == Exit.GATE_FAIL


def test_packs_come_over_the_wire(remote, elsewhere):
    done = remote("evidence", "export", "flight-delay", "-o", "pack.zip")
    assert done.code == 0, done.err
    checked = run_here(elsewhere, "verify", "pack.zip", "--trust", "pack.trust.json")
    assert checked.code == 0, checked.err


def test_as_is_a_local_word(remote):
    done = remote("--as", "layla", "status")
    assert done.code == Exit.USAGE
    assert "error[cli.as-is-local]" in done.err


def test_an_owner_cannot_become_somebody_else(remote):
    own = remote("access", "token", "owner", "--lifetime", "1m")
    assert own.code == 0
    other = remote("access", "token", "layla")
    assert other.code == Exit.NOT_ALLOWED
    assert "error[access.token-of-another]" in other.err
    assert other.out == ""


TOKENS = {
    "none": "",
    "not one": "x",
    "three parts of nothing": "a.b.c",
}


@pytest.mark.parametrize("text", TOKENS.values(), ids=TOKENS)
def test_a_wrong_token_ends_with_6(server, elsewhere, text):
    done = with_token(server, elsewhere, text, "status")
    assert done.code == Exit.NOT_ALLOWED, done.err
    assert "Traceback" not in done.err


def test_an_expired_token_ends_with_6(server, elsewhere):
    ring = KeyRing(server[0] / ".falaj" / "keys")
    ring.create(ISSUER_KEY, ("token",))
    old = tokens.issue(
        ring.signer(ISSUER_KEY),
        issuer="falaj:small",
        audience=AUDIENCE,
        subject="owner",
        now=datetime.now(UTC) - timedelta(hours=2),
        lifetime=timedelta(hours=1),
    )
    done = with_token(server, elsewhere, old, "status", "--json")
    assert done.code == Exit.NOT_ALLOWED
    assert done.json()["code"] == "access.bad-token"
    assert "expired" in done.json()["detail"]
    assert old.strip() not in done.out + done.err


def test_a_token_of_another_project_ends_with_6(server, elsewhere, tmp_path):
    other = write_project(tmp_path / "other", toml=TOML.replace('name = "small"', 'name = "other"'))
    token = run_here(other, "access", "token").out
    done = with_token(server, elsewhere, token, "status")
    assert done.code == Exit.NOT_ALLOWED


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_nobody_there(elsewhere):
    done = run_here(elsewhere, "status", FALAJ_URL=f"http://127.0.0.1:{free_port()}")
    assert done.code == Exit.USAGE
    assert "error[cli.unreachable]" in done.err
    assert "falaj up" in done.err


ADDRESSES = {
    "plain http to another machine": ("http://falaj.example", "cli.plain-http"),
    "plain http to all of this one": ("http://0.0.0.0:1", "cli.plain-http"),
    "a name that begins like ours": ("http://localhost.example:1", "cli.plain-http"),
    "ours as the user's name": ("http://127.0.0.1@falaj.example", "cli.plain-http"),
    "no address": ("not an address", "cli.plain-http"),
    "another scheme": ("file:///etc/passwd", "cli.plain-http"),
}


@pytest.mark.parametrize(("url", "code"), ADDRESSES.values(), ids=ADDRESSES)
def test_a_token_never_travels_in_the_clear(server, elsewhere, url, code):
    path = elsewhere / "some.token"
    path.write_text("secret")
    done = run_here(elsewhere, "status", FALAJ_URL=url, FALAJ_TOKEN_FILE=str(path))
    assert done.code == Exit.USAGE
    assert f"error[{code}]" in done.err
    assert "secret" not in done.err


@pytest.mark.parametrize("text", ["a\nb: c", "a b", "سر", "a\x00b"], ids=repr)
def test_a_file_that_holds_no_token(server, elsewhere, text):
    done = with_token(server, elsewhere, text, "status")
    assert done.code == Exit.USAGE
    assert "error[cli.no-token-file]" in done.err
    assert text not in done.err


def test_a_token_file_that_is_not_there(server, elsewhere):
    done = run_here(elsewhere, "status", FALAJ_URL=server[1], FALAJ_TOKEN_FILE="no/such/file")
    assert done.code == Exit.USAGE
    assert "error[cli.no-token-file]" in done.err


class Other(http.server.BaseHTTPRequestHandler):
    """Some other program that answers at the address."""

    def do_GET(self):
        self.send_response(404)
        self.end_headers()
        self.wfile.write(b"<h1>It works!</h1>")

    def log_message(self, *_):
        """Silent."""


def test_somebody_else_is_there(elsewhere):
    other = http.server.HTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    try:
        done = run_here(elsewhere, "status", FALAJ_URL=f"http://127.0.0.1:{other.server_port}")
    finally:
        other.shutdown()
        other.server_close()
    assert done.code == Exit.USAGE
    assert "error[cli.not-falaj]" in done.err


def test_proxies_of_the_environment_see_no_token(server, elsewhere, remote):
    """A proxy that is set for everything else does not get to see what goes to this machine."""
    remote("status")
    path = elsewhere / "owner.token"
    proxy = f"http://127.0.0.1:{free_port()}"
    done = run_here(
        elsewhere, "status", FALAJ_URL=server[1], FALAJ_TOKEN_FILE=str(path), HTTP_PROXY=proxy,
        http_proxy=proxy, ALL_PROXY=proxy,
    )  # fmt: skip
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGTERM, Exit.OK), (signal.SIGINT, Exit.INTERRUPTED)]
)
def test_it_ends_when_it_is_told(workspace, sent, code):
    with up(workspace) as (child, url):
        port = int(url.rsplit(":", 1)[1])
        held = socket.create_connection(("127.0.0.1", port))  # somebody who says nothing
        child.send_signal(sent)
        _, said = child.communicate(timeout=60)  # a slow disk holds the last turn up, nobody else
        held.close()
    assert child.returncode == code, said
    assert "Traceback" not in said
    works = Works.open(workspace)  # nothing is held any more
    works.close()


def test_where_nobody_works_nothing_is_worked_off(workspace):
    with up(workspace, "--no-worker") as (child, _):
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=15)
    assert child.returncode == 0


HOSTS = ["0.0.0.0", "::", "192.0.2.7", "falaj.example", ""]


@pytest.mark.parametrize("host", HOSTS)
def test_it_listens_to_this_machine_alone(here, workspace, host):
    done = here(workspace, "up", "--port", "0", "--host", host)
    assert done.code == Exit.USAGE
    assert "error[cli.plain-http]" in done.err


@pytest.mark.parametrize("kind", ["personal", "sensitive"])
def test_with_data_of_persons_there_is_no_plain_http(here, workspace, kind):
    file = workspace / "falaj.toml"
    file.write_text(TOML.replace('classification = "internal"', f'classification = "{kind}"'))
    done = here(workspace, "up", "--port", "0")
    assert done.code == Exit.USAGE
    assert "error[cli.plain-http]" in done.err
    assert "'rows'" in done.err
    assert here(workspace, "status").code == 0, "in the own process it goes on"


def test_a_port_that_is_taken(here, workspace):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = here(workspace, "up", "--port", str(taken.getsockname()[1]))
    assert done.code == Exit.USAGE
    assert "error[cli.no-port]" in done.err

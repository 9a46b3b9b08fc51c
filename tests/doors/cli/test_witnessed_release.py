"""An environment that asks for a witness: what it takes, and that its server asks for the same."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
import uvicorn
from small_project import write_project

from falaj.app import Works
from falaj.base import note
from falaj.base.errors import Exit
from falaj.doors.api.app import create
from falaj.facts.access import Role
from falaj.journeys.witness import witness_key


@pytest.fixture
def asked(here, living, tmp_path):
    """Production asks for a witness, and another Falaj on loopback is one; its key lies in a file."""
    keys = here(living, "audit", "witness", "list", "--json").json()["data"]["keys"]
    root = write_project(tmp_path / "witness")
    with (root / "falaj.toml").open("a") as file:
        file.write(f'\n[[audit.logs]]\nkey = "{keys[0]}"\n')
    works = Works.open(root)
    works.access.add("their-log", (Role.LOG,), actor="owner")
    (living / "witness.token").write_text(works.access.token("their-log", timedelta(hours=1)))
    line = note.write_key(witness_key(works.ground)[0])
    (living / "witness.key").write_text(line)
    server = uvicorn.Server(
        uvicorn.Config(
            create(works, embedded=False), host="127.0.0.1", port=0, log_level="error",
            proxy_headers=False, lifespan="off",
        )
    )  # fmt: skip
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    with (living / "falaj.toml").open("a") as file:
        file.write(
            f'\n[[audit.witnesses]]\nname = "regulator"\nkind = "http"\nkey = "{line}"\n'
            f'place = "http://127.0.0.1:{port}/witness"\ntoken_file = "witness.token"\n'
        )
    done = here(living, "keys", "require", "release", "1", "-e", "production", "--witnessed")
    assert done.code == 0, done.err
    assert here(living, "--as", "layla", "approve", "CHG-0001", "-m", "read it").code == 0
    yield living, line.split("+")[0]
    server.should_exit = True
    thread.join()
    works.close()


def seen(root):
    return [path.name for path in (root / ".falaj" / "releases").rglob("*.seen")]


def test_a_release_that_a_witness_has_seen_goes_live_and_one_that_none_has_is_refused(here, asked):
    root, name = asked
    refused = here(root, "rollout", "start", "CHG-0001")
    assert refused.code == Exit.UNVERIFIED
    assert "error[releases.time-not-witnessed]" in refused.err
    other = here(root, "keys", "add", "somebody", "witness.key", "--role", "witness")
    assert other.code != 0
    assert "error[keys.other-name]" in other.err
    assert here(root, "keys", "add", name, "witness.key", "--role", "witness").code == 0
    assert here(root, "worker", "--once", "--duty", "witnesses").code == 0
    assert seen(root) == ["1.0.0.seen"]
    done = here(root, "rollout", "start", "CHG-0001", "--watch")
    assert done.code == 0, done.err
    status = here(root, "status", "--json").json()["data"]
    assert "1.0.0" in str(status)


@pytest.mark.parametrize("harm", ["a byte", "a signature that none has seen", "nothing"])
def test_what_lies_beside_a_release_is_believed_by_its_signatures_alone(here, asked, harm):
    root, name = asked
    assert here(root, "keys", "add", name, "witness.key", "--role", "witness").code == 0
    assert here(root, "audit", "witness", "check").code == 0
    (path,) = (root / ".falaj" / "releases").rglob("*.seen")
    if harm == "a byte":
        data = path.read_bytes()
        at = data.index(b"extra ") + 40
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    elif harm == "nothing":
        path.write_bytes(b"")
    else:
        signature = path.with_suffix("") / "signature.json"  # 1.0.0.seen -> 1.0.0
        signature.write_bytes(signature.read_bytes() + b"\n")
    refused = here(root, "rollout", "start", "CHG-0001")
    assert refused.code == Exit.UNVERIFIED
    assert "releases.time-not-witnessed" in refused.err

"""POST add-checkpoint as https://c2sp.org/tlog-witness wants it, status by status."""

from __future__ import annotations

import shutil

import pytest
from growing import GrowingLog, key_of

from falaj.app import Works
from falaj.base import note, tlog
from falaj.base.errors import FalajError
from falaj.facts.access import Role
from falaj.facts.project import AuditTable, WitnessedTable
from falaj.journeys.witness import log_keys, witness_key
from falaj.ports.log import Asked

LOG = GrowingLog("log/theirs/1")
PATH = "/witness/add-checkpoint"


@pytest.fixture
def post(prepared, tmp_path, asking_of):
    root = shutil.copytree(prepared, tmp_path / "project")
    with (root / "falaj.toml").open("a") as file:
        file.write(f'\n[[audit.logs]]\nkey = "{note.write_key(LOG.key)}"\n')
    works = Works.open(root)
    works.access.add("theirs", (Role.LOG,), actor="owner")
    asking = asking_of(works)

    def ask(body, by="theirs"):
        raw = body if isinstance(body, bytes) else tlog.write_growth(body[0])
        return asking("POST", PATH, raw=raw, by=by, headers={"content-type": "text/plain"}.items())

    ask.works, ask.asking = works, asking
    yield ask
    works.close()


def test_a_log_that_grows_is_cosigned(post):
    key, _ = witness_key(post.works.ground)
    for old, size in ((0, 2), (2, 5), (5, 5)):
        growth, head = LOG.growth(old, size)
        heard = post((growth, head))
        assert heard.status == 200
        opened = note.open_note(growth.note + heard.body, [key])
        assert tlog.read_checkpoint(opened.text) == head
        assert heard.body.startswith("— witness/".encode())


def test_a_proof_that_begins_elsewhere_is_answered_with_the_size(post):
    post(LOG.growth(0, 5))
    for old in (0, 2, 9):
        heard = post(LOG.growth(old, 9))
        assert heard.status == 409
        assert heard.body == b"5\n"
        assert heard.headers["content-type"] == "text/x.tlog.size"


REFUSED = {
    "nothing": (lambda: b"", 400),
    "words": (lambda: b"hello", 400),
    "bytes": (lambda: b"\xff" * 99, 400),
    "an old size above the new one": (lambda: tlog.write_growth(LOG.growth(2, 2)[0]._replace(old=9)), 400),
    "an extension line": ("extended", 400),
    "a log that nobody entered": (lambda: tlog.write_growth(GrowingLog("log/x/1").growth(0, 2)[0]), 404),
    "a key that is not the log's": ("forged", 403),
}  # fmt: skip


def extended():
    text = tlog.text_of(LOG.head(2)) + "more\n"
    from growing import PRIVATE

    signed = note.write_note(text, [note.sign(text, LOG.key, PRIVATE.sign)])
    return b"old 0\n\n" + signed


def forged():
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    other = Ed25519PrivateKey.generate()
    key = LOG.key._replace(public=other.public_key().public_bytes_raw())
    text = tlog.text_of(LOG.head(2))
    return b"old 0\n\n" + note.write_note(text, [note.sign(text, key, other.sign)])


@pytest.mark.parametrize(("make", "status"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(post, make, status):
    body = {"extended": extended, "forged": forged}.get(make, make)()
    assert post(body).status == status
    assert post.works.ground.log.seen(LOG.origin) is None


def test_a_fork_is_refused_and_kept_as_evidence_once(post):
    post(LOG.growth(0, 5))
    for _ in range(2):
        assert post(LOG.growth(5, 9, fork=True)).status == 422
    assert post(LOG.growth(5, 5, fork=True)).status == 409
    found = post.works.ground.log.search(Asked(subject=f"log/{LOG.origin}"))
    assert [event.type for _, event in found] == ["log.fork-seen", "log.fork-seen"]
    assert post.works.ground.log.seen(LOG.origin).size == 5
    assert post(LOG.growth(5, 9)).status == 200


def test_without_an_account_nothing_is_witnessed(post):
    assert post(LOG.growth(0, 2), by="").status == 401
    for name in ("layla", "zayed"):
        assert post(LOG.growth(0, 2), by=name).status == 403


def test_the_account_of_a_log_sees_nothing(post):
    for path in ("/events", "/log", "/status", "/releases", "/identities", "/log/events"):
        assert post.asking("GET", path, by="theirs").status == 403, path


def test_a_line_that_is_no_key_is_told_with_its_place():
    witness = note.Key("w", note.COSIGNATURE, bytes(32))
    for line in ("abc", note.write_key(witness)):
        with pytest.raises(FalajError) as caught:
            log_keys(AuditTable(logs=(WitnessedTable(key=line),)))
        assert caught.value.code == "audit.bad-key"


def test_the_key_that_cosigns_stays(post):
    one, two = witness_key(post.works.ground)[0], witness_key(post.works.ground)[0]
    assert one == two
    assert one.kind == note.COSIGNATURE
    assert key_of("x").kind == note.ED25519

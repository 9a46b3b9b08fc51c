"""The contract of ports/witness.py: what was seen is never contradicted and never forgotten."""

from __future__ import annotations

import itertools
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import stores
import uvicorn
from growing import GrowingLog, key_of
from small_project import write_project

from falaj.app import Works
from falaj.base import note, tlog
from falaj.doors.api.app import create
from falaj.facts.access import Role
from falaj.journeys.witness import witness_key
from falaj.links.files.witness import FileWitness
from falaj.links.git.witness import GitWitness
from falaj.links.s3.client import Bucket, Credentials
from falaj.links.s3.witness import S3Witness
from falaj.links.tlog.witness import HttpWitness
from falaj.ports.witness import Away, Behind, Refused

MOST = 200  # more than there are tests: no two share a log
NUMBERS = itertools.count()
KINDS = ["file", "git", "git-pushed", "falaj", "s3"]


def git(at, *words):
    done = subprocess.run(
        ["git", "-C", str(at), *words], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another Falaj, served on loopback; it knows the logs of these tests."""
    root = write_project(tmp_path_factory.mktemp("other") / "project")
    lines = "".join(
        f'[[audit.logs]]\nkey = "{note.write_key(key_of(f"log/test/{n}"))}"\n' for n in range(MOST)
    )
    with (root / "falaj.toml").open("a") as file:
        file.write("\n" + lines)
    works = Works.open(root)
    works.access.add("their-log", (Role.LOG,), actor="owner")
    token = root / "their.token"
    from datetime import timedelta

    token.write_text(works.access.token("their-log", timedelta(hours=1)) + "\n")
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
    key, _ = witness_key(works.ground)
    yield works, f"http://127.0.0.1:{port}/witness", key, token
    server.should_exit = True
    thread.join()
    works.close()


@pytest.fixture(scope="module")
def moto(tmp_path_factory):
    store = stores.moto(tmp_path_factory.mktemp("moto"))
    yield store
    store.close()


def in_bucket(store, name="archive", credentials=None):
    found = Bucket(store.endpoint, stores.BUCKET, credentials or store.credentials)
    return S3Witness(name, lambda: found, "checkpoints")


@pytest.fixture(params=KINDS)
def witness(request, tmp_path):
    if request.param == "file":
        (tmp_path / "archive").mkdir()
        return FileWitness("archive", tmp_path / "archive")
    if request.param in ("git", "git-pushed"):
        git(tmp_path, "init", "-q", "own")
        remote = ""
        if request.param == "git-pushed":
            git(tmp_path, "init", "-q", "--bare", "auditor.git")
            remote = str(tmp_path / "auditor.git")
        return GitWitness("archive", tmp_path / "own", remote=remote)
    if request.param == "s3":
        return in_bucket(request.getfixturevalue("moto"))
    _, url, key, token = request.getfixturevalue("other")
    return HttpWitness("archive", url, key, token_file=token)


@pytest.fixture
def log():
    return GrowingLog(f"log/test/{next(NUMBERS)}")


def tells(witness, log, size):
    """Where it can be asked, it says so; else a proof that begins elsewhere makes it say so."""
    held = witness.latest(log.origin)
    if held is not None:
        return held == log.head(size)
    try:
        witness.add(*log.growth(0 if size else 1, size + 5))
    except Behind as behind:
        return behind.size == size
    return False


def test_it_holds_what_it_was_shown(witness, log):
    before = int(time.time())
    assert witness.latest(log.origin) is None
    for old, size in ((0, 2), (2, 5), (5, 13)):
        held = witness.add(*log.growth(old, size))
        assert held.line
        assert before <= held.at <= time.time() + 1
    assert tells(witness, log, 13)


def test_the_same_again_is_no_error(witness, log):
    witness.add(*log.growth(0, 5))
    witness.add(*log.growth(5, 5))
    assert tells(witness, log, 5)


@pytest.mark.parametrize("old", [0, 2, 6])
def test_a_proof_that_begins_elsewhere_is_answered_with_what_is_held(witness, log, old):
    witness.add(*log.growth(0, 5))
    with pytest.raises(Behind) as caught:
        witness.add(*log.growth(old, 9))
    assert caught.value.size == 5


def test_a_proof_of_a_log_that_it_never_saw_begins_with_nothing(witness, log):
    with pytest.raises(Behind) as caught:
        witness.add(*log.growth(3, 9))
    assert caught.value.size == 0


FORKS = {"as long": (5, 5), "longer": (5, 9), "much longer": (5, 300)}


@pytest.mark.parametrize(("old", "size"), FORKS.values(), ids=FORKS)
def test_a_fork_is_refused_and_the_honest_log_goes_on(witness, log, old, size):
    witness.add(*log.growth(0, 5))
    with pytest.raises(Refused) as caught:
        witness.add(*log.growth(old, size, fork=True))
    assert caught.value.code == "audit.witness-refuses"
    assert caught.value.problems[0].fix
    witness.add(*log.growth(5, 9))
    assert tells(witness, log, 9)


def test_a_shorter_log_is_refused(witness, log):
    witness.add(*log.growth(0, 9))
    growth, head = log.growth(5, 5)
    with pytest.raises((Behind, Refused)):
        witness.add(growth, head)
    assert tells(witness, log, 9)


def test_without_a_proof_nothing_is_held(witness, log):
    witness.add(*log.growth(0, 5))
    growth, head = log.growth(5, 9)
    with pytest.raises(Refused):
        witness.add(growth._replace(hashes=()), head)
    assert tells(witness, log, 5)


def test_logs_do_not_disturb_each_other(witness, log):
    second = GrowingLog(f"log/test/{next(NUMBERS)}")
    witness.add(*log.growth(0, 5))
    witness.add(*second.growth(0, 3))
    witness.add(*log.growth(5, 6))
    assert tells(witness, log, 6)
    assert tells(witness, second, 3)


def test_it_does_what_it_promises(witness):
    assert witness.probe()
    assert witness.where
    assert witness.name == "archive"


# --- a folder ---


def test_files_are_written_once_and_for_reading(tmp_path, log):
    FileWitness("a", tmp_path).add(*log.growth(0, 5))
    (path,) = tmp_path.rglob("*.checkpoint")
    assert path.stat().st_mode & 0o777 == 0o444
    assert [p.name for p in path.parent.iterdir()] == [path.name], "nothing half-written is left"
    told = tlog.read_checkpoint(note.open_note(path.read_bytes(), [log.key]).text)
    assert told == log.head(5)


def test_a_folder_that_is_not_mounted_is_not_made(tmp_path, log):
    with pytest.raises(Away) as caught:
        FileWitness("a", tmp_path / "away").add(*log.growth(0, 5))
    assert caught.value.code == "audit.witness-away"
    assert not (tmp_path / "away").exists()


def test_a_file_that_was_changed_is_told(tmp_path, log):
    witness = FileWitness("a", tmp_path)
    witness.add(*log.growth(0, 5))
    (path,) = tmp_path.rglob("*.checkpoint")
    path.chmod(0o644)
    path.write_bytes(b"hello")
    with pytest.raises(Refused) as caught:
        witness.add(*log.growth(5, 9))
    assert caught.value.code == "audit.witness-damaged"


# --- a repository ---


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init", "-q", "own")
    return tmp_path / "own"


def test_one_commit_a_checkpoint_and_the_work_tree_is_not_touched(repository, log):
    (repository / "mine.txt").write_text("mine")
    witness = GitWitness("a", repository)
    for old, size in ((0, 2), (2, 5), (5, 5)):
        witness.add(*log.growth(old, size))
    words = git(repository, "log", "--format=%s", "falaj-checkpoints").splitlines()
    assert words == [f"{log.origin}: 5 events", f"{log.origin}: 2 events"]
    assert git(repository, "status", "--porcelain") == "?? mine.txt\n"
    assert git(repository, "fsck", "--strict") == ""


def test_hooks_of_the_repository_do_not_run(repository, log):
    hook = repository / ".git" / "hooks" / "reference-transaction"
    hook.write_text(f"#!/bin/sh\ntouch {repository}/ran\n")
    hook.chmod(0o755)
    GitWitness("a", repository).add(*log.growth(0, 2))
    assert not (repository / "ran").exists()


@pytest.mark.parametrize("make", [False, True], ids=["absent", "no repository"])
def test_no_repository_is_away(tmp_path, log, make):
    if make:
        (tmp_path / "x").mkdir()
    witness = GitWitness("a", tmp_path / "x")
    for ask in (witness.probe, lambda: witness.latest(log.origin)):
        with pytest.raises(Away) as caught:
            ask()
        assert caught.value.code == "audit.witness-away"


def test_a_branch_that_somebody_else_wrote_is_told(repository, log):
    witness = GitWitness("a", repository)
    witness.add(*log.growth(0, 2))
    git(repository, "checkout", "-q", "falaj-checkpoints")
    (path,) = repository.glob("*.checkpoint")
    path.write_text("hello")
    git(repository, "-c", "user.name=m", "-c", "user.email=m@x", "commit", "-qam", "mine")
    with pytest.raises(Refused) as caught:
        witness.add(*log.growth(2, 5))
    assert caught.value.code == "audit.witness-damaged"


def test_a_remote_that_is_away_is_caught_up_with_later(tmp_path, repository, log):
    bare = tmp_path / "auditor.git"
    witness = GitWitness("a", repository, remote=str(bare))
    with pytest.raises(Away):
        witness.add(*log.growth(0, 2))
    git(tmp_path, "init", "-q", "--bare", str(bare))
    witness.add(*log.growth(0, 2))
    assert git(bare, "log", "--format=%s", "falaj-checkpoints").splitlines() == [
        f"{log.origin}: 2 events"
    ]


def test_what_the_remote_holds_counts_when_the_own_branch_is_gone(tmp_path, repository, log):
    git(tmp_path, "init", "-q", "--bare", "auditor.git")
    bare = str(tmp_path / "auditor.git")
    GitWitness("a", repository, remote=bare).add(*log.growth(0, 5))
    git(tmp_path, "init", "-q", "new")
    again = GitWitness("a", tmp_path / "new", remote=bare)
    with pytest.raises(Behind) as caught:
        again.add(*log.growth(0, 9))
    assert caught.value.size == 5
    with pytest.raises(Refused):
        again.add(*log.growth(5, 9, fork=True))
    again.add(*log.growth(5, 9))
    assert len(git(bare, "log", "--format=%h", "falaj-checkpoints").splitlines()) == 2


def test_a_remote_that_was_written_by_others_is_never_overwritten(tmp_path, repository, log):
    git(tmp_path, "init", "-q", "--bare", "auditor.git")
    bare = str(tmp_path / "auditor.git")
    witness = GitWitness("a", repository, remote=bare)
    witness.add(*log.growth(0, 5))
    git(tmp_path, "init", "-q", "forger")
    forged = GitWitness("b", tmp_path / "forger")
    forged.add(*log.growth(0, 7, fork=True))
    git(tmp_path / "forger", "push", "-q", "--force", bare, "falaj-checkpoints")
    theirs = git(bare, "rev-parse", "falaj-checkpoints")
    with pytest.raises((Refused, Away)):
        witness.add(*log.growth(5, 9))
    assert git(bare, "rev-parse", "falaj-checkpoints") == theirs


# --- a witness that cosigns ---


def test_a_cosignature_is_one_of_that_key_over_that_checkpoint(other, log):
    _, url, key, token = other
    growth, head = log.growth(0, 5)
    held = HttpWitness("a", url, key, token_file=token).add(growth, head)
    opened = note.open_note(growth.note + held.line.encode(), [key])
    assert opened.by == ((key, held.at),)
    assert tlog.read_checkpoint(opened.text) == head


def test_a_log_that_is_not_known_there(other):
    _, url, key, token = other
    stranger = GrowingLog("log/stranger/1")
    with pytest.raises(Refused) as caught:
        HttpWitness("a", url, key, token_file=token).add(*stranger.growth(0, 5))
    assert caught.value.code == "audit.witness-unknown-log"


def test_without_a_token_a_falaj_does_not_witness(other, log):
    _, url, key, _ = other
    with pytest.raises(Refused) as caught:
        HttpWitness("a", url, key).add(*log.growth(0, 5))
    assert caught.value.code == "audit.witness-unknown-log"


def test_a_token_file_without_a_token(other, log, tmp_path):
    _, url, key, _ = other
    for data in (None, b"", b"two words", b"\xff\xff"):
        path = tmp_path / "token"
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(Refused) as caught:
            HttpWitness("a", url, key, token_file=path).add(*log.growth(0, 5))
        assert caught.value.code == "audit.witness-token"


class Liar:
    """A server that answers every request with one prepared answer."""

    def __init__(self, status, kind, body, **headers):
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(status)
                self.send_header("Content-Type", kind)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()


SIZE, PLAIN = "text/x.tlog.size", "text/plain"
LIES = {
    "nothing": (200, PLAIN, b"", Refused, "audit.witness-bad-cosignature"),
    "words": (200, PLAIN, b"thank you\n", Refused, "audit.witness-bad-cosignature"),
    "bytes": (200, PLAIN, b"\xff\xfe\n", Refused, "audit.witness-bad-cosignature"),
    "a signature of somebody else": (
        200, PLAIN, "— w AAAAAAAAAAA=\n".encode(), Refused, "audit.witness-bad-cosignature",
    ),
    "a size that is no number": (409, SIZE, b"many\n", Away, "audit.witness-away"),
    "a size with a zero before it": (409, SIZE, b"05\n", Away, "audit.witness-away"),
    "a size beyond the log": (409, SIZE, b"99\n", Refused, "audit.witness-refuses"),
    "a conflict without a size": (409, PLAIN, b"no\n", Refused, "audit.witness-refuses"),
    "no proof": (422, PLAIN, b"no\n", Refused, "audit.witness-refuses"),
    "not found": (404, PLAIN, b"", Refused, "audit.witness-unknown-log"),
    "forbidden": (403, PLAIN, b"", Refused, "audit.witness-unknown-log"),
    "a fault of its own": (500, PLAIN, b"", Away, "audit.witness-away"),
    "malformed, it says": (400, PLAIN, b"", Away, "audit.witness-away"),
    "without end": (200, PLAIN, b"a" * (1 << 17), Away, "audit.witness-away"),
}  # fmt: skip


@pytest.mark.parametrize(("status", "kind", "body", "error", "code"), LIES.values(), ids=LIES)
def test_what_a_witness_answers_is_not_believed(log, status, kind, body, error, code):
    liar = Liar(status, kind, body)
    key = note.Key("w", note.COSIGNATURE, bytes(32))
    try:
        with pytest.raises(error) as caught:
            HttpWitness("a", liar.url, key).add(*log.growth(0, 5))
    finally:
        liar.close()
    assert caught.value.code == code


def test_it_is_not_sent_elsewhere(log, other):
    _, url, key, _ = other
    liar = Liar(307, PLAIN, b"", Location=f"{url}/add-checkpoint")
    try:
        with pytest.raises(Away):
            HttpWitness("a", liar.url, key).add(*log.growth(0, 5))
        with pytest.raises(Away):
            HttpWitness("a", liar.url, key).probe()
    finally:
        liar.close()


def test_a_witness_with_another_key_is_not_the_one(other, log):
    _, url, key, token = other
    wrong = key._replace(public=bytes(32))
    with pytest.raises(Refused) as caught:
        HttpWitness("a", url, wrong, token_file=token).add(*log.growth(0, 5))
    assert caught.value.code == "audit.witness-bad-cosignature"


def test_nobody_answers(log):
    port = stores.free_port()
    witness = HttpWitness("a", f"http://127.0.0.1:{port}", note.Key("w", 4, bytes(32)))
    with pytest.raises(Away) as caught:
        witness.add(*log.growth(0, 5))
    assert caught.value.problems[0].fix


# --- a store ---


def test_a_store_that_overwrites_in_silence_is_refused(tmp_path, log):
    store = stores.rclone(tmp_path / "rclone")
    try:
        for ask in (
            lambda w: w.probe(),
            lambda w: w.add(*log.growth(0, 5)),
        ):
            with pytest.raises(Refused) as caught:
                ask(in_bucket(store))
            assert caught.value.code == "audit.witness-not-append-only"
    finally:
        store.close()


def test_a_store_that_does_not_look_at_signatures_is_refused(log):
    store = stores.OwnStore()
    try:
        with pytest.raises(Refused) as caught:
            in_bucket(store).add(*log.growth(0, 5))
        assert caught.value.code == "audit.witness-open-to-all"
    finally:
        store.close()


def test_a_wrong_secret_is_told(moto, log):
    wrong = Credentials(moto.credentials.key, "x" * 40)
    with pytest.raises(Refused) as caught:
        in_bucket(moto, credentials=wrong).add(*log.growth(0, 5))
    assert caught.value.code == "audit.witness-token"


def test_an_object_that_is_no_checkpoint_is_told(moto, log):
    witness = in_bucket(moto)
    witness.add(*log.growth(0, 5))
    bucket = Bucket(moto.endpoint, stores.BUCKET, moto.credentials)
    folder = f"checkpoints/{log.origin.replace('/', '_')}/"
    _, key = bucket.first(folder)
    bucket.put(f"{folder}0000000000000000000-9.checkpoint", bucket.get(key).body)
    with pytest.raises(Refused) as caught:
        witness.add(*log.growth(5, 9))
    assert caught.value.code == "audit.witness-damaged"


def test_a_store_that_is_away(log):
    away = f"http://127.0.0.1:{stores.free_port()}"
    bucket = Bucket(away, "models", Credentials("a", "b"))
    with pytest.raises(Away) as caught:
        S3Witness("a", lambda: bucket).add(*log.growth(0, 5))
    assert caught.value.code == "audit.witness-away"

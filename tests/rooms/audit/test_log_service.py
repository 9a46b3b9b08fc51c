"""The integrator: signs what continues the log that it signed before, and nothing else."""

from __future__ import annotations

import shutil
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from falaj.audit.service import BATCH, Log
from falaj.audit.whole import verify_log
from falaj.base import merkle, note, tlog
from falaj.base.errors import FalajError, NotFound
from falaj.facts.events import Event
from falaj.facts.releases import RevocationKind
from falaj.links.keyring.keys import KeyRing
from falaj.links.sql.store import SqlStore
from falaj.ports.log import LogUnavailable

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


class World:
    """A store, a key ring and a log over them; the clock stands still until it is moved."""

    def __init__(self, folder, empty=None):
        self.folder, self.now = folder, AT
        self.path = folder / "store.db"
        if empty is not None:  # migrating each store anew takes most of a test's time
            shutil.copy(empty, self.path)
        self.ring = KeyRing(folder / "keys", clock=lambda: self.now)
        self.count = 0
        self.open()

    def open(self):
        self.store = SqlStore.open(self.path)
        self.log = Log(
            self.store,
            self.store.log(),
            self.ring,
            project="loans",
            now=lambda: self.now,
            memory=self.folder / "log.checkpoint",
        )

    def reopened(self):
        self.store.close()
        self.open()
        return self.log

    def tell(self, count=1):
        with self.store.begin() as unit:
            for _ in range(count):
                self.count += 1
                unit.append(
                    Event(
                        id=f"01H{self.count:06}",
                        at=self.now,
                        project="loans",
                        type="change.opened",
                        actor="p-1",
                        subject=f"change/{self.count}",
                        data={"n": self.count},
                    )
                )

    def sql(self, *statements):
        self.store.close()
        raw = sqlite3.connect(self.path)
        for words in statements:
            raw.execute(words)
        raw.commit()
        raw.close()
        self.open()

    def fork(self):
        """The same number of events, the second of them another one, and a tree that fits them."""
        bodies = [leaf.body for leaf in self.store.log().leaves()]
        bodies[1] = bodies[1].replace(b'"n":2', b'"n":7')
        leaves = [merkle.leaf(body) for body in bodies]
        _, nodes = merkle.grow(merkle.START, leaves)
        self.store.close()
        raw = sqlite3.connect(self.path)
        raw.execute(
            "UPDATE event SET body = ?, leaf = ? WHERE id = '01H000002'", (bodies[1], leaves[1])
        )
        raw.executemany(
            "UPDATE log_node SET hash = ? WHERE level = ? AND idx = ?",
            [(node.hash, node.level, node.idx) for node in nodes],
        )
        raw.commit()
        raw.close()
        self.open()


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    path = tmp_path_factory.mktemp("empty") / "store.db"
    SqlStore.open(path).close()
    return path


@pytest.fixture
def world(tmp_path, empty):
    made = World(tmp_path, empty)
    yield made
    made.store.close()


def opened(world, data):
    return tlog.read_checkpoint(note.open_note(data, world.log.trusted()).text)


def test_an_empty_log_is_not_signed(world):
    assert world.log.cover() is None


def test_a_checkpoint_tells_size_and_root_under_the_name_of_the_log(world):
    world.tell(3)
    signed = world.log.cover()
    assert opened(world, signed.note) == tlog.Checkpoint(world.log.origin, *world.store.root())
    assert signed.note.startswith(b"log/loans/")
    (key,) = world.log.trusted()
    assert key.name == world.log.origin
    assert key.kind == note.ED25519


def test_the_name_stays_when_the_key_is_renewed(world):
    world.tell()
    first = world.log.cover()
    origin, (old,) = world.log.origin, world.log.trusted()
    world.now = AT + timedelta(days=720)
    world.tell()
    second = world.log.cover()
    assert world.log.origin == origin
    assert opened(world, second.note).origin == opened(world, first.note).origin
    assert {old} < set(world.log.trusted())


@pytest.mark.parametrize("how", ["rotated", "compromised"])
def test_after_a_key_was_taken_back_the_log_is_signed_by_the_next(world, how):
    world.tell(3)
    first = world.log.cover()
    (old,) = world.log.trusted()
    world.now += timedelta(hours=1)
    if how == "rotated":
        world.ring.rotate(world.log.origin)
    else:
        world.ring.revoke(world.log.origin, RevocationKind.COMPROMISED)
    second = world.log.cover()
    assert (second.size, second.root) == (first.size, first.root)
    (new,) = world.log.trusted()
    assert new != old
    assert note.open_note(second.note, [new]).text == note.read_note(first.note).text
    with pytest.raises(note.BadNote):
        note.open_note(first.note, world.log.trusted())
    assert world.log.remembered() == second
    world.tell()
    assert world.log.cover().size == 4
    assert verify_log(world.log).findings == ()


def test_no_checkpoint_covers_more_than_a_batch(world):
    world.tell(BATCH * 2 + 30)
    world.log.cover()
    sizes = [signed.size for signed in world.log.log.checkpoints()]
    assert sizes == [BATCH, BATCH * 2, BATCH * 2 + 30]


def test_a_worker_signs_once_a_second(world):
    world.tell()
    assert world.log.turn().size == 1
    world.tell()
    assert world.log.turn() is None
    world.now += timedelta(seconds=1)
    assert world.log.turn().size == 2
    assert world.log.turn() is None


def test_a_worker_signs_full_batches_at_once(world):
    world.log.turn()
    world.tell()
    world.log.turn()
    world.tell(BATCH + 1)
    assert world.log.turn().size == BATCH + 1


def test_the_same_again_is_the_same_signature(world):
    world.tell(2)
    one = world.log.cover()
    assert world.log.cover() == one
    assert len(list(world.log.log.checkpoints())) == 1


# --- what is never signed ---


def refused(world, code):
    with pytest.raises(LogUnavailable) as caught:
        world.log.cover()
    assert caught.value.code == code
    assert caught.value.problems[0].fix
    return caught.value


FORKS = {
    "an event was changed and the tree with it": lambda w: w.fork(),
    "the last events were removed": lambda w: w.sql(
        "DELETE FROM log_leaf WHERE idx >= 3", "DELETE FROM log_node WHERE (idx + 1) << level > 3"
    ),
    "a node was changed": lambda w: w.sql(
        "UPDATE log_node SET hash = zeroblob(32) WHERE level = 2"
    ),
    "a checkpoint was changed": lambda w: w.sql("UPDATE checkpoint SET root = zeroblob(32)"),
    "a checkpoint of somebody else": lambda w: w.sql(
        "UPDATE checkpoint SET note = replace(note, 'log/loans', 'log/loads')"
    ),
}


@pytest.mark.parametrize("change", FORKS.values(), ids=FORKS)
@pytest.mark.parametrize("more", [0, 1, 4])
def test_what_is_no_continuation_is_not_signed(world, change, more):
    world.tell(5)
    world.log.cover()
    change(world)
    if more:
        world.tell(more)
    refused(world, "audit.log-forked")
    assert [signed.size for signed in world.log.log.checkpoints()] == [5]


def test_a_lost_node_is_named(world):
    world.tell(5)
    world.log.cover()
    world.sql("DELETE FROM log_node WHERE level = 0 AND idx = 4")
    world.tell()
    assert "node 4 of level 0" in str(refused(world, "audit.log-damaged"))


def test_a_store_put_back_from_an_older_copy_is_not_signed(world):
    world.tell(3)
    world.log.cover()
    world.store.close()
    shutil.copy(world.path, world.folder / "copy.db")
    world.reopened()
    world.tell(2)
    world.log.cover()
    world.store.close()
    for leftover in ("store.db-wal", "store.db-shm"):
        (world.folder / leftover).unlink(missing_ok=True)
    shutil.copy(world.folder / "copy.db", world.path)
    world.open()
    assert "has 3 events, signed were 5" in str(refused(world, "audit.log-forked"))
    world.tell(9)  # other events in the places of those that are gone
    refused(world, "audit.log-forked")


def test_checkpoints_that_were_removed_are_still_remembered(world):
    world.tell(5)
    world.log.cover()
    world.fork()
    world.sql("DELETE FROM checkpoint")
    refused(world, "audit.log-forked")


MEMORIES = {"no note": b"hello", "empty": b"", "not signed": b"log/loans/x\n9\nAAAA\n\n"}


@pytest.mark.parametrize("data", MEMORIES.values(), ids=MEMORIES)
def test_a_memory_that_was_changed_stops_the_log(world, data):
    world.tell()
    world.log.cover()
    (world.folder / "log.checkpoint").write_bytes(data)
    refused(world, "audit.log-forked")


def test_a_store_of_another_workspace_is_not_signed(world, tmp_path_factory):
    other = World(tmp_path_factory.mktemp("other"))
    other.tell(2)
    other.log.cover()
    other.store.close()
    world.store.close()
    shutil.copy(other.path, world.path)
    world.open()
    refused(world, "audit.log-forked")


# --- killed anywhere ---


class Killed(BaseException):
    """As if the process had ended there."""


def test_killed_at_every_statement_the_next_one_signs_the_same_log(tmp_path, empty):
    from sqlalchemy import event as happenings

    deaths = 0
    for at in range(200):
        folder = tmp_path / str(at)
        folder.mkdir()
        world = World(folder, empty)
        world.tell(3)
        world.log.cover()
        world.tell(4)
        left = [at]

        def look(*_, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise Killed

        engine = world.store._engine
        for name in ("before_cursor_execute", "commit"):
            happenings.listen(engine, name, look)
        died = False
        try:
            world.log.cover()
        except Killed:
            died = True
        for name in ("before_cursor_execute", "commit"):
            happenings.remove(engine, name, look)
        log = world.reopened()
        signed = log.cover()
        assert signed.size == 7
        found = verify_log(log)
        assert (found.size, found.findings) == (7, ())
        assert log.remembered().size == 7
        world.store.close()
        if not died:
            break
        deaths += 1
    assert deaths >= 15


def test_killed_between_store_and_memory_the_next_one_goes_on(world):
    world.tell(3)
    world.log.cover()
    old = (world.folder / "log.checkpoint").read_bytes()
    world.tell(2)
    world.log.cover()
    (world.folder / "log.checkpoint").write_bytes(old)
    world.tell()
    assert world.log.cover().size == 6


# --- proofs ---


def test_every_event_is_proven(world):
    world.tell(37)
    for place in range(37):
        proof = world.log.prove(f"01H{place + 1:06}")
        head = opened(world, proof.note)
        assert proof.place == place
        assert merkle.verify_inclusion(
            merkle.leaf(proof.extra), place, head.size, proof.hashes, head.root
        )


def test_an_event_that_is_unknown_is_not_proven(world):
    world.tell()
    with pytest.raises(NotFound) as caught:
        world.log.prove("01HNOBODY")
    assert caught.value.code == "audit.no-such-event"


def test_an_event_whose_body_was_changed_is_not_proven(world):
    world.tell(5)
    world.log.cover()
    world.sql("UPDATE event SET body = replace(body, 'p-1', 'p-2') WHERE id = '01H000003'")
    with pytest.raises(LogUnavailable) as caught:
        world.log.prove("01H000003")
    assert caught.value.code == "audit.log-damaged"


def test_every_growth_is_proven(world):
    heads = [tlog.Checkpoint(world.log.origin, 0, merkle.EMPTY)]
    for _ in range(12):
        world.tell()
        heads.append(opened(world, world.log.cover().note))
    for old in heads:
        growth = world.log.growth(old.size)
        tlog.judge(old if old.size else None, growth, heads[-1])


@pytest.mark.parametrize("size", [-1, 13, 10**12])
def test_a_size_that_never_was_has_no_growth(world, size):
    world.tell(12)
    with pytest.raises(FalajError) as caught:
        world.log.growth(size)
    assert caught.value.code == "audit.no-such-size"


# --- the whole log anew ---


def test_a_log_that_is_whole_has_no_finding(world):
    for count in (1, 5, 120):
        world.tell(count)
        world.log.cover()
    found = verify_log(world.log)
    assert (found.size, found.first, found.findings) == (126, None, ())
    assert found.checkpoints == 4
    assert found.root == world.store.root()[1]


def test_a_log_of_many_levels_is_computed_anew_with_few_connections(world):
    """One cursor a level once needed more connections than there are."""
    world.tell(70_000)
    world.store.integrate(limit=100_000)
    world.log.cover()
    found = verify_log(world.log)
    assert (found.size, found.findings) == (70_000, ())


def test_what_comes_while_it_is_computed_is_not_judged(world):
    world.tell(5)
    world.log.cover()
    log = world.store.log()

    class Busy(type(log)):
        """Three events come, are placed and signed while the first leaf is looked at."""

        came = False

        def leaves(self, start=0, end=None):
            for leaf in super().leaves(start, end):
                if not Busy.came:
                    Busy.came = True
                    world.tell(3)
                    world.log.cover()
                yield leaf

    busy = Log(
        world.store, Busy(world.store._engine), world.ring, project="loans",
        now=lambda: world.now, memory=world.folder / "log.checkpoint",
    )  # fmt: skip
    found = verify_log(busy)
    assert (found.size, found.findings) == (5, ())
    assert verify_log(world.log).size == 8


CHANGES = {  # statement -> the first place that differs
    "a body": ("UPDATE event SET body = replace(body, 'p-1', 'p-2') WHERE id = '01H000003'", 2),
    "a body and its leaf": (
        "UPDATE event SET body = '{}', leaf = zeroblob(32) WHERE id = '01H000005'", 4,
    ),
    "who is searched": ("UPDATE event SET actor = 'p-2' WHERE id = '01H000004'", 3),
    "what is searched": ("UPDATE event SET subject = 'x' WHERE id = '01H000004'", 3),
    "when is searched": ("UPDATE event SET at = '2020' WHERE id = '01H000004'", 3),
    "an event is gone": ("DELETE FROM event WHERE id = '01H000006'", 5),
    "a place is gone": ("DELETE FROM log_leaf WHERE idx = 2", 2),
    "the last place is gone": ("DELETE FROM log_leaf WHERE idx = 8", 8),
    "an event in the place of another": (
        "INSERT OR REPLACE INTO log_leaf VALUES (1, '01H000004')", 1,
    ),
    "a node": ("UPDATE log_node SET hash = zeroblob(32) WHERE level = 1 AND idx = 2", 5),
    "a node too many": ("INSERT INTO log_node VALUES (2, 7, zeroblob(32))", 9),
    "a node of a level too many": ("INSERT INTO log_node VALUES (9, 0, zeroblob(32))", 9),
    "a checkpoint's root": ("UPDATE checkpoint SET root = zeroblob(32) WHERE size = 9", 8),
    "a checkpoint's text": ("UPDATE checkpoint SET note = replace(note, 'loans', 'loads')", 3),
    "a checkpoint too large": (
        "INSERT INTO checkpoint SELECT 99, root, note FROM checkpoint WHERE size = 9", 9,
    ),
    "the remembered checkpoint": ("DELETE FROM checkpoint WHERE size = 9", 9),
}  # fmt: skip


@pytest.mark.parametrize(("statement", "first"), CHANGES.values(), ids=CHANGES)
def test_the_first_place_that_differs_is_named(world, statement, first):
    for count in (4, 5):
        world.tell(count)
        world.log.cover()
    world.sql("PRAGMA ignore_check_constraints = 1", "DROP INDEX IF EXISTS none", statement)
    found = verify_log(world.log)
    assert found.first == first, found.findings
    assert found.findings[0].code == "audit.log-differs"


def test_a_cosignature_that_does_not_hold_is_found(world):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from falaj.ports.log import Receipt

    private = Ed25519PrivateKey.generate()
    key = note.Key("w", note.COSIGNATURE, private.public_key().public_bytes_raw())
    world.tell(2)
    signed = world.log.cover()
    text = note.read_note(signed.note).text
    world.log.log.receive(Receipt(2, "w", note.cosign(text, key, private.sign, 5).line(), 5))
    assert verify_log(world.log, [key]).findings == ()
    assert verify_log(world.log, [key]).witnessed == 1
    world.sql("DELETE FROM cosignature")
    bad = note.cosign(text + "x", key, private.sign, 5).line()
    world.log.log.receive(Receipt(2, "w", bad, 5))
    assert verify_log(world.log, [key]).first == 1

"""Shows the checkpoints of the log to its witnesses, and witnesses the logs of others.

What a witness holds stands in the store; a worker that dies anywhere is followed by one that shows
the same again, which is no error to any witness. A witness that is away holds nothing up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from falaj.audit.service import Log
from falaj.base import note, tlog
from falaj.base.errors import FalajError
from falaj.base.note import COSIGNATURE
from falaj.base.tlog import Checkpoint
from falaj.base.trust import RootKey, note_keys
from falaj.facts.events import Event
from falaj.facts.project import AuditTable
from falaj.facts.releases import Release
from falaj.ports.ground import Ground
from falaj.ports.log import Asked, Receipt, Signed
from falaj.ports.witness import Away, Behind, Refused, Witness
from falaj.releases import witnessed

__all__ = [
    "Answer",
    "Sight",
    "Witnessing",
    "answer",
    "known_witnesses",
    "log_keys",
    "sights",
    "witness_key",
]

LEASE: Final = "witnesses"
LEASE_S: Final = 120.0
EVERY_S: Final = 5.0
FIRST_WAIT_S: Final = 10.0
LONGEST_WAIT_S: Final = 300.0
TRIES: Final = 3
REFUSED: Final = "log.witness-refused"
ACTOR: Final = "worker:witnesses"
ROLE: Final = "witness"
MOST_RELEASES: Final = 1_000_000
SIZE: Final = "text/x.tlog.size"
PLAIN: Final = "text/plain; charset=utf-8"


class Witnessing:
    """A worker's rounds over the witnesses."""

    def __init__(self, ground: Ground, owner: str) -> None:
        self._ground, self._owner = ground, owner
        self._log = Log.of(ground)
        self._wait_s = EVERY_S

    @property
    def wait_s(self) -> float:
        """Seconds until the next round; longer while a witness is away."""
        return self._wait_s

    def turn(self, stop: Callable[[], bool]) -> list[str]:
        """Show the newest checkpoint to whoever does not hold it yet. What happened, in words."""
        ground = self._ground
        signed = self._log.log.last()
        if signed is None or not ground.witnesses:
            return []
        lease = ground.store.take(LEASE, self._owner, LEASE_S)
        if lease is None:
            return []
        done: list[str] = []
        away = shown = False
        try:
            for witness in ground.witnesses:
                held = self._log.log.newest(witness.name)
                if stop():
                    break
                if held is not None and held.size >= signed.size:
                    continue
                sight = show(ground, self._log, witness, signed)
                away = away or sight.away
                if sight.trouble:
                    done.append(f"witness {witness.name}: {sight.trouble}")
                else:
                    shown = True
                    done.append(
                        f"witness {witness.name} holds the checkpoint of {sight.size} events"
                    )
            if shown:
                tell_releases(ground, self._log)
        finally:
            ground.store.release(lease)
        self._wait_s = min(max(self._wait_s * 2, FIRST_WAIT_S), LONGEST_WAIT_S) if away else EVERY_S
        return done


class Sight(NamedTuple):
    """How far a witness has seen the log. size: 0 for nothing yet. trouble: why not further."""

    name: str
    where: str
    size: int
    at: int
    line: str
    trouble: str = ""
    code: str = ""
    away: bool = False
    probed: tuple[str, ...] = ()


def show(ground: Ground, log: Log, witness: Witness, signed: Signed) -> Sight:
    """Show one checkpoint to one witness; keep what it answers. Its trouble is told, not raised."""
    try:
        receipt = _shown(log, witness, signed)
    except (Away, Refused) as error:
        _trouble(ground, witness, error)
        return _sight(log, witness, error)
    log.log.receive(receipt)
    if _last(ground, witness) == REFUSED:
        data = {"size": signed.size}
        _tell(ground, ground.event("log.witness-confirmed", ACTOR, _subject(witness), data))
    return _sight(log, witness, None)


def _shown(log: Log, witness: Witness, signed: Signed) -> Receipt:
    checkpoint = Checkpoint(log.origin, signed.size, signed.root)
    newest = log.log.newest(witness.name)
    old = newest.size if newest else 0
    for _ in range(TRIES):
        try:
            held = witness.add(log.growth_to(signed, old), checkpoint)
        except Behind as behind:
            if behind.size > signed.size:
                raise Refused(
                    "audit.witness-refuses",
                    f"witness {witness.name!r} holds a checkpoint of {behind.size} events, there are "
                    f"only {signed.size}",
                    why="events that it has seen are gone from the log",
                    fix="put the store back from a newer copy",
                ) from None
            old = behind.size
        else:
            return Receipt(signed.size, witness.name, held.line, held.at)
    raise Away(
        "audit.witness-away",
        f"witness {witness.name!r} names another size each time it is asked",
        fix="does another workspace show it checkpoints under the name of this log?",
    )


def _trouble(ground: Ground, witness: Witness, error: FalajError) -> None:
    """A refusal is evidence, and stands in the log once; being away is only said."""
    if isinstance(error, Refused) and _last(ground, witness) != REFUSED:
        data = {"code": error.code}
        _tell(ground, ground.event("log.witness-refused", ACTOR, _subject(witness), data))


def _last(ground: Ground, witness: Witness) -> str:
    found = Log.of(ground).log.search(Asked(subject=_subject(witness)), limit=1)
    return found[0][1].type if found else ""


def _subject(witness: Witness) -> str:
    return f"witness/{witness.name}"


def _tell(ground: Ground, event: Event) -> None:
    with ground.store.begin() as unit:
        unit.append(event)
    ground.store.integrate()


def _sight(log: Log, witness: Witness, error: FalajError | None) -> Sight:
    newest = log.log.newest(witness.name)
    try:
        where = witness.where
    except FalajError as trouble:
        where, error = "", error or trouble
    return Sight(
        witness.name,
        where,
        newest.size if newest else 0,
        newest.at if newest else 0,
        newest.line if newest else "",
        str(error) if error else "",
        error.code if error else "",
        isinstance(error, Away),
    )


def sights(ground: Ground, *, ask: bool) -> list[Sight]:
    """How far each witness has seen the log. ask: probe each, and show it the newest checkpoint."""
    log = Log.of(ground)
    signed = log.cover() if ask else log.log.last()
    found = []
    for witness in ground.witnesses:
        if not ask or signed is None:
            found.append(_sight(log, witness, None))
            continue
        try:
            probed = witness.probe()
        except (Away, Refused) as error:
            _trouble(ground, witness, error)
            found.append(_sight(log, witness, error))
            continue
        found.append(show(ground, log, witness, signed)._replace(probed=probed))
    if ask:
        tell_releases(ground, log)
    return found


def tell_releases(ground: Ground, log: Log) -> None:
    """Beside each release: that witnesses have seen its signatures, as soon as they have."""
    for known in ground.store.find(Release, limit=MOST_RELEASES):
        folder = ground.root / known.folder
        if witnessed.is_told(folder):
            continue
        asked = Asked(subject=f"release/{known.id}", type="release.")
        told = [event for _, event in log.log.search(asked) if "signatures" in event.data]
        proofs = [log.first_seen(event.id) for event in told]
        if proofs and None not in proofs:
            witnessed.keep(folder, [proof for proof in proofs if proof])


def known_witnesses(ground: Ground) -> tuple[note.Key, ...]:
    """Keys whose cosignatures count here: of the configuration, and of the trust root."""
    told = [w.key for w in ground.project.audit.witnesses if w.kind == "http"]
    trusted = note_keys(ground.keys.trust(), ROLE, ground.now(), COSIGNATURE)
    return (*map(note.read_key, told), *trusted)


def log_keys(table: AuditTable) -> tuple[note.Key, ...]:
    """Keys of the logs that are witnessed here. Raises FalajError for a line that is no key."""
    found = []
    for index, entry in enumerate(table.logs):
        try:
            key = note.read_key(entry.key)
            if key.kind != note.ED25519:
                raise note.BadNote("it is the key of a witness, not of a log")
        except note.BadNote as error:
            raise FalajError(
                "audit.bad-key",
                f"audit.logs.{index}.key: {error}",
                why="a log is known by the line that `falaj audit witness list` prints there",
                fix="ask its operator for that line again",
            ) from None
        found.append(key)
    return tuple(found)


# --- witnessing others ---


class Answer(NamedTuple):
    status: int
    media: str
    body: bytes


def witness_key(ground: Ground) -> tuple[note.Key, Callable[[bytes], bytes]]:
    """The key that cosigns here, made on first use; its name stays."""
    prefix = f"{ROLE}/{ground.name}/"
    trusted: Sequence[RootKey] = tuple(ground.keys.trust().keys)
    known = [k.identity for k in trusted if ROLE in k.roles and k.identity.startswith(prefix)]
    first = next(key for key in trusted if "root" in key.roles)
    name = known[-1] if known else prefix + hashlib.sha256(first.public.encode()).hexdigest()[:12]
    ground.keys.create(name, (ROLE,))
    signer = ground.keys.signer(name)
    key = note.key_of_pem(name, COSIGNATURE, signer.public)
    assert key is not None  # noqa: S101 the ring made it of this kind
    return key, signer.sign


def answer(ground: Ground, body: bytes) -> Answer:
    """What https://c2sp.org/tlog-witness wants of `add-checkpoint`, in its order.

    1. The log is known: 404. 2. One of its keys has signed: 403. 3. The old size is not above the
    new one: 400. 4. It is the size that was cosigned last: 409, with that size. 5. At the same size
    the root is the same: 409. 6. The proof holds: 422. 7. The new one is kept before it is cosigned.
    """
    log = Log.of(ground)
    try:
        growth = tlog.read_growth(body)
        new = tlog.read_checkpoint(note.read_note(growth.note).text)
    except note.BadNote as error:
        return _said(400, str(error))
    keys = [key for key in log_keys(ground.project.audit) if key.name == new.origin]
    if not keys:
        return _said(404, "this log is not known here")
    try:
        text = note.open_note(growth.note, keys).text
    except note.BadNote as error:
        return _said(403, str(error))
    if growth.old > new.size:
        return _said(400, "the old size is above the new one")
    seen = log.log.seen(new.origin)
    held = None if seen is None else Checkpoint(new.origin, seen.size, seen.root)
    try:
        tlog.judge(held, growth, new)
    except tlog.Elsewhere as error:
        return Answer(409, SIZE, b"%d\n" % error.size)
    except tlog.Forked as error:
        _evidence(ground, new, str(error))
        same = held is not None and held.size == new.size
        return _said(409 if same else 422, str(error))
    if not log.log.see(new.origin, growth.old, Signed(new.size, new.root, growth.note)):
        now = log.log.seen(new.origin)
        return Answer(409, SIZE, b"%d\n" % (now.size if now else 0))
    key, signer = witness_key(ground)
    line = note.cosign(text, key, signer, int(ground.now().timestamp())).line()
    return Answer(200, PLAIN, line.encode())


def _said(status: int, words: str) -> Answer:
    return Answer(status, PLAIN, words.encode() + b"\n")


def _evidence(ground: Ground, new: Checkpoint, why: str) -> None:
    """A fork that was signed is kept as an event, once a root."""
    subject = f"log/{new.origin}"
    last = Log.of(ground).log.search(Asked(subject=subject), limit=1)
    data = {"size": new.size, "root": new.root.hex(), "why": why}
    if last and last[0][1].data == data:
        return
    _tell(ground, ground.event("log.fork-seen", ACTOR, subject, data))

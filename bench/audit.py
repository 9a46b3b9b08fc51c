"""The audit log: durable events a second, the size of a proof, computing the whole log anew."""

from __future__ import annotations

import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from bench.harness import OURS, Row, compared, say, value, version, write
from falaj.audit.export import files_of
from falaj.audit.offline import Signers, check_export, check_proof
from falaj.audit.service import BATCH, Log
from falaj.audit.whole import verify_log
from falaj.base import ids, tlog
from falaj.facts.events import Event
from falaj.links.keyring.keys import KeyRing
from falaj.links.sql.store import SqlStore

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
DIGEST = "sha256:" + "5" * 64

NOTES = """
Events as an approval writes them, about 500 bytes of canonical JSON, in SQLite with `synchronous=FULL`: what
was committed survives a loss of power. *Appended* is the event in the transaction of its action;
*placed and signed* adds its place in the tree, every hash above it and a signed checkpoint for each
{batch} events. Wall time of one process, medians of {runs} rounds where rounds are told. `{size:,}` events are
then computed anew (`falaj audit verify`), exported, and the export is judged as an auditor does.
The proof is that of an event in the middle; its file holds the checkpoint as well.
"""


def event() -> Event:
    return Event(
        id=ids.new(),
        at=AT,
        project="flights",
        type="change.approved",
        actor="01KB2S8W3VQ7M5T9R4E6N0XGZA",
        subject="change/CHG-0001",
        data={"approval": ids.new(), "release": DIGEST, "evidence": DIGEST, "decision": "approve"},
    )


def timed(what: object) -> float:
    begun = time.perf_counter()
    what()  # type: ignore[operator]
    return time.perf_counter() - begun


def append(store: SqlStore, events: list[Event], batch: int) -> None:
    for at in range(0, len(events), batch):
        with store.begin() as unit:
            for one in events[at : at + batch]:
                unit.append(one)


def main(*, quick: bool) -> int:
    load = os.getloadavg()[0]
    size, rounds, alone = (20_000, 3, 100) if quick else (200_000, 9, 400)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        store = SqlStore.open(folder / "store.db")
        log = Log(
            store,
            store.log(),
            KeyRing(folder / "keys"),
            project="flights",
            now=lambda: datetime.now(UTC),
            memory=folder / "log.checkpoint",
        )
        single, batched, signed = [], [], []
        for number in range(rounds):
            events = [event() for _ in range(alone)]
            single.append(timed(lambda e=events: append(store, e, 1)) / alone)
            log.cover()
            events = [event() for _ in range(2_000)]
            batched.append(timed(lambda e=events: append(store, e, BATCH)) / len(events))
            signed.append(timed(log.cover) / len(events))
            say(f"round {number + 1} of {rounds}")
        left = size - store.log().size()
        append(store, [event() for _ in range(left)], 1_000)
        log.cover()
        say(f"{size:,} events are there")
        found = []
        seconds = timed(lambda: found.append(verify_log(log)))
        assert found[0].findings == (), found[0].findings
        ((_, middle),) = store.events(after=size // 2, limit=1)
        proof = tlog.write_proof(log.prove(middle.id)._replace(extra=None))
        hashes = 32 * len(log.prove(middle.id).hashes)
        proving = timed(lambda: log.prove(middle.id))
        whole = tlog.write_proof(log.prove(middle.id))
        signers = Signers(log.trusted())
        judging = min(timed(lambda: check_proof(whole, signers)) for _ in range(20))
        files = files_of(log)
        for name, data in files.items():
            path = folder / "export" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        told = []
        export = timed(lambda: told.append(check_export(folder / "export", signers)))
        assert told[0].holds, told[0].findings
        store.close()
    one, many, sealed = (sorted(times)[len(times) // 2] for times in (single, batched, signed))
    per_event = 1e6 * (many + sealed)
    rows = [
        compared(
            f"appended in batches of {BATCH}", 1e6 * many, 1e6 * one, "one by one",
            unit="us an event",
        ),
        value(f"appended in batches of {BATCH}", "us an event", 1e6 * many, 100.0),
        Row(metric="appended, placed and signed", unit="us an event", ours=per_event),
        value("hashes of a proof", "bytes", float(hashes), 1024.0),
        Row(metric="a proof as a file, with its checkpoint", unit="bytes", ours=float(len(proof))),
        Row(metric="making a proof", unit="ms", ours=1e3 * proving),
        Row(metric="judging a proof", unit="ms", ours=1e3 * judging),
        value(f"{size:,} events computed anew", "s", seconds, 15.0),
        Row(metric=f"an export of {size:,} events judged", unit="s", ours=export),
    ]  # fmt: skip
    notes = NOTES.format(batch=BATCH, runs=rounds, size=size)
    versions = {"falaj": version(OURS / "python", "falaj")}
    return write("audit", rows, versions=versions, load=load, notes=notes)

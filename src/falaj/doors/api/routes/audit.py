"""The log, its proofs and its witnesses; the evidence pack; witnessing the logs of others."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final

import msgspec
from litestar import Response
from litestar.params import Parameter

from falaj.app import Works
from falaj.base import time
from falaj.base.errors import FalajError
from falaj.doors.api.route import Limit, get, post
from falaj.facts.access import Action, Permit, ResourceKind
from falaj.ports.log import Asked

__all__ = ["ROUTES"]

PLAIN: Final = "text/plain; charset=utf-8"
LARGEST_PACK: Final = 512 << 20


class OpenEvidence(msgspec.Struct, forbid_unknown_fields=True):
    pack: bytes  # base64


class LogView(msgspec.Struct):
    size: int
    root: str
    events: list[dict[str, Any]]


class Found(msgspec.Struct):
    """The newest first. next: what to ask for with `before`, 0 when there is no more."""

    events: list[dict[str, Any]]
    next: int


class WitnessView(msgspec.Struct):
    name: str
    where: str
    size: int
    at: str
    behind: int
    trouble: str = ""
    code: str = ""
    probed: list[str] = []


class LogHead(msgspec.Struct):
    """keys: lines for whoever is to witness this log; own: the line of the witness that is here."""

    origin: str
    size: int
    signed: int
    root: str
    keys: list[str]
    own: str
    witnesses: list[WitnessView]


class Differs(msgspec.Struct):
    code: str
    place: str
    message: str


class WholeView(msgspec.Struct):
    size: int
    root: str
    checkpoints: int
    witnessed: int
    waiting: int
    first: int | None
    findings: list[Differs]


@get("/events", needs=Action.READ, on=ResourceKind.PROJECT)
def list_events(works: Works, after: int = -1, limit: Limit = 100) -> LogView:
    """Events in the log's order behind a place, with the size and root of the whole log."""
    store = works.ground.store
    store.integrate()
    size, root = store.root()
    found = store.events(after=after, limit=min(limit, 1000))
    return LogView(size, root.hex(), [{"place": i, **event.cloud()} for i, event in found])


@get("/log/events", needs=Action.READ, on=ResourceKind.PROJECT)
def search_log(
    works: Works,
    actor: str = "",
    subject: str = "",
    kind: Annotated[str, Parameter(query="type")] = "",
    since: str = "",
    until: str = "",
    before: int | None = None,
    limit: Limit = 100,
) -> Found:
    """Events by who, on what, of which type and when; the newest first."""
    log = works.log
    works.ground.store.integrate()
    most = min(limit, 1000)
    asked = Asked(actor, subject, kind, instant("since", since), instant("until", until))
    found = log.log.search(asked, before=before, limit=most)
    return Found(
        [{"place": i, **event.cloud()} for i, event in found],
        found[-1][0] if len(found) == most else 0,
    )


def instant(name: str, words: str) -> datetime | None:
    try:
        return time.parse_instant(words) if words else None
    except ValueError:
        raise FalajError(
            "audit.bad-time",
            f"{name}: got {words[:40]!r}, expected a time such as 2026-03-01T12:00:00Z",
            fix="write it as RFC 3339; without a zone it is UTC",
        ) from None


@get("/log", needs=Action.READ, on=ResourceKind.PROJECT)
def log_head(works: Works) -> LogHead:
    """Name, size, keys and witnesses of the log."""
    return head(works, ask=False)


@post("/log/witnesses", needs=Action.RECONCILE, on=ResourceKind.PROJECT)
def check_witnesses(works: Works) -> LogHead:
    """Try what each witness promises, and show it the newest checkpoint now."""
    return head(works, ask=True)


def head(works: Works, *, ask: bool) -> LogHead:
    from falaj.base import note
    from falaj.journeys import witness

    log = works.log
    signed = log.cover()
    found = witness.sights(works.ground, ask=ask)
    last = log.cover() or signed
    size = last.size if last else 0
    own, _ = witness.witness_key(works.ground)
    return LogHead(
        origin=log.origin,
        size=log.log.size(),
        signed=size,
        root=last.root.hex() if last else "",
        keys=[note.write_key(key) for key in log.trusted() if key.name == log.origin],
        own=note.write_key(own),
        witnesses=[
            WitnessView(
                name=one.name,
                where=one.where,
                size=one.size,
                at=time.text(datetime.fromtimestamp(one.at, UTC)) if one.at else "",
                behind=size - one.size,
                trouble=one.trouble,
                code=one.code,
                probed=list(one.probed),
            )
            for one in found
        ],
    )


@get("/log/checkpoint", needs=Action.READ, on=ResourceKind.PROJECT)
def newest_checkpoint(works: Works) -> Response[bytes]:
    """The newest checkpoint, signed, with the cosignatures of its witnesses."""
    signed = works.log.cover()
    return Response(b"" if signed is None else works.log.cosigned(signed), media_type=PLAIN)


@get("/log/proofs/{event:str}", needs=Action.READ, on=ResourceKind.PROJECT)
def prove_event(works: Works, event: str) -> Response[bytes]:
    """That one event stands in the log, as a `.tlog-proof`."""
    from falaj.base import tlog

    return Response(tlog.write_proof(works.log.prove(event)), media_type=PLAIN)


@get("/log/growth/{size:str}", needs=Action.READ, on=ResourceKind.PROJECT)
def prove_growth(works: Works, size: str) -> Response[bytes]:
    """That the log continues what it was with so many events."""
    from falaj.base import note, tlog

    try:
        old = note.number(size)
    except note.BadNote as error:
        raise FalajError(
            "audit.no-such-size",
            f"the size of a log: {error}",
            fix="take it from the second line of the checkpoint that you hold",
        ) from None
    return Response(tlog.write_growth(works.log.growth(old)), media_type=PLAIN)


@get("/log/export", needs=Action.EXPORT_EVIDENCE, on=ResourceKind.PROJECT)
def export_log(works: Works) -> Response[bytes]:
    """One zip with every event, the tiles of the tree and the checkpoint."""
    from falaj.audit import container, export

    with TemporaryDirectory(dir=works.ground.state) as scratch:
        path = Path(scratch) / "log.zip"
        container.write_container(path, export.files_of(works.log))
        data = path.read_bytes()
    return Response(data, media_type="application/zip")


@get("/log/verification", needs=Action.READ, on=ResourceKind.PROJECT)
def verify_whole(works: Works) -> WholeView:
    """Compute the whole log anew; what differs, and where first."""
    from falaj.audit import whole
    from falaj.journeys import witness

    found = whole.verify_log(works.log, witness.known_witnesses(works.ground))
    return WholeView(
        size=found.size,
        root=found.root.hex(),
        checkpoints=found.checkpoints,
        witnessed=found.witnessed,
        waiting=found.waiting,
        first=found.first,
        findings=[Differs(f.code, f.file, f.message) for f in found.findings],
    )


@post("/witness/add-checkpoint", needs=Action.WITNESS_LOG, on=ResourceKind.PROJECT)
def add_checkpoint(works: Works, body: bytes) -> Response[bytes]:
    """Witness the checkpoint of another log (c2sp.org/tlog-witness)."""
    from falaj.journeys import witness

    said = witness.answer(works.ground, body)
    # As a header: the framework would add a character set to the media type, which clients compare.
    headers = {"content-type": said.media}
    return Response(said.body, status_code=said.status, headers=headers)


@get(
    "/models/{model:str}/evidence", needs=Action.EXPORT_EVIDENCE, on=ResourceKind.MODEL, by="model"
)
def evidence(works: Works, permit: Permit, model: str, sealed: bool = False) -> Response[bytes]:
    """One zip with releases, approvals, decisions, events: verifiable without us."""
    from falaj.journeys import verify

    if sealed:
        return Response(
            verify.export_sealed(works.ground, permit, model),
            media_type="application/octet-stream",
            headers={"Content-Disposition": f'attachment; filename="{model}-evidence.zip.fenc"'},
        )
    return Response(
        verify.export(works.ground, permit, model),
        media_type="application/zip",
        headers={"Content-Disposition": f'attachment; filename="{model}-evidence.zip"'},
    )


@post(
    "/evidence-openings",
    needs=Action.EXPORT_EVIDENCE,
    on=ResourceKind.PROJECT,
    most_bytes=LARGEST_PACK,
)
def open_evidence(works: Works, permit: Permit, data: OpenEvidence) -> Response[bytes]:
    """The zip file inside a sealed evidence pack of this workspace."""
    from falaj.journeys import verify

    found = verify.open_sealed(works.ground, permit, data.pack)
    return Response(found, media_type="application/zip")


ROUTES: Final = (
    list_events,
    log_head,
    search_log,
    newest_checkpoint,
    prove_event,
    prove_growth,
    export_log,
    verify_whole,
    check_witnesses,
    add_checkpoint,
    evidence,
    open_evidence,
)

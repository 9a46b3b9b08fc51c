"""Remove what no release, model version, evidence or young run needs. Never what one of them does."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Final

from falaj.base import process
from falaj.base.errors import Conflict, FalajError
from falaj.facts.access import Permit
from falaj.facts.runs import Run, RunStatus
from falaj.facts.wire import Fact, decode
from falaj.ports.blobs import BlobMissing, SweptBlobs
from falaj.ports.cache import SweptCache
from falaj.ports.ground import Ground

__all__ = ["Swept", "sweep"]

DIGEST: Final = re.compile(rb"[0-9a-f]{64}")
ULID: Final = re.compile(rb"[0-9A-HJKMNP-TV-Z]{26}")
INNER: Final = 1 << 20  # bytes; a smaller blob is read for digests of others
GRACE_S: Final = 3600.0  # what is younger may belong to work that is not written down yet


class Swept(Fact, frozen=True, kw_only=True):
    """What was removed, or would be. bytes: of the blobs."""

    blobs: int
    bytes: int
    entries: int
    kept_blobs: int
    kept_runs: int
    dry_run: bool


def sweep(ground: Ground, permit: Permit, *, days: float, dry_run: bool) -> Swept:
    """Look at everything that is written down, keep what it names, remove the rest.

    1. Every fact but a run keeps all that it names, and the runs that it names.
    2. A run keeps what it names when it is younger than `days`, or when it is kept by (1).
    3. A cache entry stays when a kept run has its key, or when its own run is kept.
    4. A kept blob keeps the blobs that it names.
    5. What was written within the last hour stays: its run may not be written down yet.

    Raises Conflict while a run goes on.
    """
    blobs, cache = ground.blobs, ground.cache
    if not isinstance(blobs, SweptBlobs) or not isinstance(cache, SweptCache):
        raise FalajError("gc.cannot", "this workspace's store of blobs cannot be swept")
    runs: dict[str, tuple[Run, bytes]] = {}
    needed: set[str] = set()
    named: set[str] = set()
    for noun, name, body in ground.store.bodies():
        if noun == "run":
            runs[name] = (decode(Run, body), body)
        else:
            needed |= digests_in(body)
            named |= {found.decode() for found in ULID.findall(body)}
    refuse_while_running(runs)
    horizon = ground.now() - timedelta(days=days)
    kept = {one for one, (run, _) in runs.items() if one in named or run.started >= horizon}
    keys: set[str] = set()
    for one in kept:
        run, body = runs[one]
        needed |= digests_in(body)
        keys |= {step.key for step in run.steps}
    stale = []
    for key, entry in cache.entries():
        if key in keys or entry.get("run") in kept:
            needed |= named_by(entry)
        else:
            stale.append(key)
    known = {digest: (size, at) for digest, size, at in blobs.kept()}
    follow(ground, needed, known)
    young = ground.now().timestamp() - GRACE_S
    gone = [d for d, (_, at) in known.items() if d not in needed and at < young]
    if not dry_run:
        for key in stale:  # first: an entry must not outlive its bytes
            ground.cache.forget(key)
        for digest in gone:
            blobs.remove(digest)
        with ground.store.begin() as unit:
            told = {"blobs": len(gone), "entries": len(stale)}
            unit.append(
                ground.event("workspace.swept", permit.person, f"project/{ground.name}", told)
            )
    return Swept(
        blobs=len(gone),
        bytes=sum(known[digest][0] for digest in gone),
        entries=len(stale),
        kept_blobs=len(known) - len(gone),
        kept_runs=len(kept),
        dry_run=dry_run,
    )


def refuse_while_running(runs: dict[str, tuple[Run, bytes]]) -> None:
    for run, _ in runs.values():
        if run.status is RunStatus.RUNNING and not process.is_gone(run.process):
            raise Conflict(
                "gc.run-active",
                f"run {run.id} goes on",
                why="it may be about to use what nothing else needs",
                fix="wait until it has ended, then repeat the command",
            )


def digests_in(body: bytes) -> set[str]:
    """Anything that looks like a digest: keeping too much is the safe mistake."""
    return {f"sha256:{found.decode()}" for found in DIGEST.findall(body)}


def named_by(entry: dict[str, Any]) -> set[str]:
    kept = (entry.get("plots", {}), entry.get("files", {}))
    found = {entry.get("log") or "", *(digest for named in kept for digest in named.values())}
    if isinstance(entry.get("points"), str):
        found.add(entry["points"])
    for output in entry["outputs"]:
        found |= {output["digest"], *output["files"].values()}
    return found


def follow(ground: Ground, needed: set[str], known: dict[str, tuple[int, float]]) -> None:
    """Add what needed blobs name themselves, until nothing is added."""
    todo = [digest for digest in needed if digest in known]
    while todo:
        digest = todo.pop()
        if known[digest][0] > INNER:
            continue
        try:
            more = digests_in(ground.blobs.get(digest)) - needed
        except BlobMissing:
            continue  # altered bytes are refused, and are nobody's to follow
        needed |= more
        todo += [found for found in more if found in known]

"""A release over a whole table: verified before it is loaded, part by part, the same end however often it was killed."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import numpy as np

from falaj.base import digests
from falaj.base import time as clock
from falaj.base.errors import FalajError, GateFailed, NotAllowed, Unverified
from falaj.compliance.rules import may_be_in
from falaj.facts.access import Permit
from falaj.facts.models import Schema
from falaj.facts.releases import Manifest, Release, Trust
from falaj.facts.scoring import PartManifest, ScoreJob, ScoreSpec
from falaj.facts.trust import BadTrust, open_trust
from falaj.ports.ground import Ground
from falaj.ports.rows import Piece, RowFormats, RowSource
from falaj.releases.verify import load_verified
from falaj.serving.loading import Loaded, load
from falaj.serving.parts import Output
from falaj.serving.score import Scorer, fits, wanted

__all__ = ["Asked", "Order", "Tasks", "begun", "ended", "loaded", "piece", "score"]

FORMATS: Final = ("parquet", "csv", "arrow", "jsonl")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """folder: of the release; trust: text of the trust root. rows: of a part, about.

    max_rejected: more bad rows than this end the job.
    """

    folder: Path
    trust: str
    input: str
    output: Path
    keep: tuple[str, ...] = ()
    format: str = "parquet"
    rows: int = 1_000_000
    max_rejected: int = 0


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One part, as plain data: whoever sees the same folders can make it."""

    folder: str
    trust: str
    release: str
    input: str
    output: str
    spec: ScoreSpec
    part: int
    name: str
    rows: int
    where: tuple[Any, ...]


class Tasks(Protocol):
    """Where parts are made. tests/contracts/test_score_tasks.py."""

    def run(self, orders: Iterable[Order]) -> Iterator[PartManifest]:
        """Manifests in the order in which the parts are done. Raises FalajError."""


Tell = Callable[[int, int, int, int], None]
"""(parts done, parts, rows done, rows or -1)"""


def score(
    asked: Asked, formats: RowFormats, *, tasks: Tasks | None = None, tell: Tell | None = None
) -> ScoreJob:
    """Make the parts that are not there yet, then job.json. tasks: in this process, when not said.

    Raises FalajError: nothing fits, verifies or can be read; GateFailed for too many bad rows: the
    parts that were made stay, with the bad rows and why.
    """
    if asked.format not in FORMATS:
        raise FalajError(
            "score.format",
            f"format: got {asked.format!r}, expected {', '.join(FORMATS)}",
            fix="--format parquet",
        )
    release = (
        digests.of_file(asked.folder / "release.json")
        if (asked.folder / "release.json").is_file()
        else ""
    )
    known = loaded(asked.folder, asked.trust, release)
    schema = known.manifest.schema
    source = formats.source(asked.input)
    fits(schema, source.columns, asked.keep, asked.input)
    spec = ScoreSpec(
        release=known.release,
        input=source.digest(),
        keep=asked.keep,
        format=asked.format,
        rows=asked.rows,
    )
    output = Output(asked.output, spec)
    with output.held():
        pieces = source.pieces(asked.rows)
        done: dict[int, PartManifest] = {}
        for number in range(len(pieces)):
            kept = output.kept(number)
            if kept is not None:
                done[number] = kept
        total = sum(p.rows for p in pieces) if all(p.rows >= 0 for p in pieces) else -1
        orders = [
            Order(
                folder=str(asked.folder.resolve()),
                trust=asked.trust,
                release=known.release,
                input=asked.input if ":" in asked.input else str(Path(asked.input).resolve()),
                output=str(asked.output.resolve()),
                spec=spec,
                part=number,
                name=one.name,
                rows=one.rows,
                where=one.where,
            )
            for number, one in enumerate(pieces)
            if number not in done
        ]
        hold(done, asked, output)
        made = (
            tasks.run(orders)
            if tasks is not None
            else (here(order, source, known, formats, output) for order in orders)
        )
        for part in made:
            done[part.part] = part
            if tell is not None:
                tell(len(done), len(pieces), sum(p.rows + p.rejected for p in done.values()), total)
            hold(done, asked, output)
        return output.finish(
            dict(sorted(done.items())),
            model=known.manifest.model,
            version=known.manifest.version,
            schema=digest_of(schema),
        )


def hold(done: Mapping[int, PartManifest], asked: Asked, output: Output) -> None:
    """Raises GateFailed when more rows are bad than may be."""
    bad = sum(part.rejected for part in done.values())
    if bad <= asked.max_rejected:
        return
    side = next(
        name
        for part in done.values()
        if part.rejected
        for name in part.files
        if ".rejected." in name
    )
    raise GateFailed(
        "score.rejected",
        f"{bad:,} rows are rejected, and {asked.max_rejected:,} may be",
        why=f"each with its reason: {output.folder / side}",
        fix="mend the rows, or take the loss: --max-rejected N; what is done is kept",
    )


def here(
    order: Order, source: RowSource, known: Loaded, formats: RowFormats, output: Output
) -> PartManifest:
    """One part in this process."""
    schema = known.manifest.schema
    scorer = Scorer(schema, known.runtime)
    keep, asked = order.spec.keep, wanted(schema)
    about = {
        "falaj.release": known.release,
        "falaj.model": known.manifest.model,
        "falaj.version": known.manifest.version,
        "falaj.schema": digest_of(schema),
    }

    def fill(rows: Path, aside: Path) -> tuple[int, int]:
        sink = formats.sink(rows, order.spec.format, about)
        side = None
        counted = bad = first = 0
        for block in source.blocks(Piece(order.name, order.rows, order.where), asked, keep):
            found = scorer.score(block)
            sink.write(block.kept, found.outputs, found.good)
            if found.reasons:
                side = side or formats.sink(aside, order.spec.format, about)
                lost = ~found.good if found.good is not None else np.zeros(block.n, np.bool_)
                side.aside(
                    block.kept,
                    lost,
                    {
                        "row": np.array([first + at for at in found.reasons], np.int64),
                        "reason": np.array(list(found.reasons.values()), np.object_),
                    },
                )
            bad += len(found.reasons)
            counted += block.n - len(found.reasons)
            first += block.n
        sink.close()
        if side is not None:
            side.close()
        return counted, bad

    return output.make(order.part, order.name, about["falaj.schema"], fill)


def piece(order: Order, formats: RowFormats) -> PartManifest:
    """One part anywhere: the release is verified and loaded there, once a process."""
    known = cached(order.folder, order.trust, order.release)
    output = Output(Path(order.output), order.spec)
    return here(order, formats.source(order.input), known, formats, output)


@functools.lru_cache(maxsize=2)
def cached(folder: str, trust: str, release: str) -> Loaded:
    return loaded(Path(folder), trust, release)


def loaded(folder: Path, trust: str, release: str) -> Loaded:
    """The release, verified, loaded and asked its probe rows. Raises Unverified."""
    root = trusted(trust)
    if not release:
        raise FalajError(
            "serving.no-release",
            f"{folder} holds no release.json",
            why="a release folder has one",
            fix="give the folder that `falaj release` made",
        )
    with tempfile.TemporaryDirectory(prefix="falaj-score-") as scratch:
        into = Path(scratch, "release")
        manifest: Manifest = load_verified(folder, root, into, release_id=release, now=clock.now())
        return load(into, manifest, release, 0)


def trusted(text: str) -> Trust:
    try:
        return open_trust(text.encode(), now=clock.now(), at_least=0, allow_expired=True)
    except BadTrust as error:
        raise Unverified(
            "serving.trust",
            f"the trust root: {error}",
            why="nothing can be verified without it",
            fix="give the trust.json of the workspace that signed the release",
        ) from None


def digest_of(schema: Schema) -> str:
    return digests.of_bytes(msgspec.json.encode(schema, order="sorted"))


# --- what the log hears ---


def begun(
    ground: Ground, permit: Permit, release: Release, manifest: Manifest, *, input: str, output: str
) -> Release:
    """Before anything is read: may this be done here? Raises NotAllowed."""
    why = may_be_in(manifest.label, ground.project.project.region)
    if why:
        raise NotAllowed(
            "score.residency",
            f"{release.version} may not answer here: {why}",
            why=f"the project's region is {ground.project.project.region}",
            fix="score it where its label allows it to be",
        )
    for address in (input, output):
        if address.startswith("s3://"):
            guarded(ground, manifest, address)
    with ground.store.begin() as unit:
        unit.append(
            ground.event(
                "release.scoring",
                permit.person,
                f"release/{release.id}",
                {"input": name_of(input), "output": name_of(output)},
            )
        )
    return release


def guarded(ground: Ground, manifest: Manifest, address: str) -> None:
    """A bucket has to be one that the project lists, in a country that the label allows."""
    table = next(
        (
            one
            for one in ground.project.links.remotes
            if address == one.address or address.startswith(one.address.rstrip("/") + "/")
        ),
        None,
    )
    if table is None:
        raise FalajError(
            "score.not-listed",
            f"{address} is no place that falaj.toml lists",
            why="where rows may go is decided in [[links.remotes]], with the region of the place",
            fix="list it there, with address, region and endpoint",
        )
    why = may_be_in(manifest.label, table.region, plain_http=table.plain_http)
    if why:
        raise NotAllowed(
            "score.residency",
            f"answers may not be brought to {table.address}: {why}",
            why=f"its region is {table.region}",
            fix="choose a place in a country that its data may be in",
        )


def ended(ground: Ground, permit: Permit, release: Release, job: ScoreJob) -> Release:
    """What was written, by its digest."""
    with ground.store.begin() as unit:
        unit.append(
            ground.event(
                "release.scored",
                permit.person,
                f"release/{release.id}",
                {
                    "job": job.job,
                    "input": job.spec.input,
                    "tree": job.tree,
                    "rows": job.rows,
                    "rejected": job.rejected,
                    "parts": job.parts,
                },
            )
        )
    return release


def name_of(address: str) -> str:
    """The last word of an address: folders of people are nobody's business."""
    return address.rstrip("/").rpartition("/")[2][:200]

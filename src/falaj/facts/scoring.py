"""What batch scoring leaves behind: a manifest for each part, one for the whole."""

from __future__ import annotations

from falaj.facts.wire import Fact

__all__ = ["PartManifest", "ScoreJob", "ScoreSpec"]


class ScoreSpec(Fact, frozen=True, kw_only=True):
    """All that decides what a job writes, bit by bit: the digest of this is the job's key.

    input: digest of what is read. keep: columns that go through. rows: of a part, about.
    """

    release: str
    input: str
    keep: tuple[str, ...]
    format: str
    rows: int
    v: int = 1


class PartManifest(Fact, frozen=True, kw_only=True):
    """A part that is whole. files: name -> sha256. piece: what of the input it was made from."""

    job: str
    part: int
    piece: str
    rows: int
    rejected: int
    files: dict[str, str]
    release: str
    schema: str
    v: int = 1


class ScoreJob(Fact, frozen=True, kw_only=True):
    """job.json: everything is there. tree: digest over the files and manifests of all parts."""

    job: str
    spec: ScoreSpec
    parts: int
    rows: int
    rejected: int
    tree: str
    model: str
    version: str
    schema: str
    v: int = 1

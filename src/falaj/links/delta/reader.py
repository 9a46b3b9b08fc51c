"""Delta Lake tables of this machine: `delta:<path>[@<version>]`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from falaj.base.errors import FalajError
from falaj.base.snapshots import Snapshot, keep, kept

__all__ = ["DeltaTables"]

FORM: Final = re.compile(r"delta:(?P<path>[^@]+)(@(?P<version>\d{1,18}))?")


class DeltaTables:
    """The port TableReader over the package deltalake."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def takes(self, source: str) -> bool:
        return source.startswith("delta:")

    def snapshot(self, source: str, *, name: str, root: Path, fresh: bool) -> Snapshot:
        found = FORM.fullmatch(source)
        if not found or "://" in source:
            raise FalajError(
                "data.bad-source",
                f"dataset {name}: got {source!r}, expected delta:<path>[@<version>]",
                why="tables on this machine are read; a version is a number",
                fix="write it as delta:lake/flights@3",
            )
        old = kept(self._folder, source)
        if old is not None and (found["version"] or not fresh):
            return old
        version = int(found["version"]) if found["version"] else None
        table = _opened(name, root / found["path"], version)

        def write(part: Path) -> dict[str, str]:
            import polars as pl

            try:
                frame = pl.scan_delta(table)
                frame.sink_parquet(part, compression="zstd", compression_level=1)
            except (pl.exceptions.PolarsError, OSError, ValueError) as error:
                raise _unreadable(name, source, error) from None
            said = {"engine": "delta", "version": str(table.version())}
            return said | {"table": str(table.metadata().id)}

        return keep(self._folder, source, write)


def _opened(name: str, path: Path, version: int | None) -> Any:
    try:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError
    except ImportError:
        raise FalajError(
            "data.extra-missing",
            f"dataset {name}: Delta Lake tables need the extra falaj[delta]",
            fix="pip install 'falaj[delta]'",
        ) from None
    try:
        return DeltaTable(path, version=version)
    except (DeltaError, OSError, ValueError) as error:
        told = f"delta:{path.name}" + ("" if version is None else f"@{version}")
        raise _unreadable(name, told, error) from None


def _unreadable(name: str, source: str, error: Exception) -> FalajError:
    return FalajError(
        "data.table-unreadable",
        f"dataset {name}: {source} cannot be read ({type(error).__name__})",
        why="there is no such table or version there, or a file of it is damaged",
        fix="look at the table's folder `_delta_log`: it lists the versions",
    )

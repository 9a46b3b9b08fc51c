"""Addresses of tables -> how they are read and written."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from falaj.base.errors import FalajError
from falaj.links.arrow.columns import extra_missing, unreadable
from falaj.links.arrow.sink import Sink
from falaj.links.arrow.source import ArrowRows, ParquetRows
from falaj.links.arrow.text import CsvRows, JsonRows
from falaj.ports.rows import RowSink, RowSource

__all__ = ["ArrowFormats"]

KINDS: Final[Mapping[str, Any]] = {
    "parquet": ParquetRows,
    "csv": CsvRows,
    "arrow": ArrowRows,
    "jsonl": JsonRows,
}
ENDINGS: Final = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}


class ArrowFormats:
    """The port RowFormats over PyArrow."""

    def __init__(self) -> None:
        try:
            import pyarrow as _there  # noqa: F401, ICN001
        except ImportError:
            raise extra_missing() from None

    def source(self, address: str) -> RowSource:
        """A file, a folder, a pattern of files; `delta:PATH[@VERSION]`, or a folder with `_delta_log`."""
        if address.startswith("delta:") or Path(address, "_delta_log").is_dir():
            return ParquetRows(delta_files(address.removeprefix("delta:")))
        files = files_of(address)
        kinds = {ENDINGS.get(path.suffix.lower(), "") for path in files}
        if len(kinds) != 1 or "" in kinds:
            raise FalajError(
                "score.format",
                f"{address}: got files ending in {', '.join(sorted({p.suffix or 'nothing' for p in files}))}",
                why=f"known endings are {', '.join(ENDINGS)}",
                fix="name files of one format",
            )
        made: RowSource = KINDS[kinds.pop()](files)
        return made

    def sink(self, path: Path, format: str, about: Mapping[str, str]) -> RowSink:
        return Sink(path, format, about)


def files_of(address: str) -> list[Path]:
    """In the order of their names. Raises FalajError when there is none."""
    path = Path(address)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in ENDINGS and p.is_file())
    elif path.is_file():
        found = [path]
    else:
        found = sorted(Path(name) for name in glob.glob(address) if Path(name).is_file())  # noqa: PTH207 patterns of any depth
    if not found:
        raise FalajError(
            "score.no-input",
            f"{address} names no table",
            why=f"a file, a folder or a pattern is due; known endings are {', '.join(ENDINGS)}",
            fix="look at the path",
        )
    return found


def delta_files(address: str) -> list[Path]:
    """The files of one version of a Delta table, as its log lists them."""
    try:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError
    except ImportError:
        raise FalajError(
            "data.extra-missing",
            "Delta Lake tables need the extra falaj[delta]",
            fix="pip install 'falaj[delta]'",
        ) from None
    path, _, version = (
        address.rpartition("@") if address.rpartition("@")[2].isdigit() else (address, "", "")
    )
    try:
        table = DeltaTable(path, version=int(version) if version else None)
        if table.metadata().partition_columns:
            raise unreadable(
                f"delta:{path}", "partitioned tables keep columns outside of their files"
            )
        return [Path(uri.removeprefix("file://")) for uri in sorted(table.file_uris())]
    except (DeltaError, OSError, ValueError) as error:
        raise unreadable(f"delta:{path}", error) from None

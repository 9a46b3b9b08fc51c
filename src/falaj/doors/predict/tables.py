"""Tables of features below `ROOT/features`: read beside what runs, taken up when their file changes."""

from __future__ import annotations

import sys
from pathlib import Path

from falaj.serving.features import BadTable, Table, read_table

__all__ = ["Tables"]


class Tables:
    """The newest good table of each file. A bad file leaves the one before, and is told once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[str, Table] = {}
        self.marks: dict[str, tuple[int, int, int] | None] = {}
        self.problem = ""

    def get(self, name: str) -> Table | None:
        return self.known.get(name)

    def look(self, names: set[str]) -> None:
        """Read what is new or changed; in a thread, because a table may be large."""
        self.problem = ""
        for name in names:
            path = self.folder / name
            try:
                told = path.stat()
                mark = (told.st_mtime_ns, told.st_size, told.st_ino)
                if self.marks.get(name) == mark:
                    continue
                self.marks[name] = mark
                self.known[name] = read_table(path.read_bytes())
            except (OSError, BadTable) as error:
                words = error.strerror if isinstance(error, OSError) else str(error)
                self.problem = f"features {name}: {words}"
                if self.marks.get(name, ()) is not None:
                    print(f"falaj: {self.problem}", file=sys.stderr, flush=True)
                if isinstance(error, OSError):
                    self.marks[name] = None

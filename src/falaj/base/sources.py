"""The files of a project that scanners look at: below its code folders, without what was built."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

__all__ = ["BUILT", "CODE", "TEXT", "below", "listed"]

CODE: Final = (".py",)
TEXT: Final = (
    *(".py", ".toml", ".yaml", ".yml", ".json", ".ini", ".cfg", ".conf", ".env", ".sh", ".sql"),
    *(".md", ".txt", ".ipynb", ".properties", ".xml", ".tf"),
)
BUILT: Final = frozenset(("__pycache__", "build", "dist", "node_modules"))
LOCKS: Final = ("uv.lock", "poetry.lock", "environment.lock", "requirements.lock")
LARGEST: Final = 1 << 20


def listed(root: Path, folders: Sequence[str], kinds: Sequence[str]) -> tuple[str, ...]:
    """Relative paths in their order.

    Left out: hidden folders, environments, locks (a hash looks like a secret), files above 1 MiB,
    links.
    """
    found: set[str] = set()
    for file in below(root, folders):
        name = file.name
        wanted = file.suffix in kinds or (".env" in kinds and name.startswith(".env"))
        if not wanted or name in LOCKS or name.startswith("requirements"):
            continue
        if file.is_file() and not file.is_symlink() and file.stat().st_size <= LARGEST:
            found.add(file.relative_to(root).as_posix())
    return tuple(sorted(found))


def below(root: Path, folders: Sequence[str], but: frozenset[str] = BUILT) -> Iterator[Path]:
    """Everything in the folders that is no folder.

    Left out: hidden folders, environments, folders of the names in `but`.
    """
    for folder in folders:
        for here, inner, names in os.walk(root / folder):
            place = Path(here)
            inner[:] = [
                name
                for name in inner
                if not name.startswith(".")
                and name not in but
                and not (place / name / "pyvenv.cfg").exists()
            ]
            yield from (place / name for name in names)

"""Rows of another engine, kept as one Parquet file: what steps and checks read in its place.

A folder holds one subfolder a source. `current.json` in it is replaced whole, and the file before it
stays for readers that have begun; older ones go.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from falaj.base import digests
from falaj.base.files import write_atomic

__all__ = ["Snapshot", "keep", "kept"]

CURRENT: Final = "current.json"


class Snapshot(NamedTuple):
    """file: the rows. engine: whose they are (`engine`, `version` or `snapshot`, `table`).

    weak: the engine does not type its columns, so the contract does.
    """

    file: Path
    engine: dict[str, str]
    weak: bool = False


def kept(folder: Path, source: str) -> Snapshot | None:
    """The newest snapshot of a source; None when there is none."""
    home = folder / _key(source)
    try:
        said = json.loads((home / CURRENT).read_text())
        found = Snapshot(home / said["file"], said["engine"], said["weak"])
    except (OSError, ValueError, KeyError):
        return None
    return found if found.file.is_file() else None


def keep(
    folder: Path,
    source: str,
    write: Callable[[Path], dict[str, str]],
    *,
    weak: bool = False,
) -> Snapshot:
    """Let `write` make the file and say its engine's ids; then make it the current one."""
    home = folder / _key(source)
    home.mkdir(parents=True, exist_ok=True)
    part = home / f".{os.getpid()}.{os.urandom(4).hex()}.part"
    try:
        engine = write(part)
        name = f"rows-{digests.of_file(part).removeprefix('sha256:')[:32]}.parquet"
        part.replace(home / name)
    finally:
        part.unlink(missing_ok=True)
    before = kept(folder, source)
    said = {"file": name, "engine": engine, "weak": weak}
    write_atomic(home / CURRENT, json.dumps(said).encode())
    in_use = {name, before.file.name if before else ""}
    for old in home.glob("rows-*.parquet"):
        if old.name not in in_use:
            old.unlink(missing_ok=True)
    return Snapshot(home / name, engine, weak)


def _key(source: str) -> str:
    return digests.of_bytes(source.encode()).removeprefix("sha256:")[:32]

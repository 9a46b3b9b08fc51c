"""Writes that a crash cannot tear: a neighbour, fsync, rename."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

__all__ = ["replacing", "sync_folder", "walk", "write_atomic"]

NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def write_atomic(path: Path | str, data: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` by `data` whole or not at all, also when the machine loses power."""
    with replacing(path, mode=mode) as file:
        file.write(data)


@contextmanager
def replacing(path: Path | str, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Yield a file that takes the name `path` when all went well; otherwise nothing is left.

    Plain text and few calls: steps store many small things.
    """
    folder, name = os.path.split(path)
    part = os.path.join(folder, f".{name}.{os.getpid()}.{os.urandom(4).hex()}.part")  # noqa: PTH118 as above
    try:
        handle = os.open(part, NEW, mode)
    except FileNotFoundError:
        Path(folder).mkdir(parents=True, exist_ok=True)
        handle = os.open(part, NEW, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(handle)
        os.replace(part, path)  # noqa: PTH105 as above
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    sync_folder(folder or ".")


def sync_folder(folder: Path | str) -> None:
    """Make renames inside `folder` survive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def walk(folder: Path) -> dict[str, Path]:
    """All regular files below `folder` by relative POSIX path. Links are listed too, not followed."""
    found: dict[str, Path] = {}
    for base, folders, names in os.walk(folder, followlinks=False):
        linked = [name for name in folders if (Path(base) / name).is_symlink()]
        for name in [*names, *linked]:
            path = Path(base) / name
            found[path.relative_to(folder).as_posix()] = path
    return dict(sorted(found.items()))

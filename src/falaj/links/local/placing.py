"""Release folders on this machine: placed whole, looked after, taken away."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path, PurePosixPath
from typing import Final

from falaj.base import files
from falaj.base.errors import FalajError
from falaj.facts.serving import ArmPlan

__all__ = ["place", "remove", "write"]

SEEN: Final = ".seen"  # what witnesses say of a release lies beside its folder, by this name


def place(here: Path, arm: ArmPlan, folders: dict[str, str]) -> None:
    """Copy a release folder once, to a neighbour, then rename. Its server verifies it anyway."""
    path = PurePosixPath(arm.folder)
    if len(path.parts) != 2 or path.parts[0] != "releases" or path.parts[1] in (".", ".."):
        raise FalajError(
            "target.folder",
            f"folder: got {arm.folder[:80]!r}, expected releases/<name>",
            why="a plan cannot reach outside its environment",
            fix="plan the release again",
        )
    to = here / arm.folder
    word = Path(folders.get(arm.release, "") + SEEN), to.with_name(to.name + SEEN)
    if to.exists() and as_left(to):
        bring_word(*word)
        return
    if arm.release not in folders:
        raise FalajError(
            "target.release-missing",
            f"release {arm.release[:19]} is planned, but nobody said where it lies",
            fix="give its folder",
        )
    to.parent.mkdir(exist_ok=True)
    for left in to.parent.glob(f".{to.name}.*.part"):
        shutil.rmtree(left, ignore_errors=True)  # of a killed apply; ours is the only one now
    part = to.with_name(f".{to.name}.{os.getpid()}.part")
    try:
        shutil.copytree(folders[arm.release], part, symlinks=True)
        for path_ in files.walk(part).values():
            sync(path_)
        looked = looks(part)
        if to.exists():  # changed by hand since: what is verified again is what was signed
            remove(to)
        bring_word(*word)
        part.replace(to)
        files.sync_folder(to.parent)
        write(note(to), looked)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise FalajError(
            "target.copy",
            f"release {arm.release[:19]} cannot be copied: {error.strerror or error}",
            why=f"from {folders[arm.release]} to {to}",
            fix="look at the disk and the folder's permissions, then apply again",
        ) from None


def bring_word(told: Path, to: Path) -> None:
    """What witnesses say of the time of signing lies beside a release; its server judges it."""
    with contextlib.suppress(FileNotFoundError):
        data = told.read_bytes()
        to.parent.mkdir(exist_ok=True)
        if not to.exists() or to.read_bytes() != data:
            files.write_atomic(to, data)


def note(to: Path) -> Path:
    return to.with_name(f".{to.name}.left")


def looks(folder: Path) -> str:
    """Size and time of every file: what a change by hand does not leave alone."""
    found = {
        name: [path.lstat().st_size, path.lstat().st_mtime_ns]
        for name, path in files.walk(folder).items()
    }
    return json.dumps(found, sort_keys=True)


def as_left(to: Path) -> bool:
    """Whether the folder is as it was placed. One of an older falaj has no note and is left alone."""
    try:
        left = note(to).read_text("utf-8")
    except OSError:
        return True
    try:
        return looks(to) == left
    except OSError:
        return False


def remove(folder: Path) -> None:
    """Away under another name first, so that nobody reads half of it."""
    gone = folder.with_name(f".{folder.name}.{os.getpid()}.gone")
    with contextlib.suppress(OSError):
        folder.replace(gone)
    shutil.rmtree(gone, ignore_errors=True)
    note(folder).unlink(missing_ok=True)
    folder.with_name(folder.name + SEEN).unlink(missing_ok=True)


def sync(path: Path) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write(path: Path, text: str) -> None:
    try:
        if path.read_text("utf-8") == text:
            return
    except (OSError, UnicodeDecodeError):
        pass
    files.write_atomic(path, text.encode())

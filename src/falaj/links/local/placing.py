"""Release folders on this machine: placed whole, looked after, taken away."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from pathlib import Path, PurePosixPath
from typing import Final

from falaj.base import files
from falaj.base.errors import FalajError
from falaj.facts.serving import ArmPlan

__all__ = ["changed", "place", "remove", "write"]

MOST_NAMES: Final = 20
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
            set_aside(to)
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


def set_aside(to: Path) -> None:
    """Keep what somebody changed, for whoever looks into it, and a word of which files differ."""
    left, now = json.loads(note(to).read_text("utf-8")), json.loads(looks(to))
    names = sorted(name for name in {*left, *now} if left.get(name) != now.get(name))
    at = time.time_ns()
    to.replace(to.with_name(f".{to.name}.{at}.aside"))
    files.write_atomic(marker(to), json.dumps({"files": names, "at": at}).encode())


def marker(to: Path) -> Path:
    return to.with_name(f".{to.name}.changed")


def changed(here: Path) -> dict[str, str]:
    """Release folders that were changed by hand and put back: name and time -> files that differed."""
    found = {}
    for path in sorted((here / "releases").glob(".*.changed")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            told = json.loads(path.read_bytes())
            name = path.name[1:].removesuffix(".changed")
            found[f"{name}@{int(told['at'])}"] = ", ".join(map(str, told["files"][:MOST_NAMES]))
    return found


def remove(folder: Path) -> None:
    """Away under another name first, so that nobody reads half of it."""
    gone = folder.with_name(f".{folder.name}.{os.getpid()}.gone")
    with contextlib.suppress(OSError):
        folder.replace(gone)
    shutil.rmtree(gone, ignore_errors=True)
    note(folder).unlink(missing_ok=True)
    marker(folder).unlink(missing_ok=True)
    for aside in folder.parent.glob(f".{folder.name}.*.aside"):
        shutil.rmtree(aside, ignore_errors=True)
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

"""Names of files that mean the same on every machine: relative, plain, one spelling.

A release folder or an evidence pack is read on machines that we do not know. A name that one of
them reads as another file, or as a file outside, is refused everywhere.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Final

__all__ = ["collisions", "trouble"]

MAX_BYTES: Final = 512
MAX_DEPTH: Final = 16
# Names that Windows keeps for devices, with any ending.
DEVICES: Final = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(1, 10)),
}


def trouble(name: str) -> str:
    """Why `name` is not a plain relative path; empty when it is one."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if not name:
        return "is empty"
    if size > MAX_BYTES:
        return f"is longer than {MAX_BYTES} bytes"
    if any(unicodedata.category(sign) in {"Cc", "Cf", "Zl", "Zp"} for sign in name):
        return "holds a control or invisible character"
    if "\\" in name or ":" in name:
        return "holds a backslash or a colon"
    if unicodedata.normalize("NFC", name) != name:
        return "is not in Unicode form NFC"
    parts = name.split("/")
    if len(parts) > MAX_DEPTH:
        return f"is deeper than {MAX_DEPTH} folders"
    for part in parts:
        if part in {"", ".", ".."}:
            return "is not a plain relative path"
        if part.endswith((" ", ".")) or part.startswith(" "):
            return "begins or ends with a space or ends with a dot"
        if part.split(".", 1)[0].lower() in DEVICES:
            return "is the name of a device"
    return ""


def collisions(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs that a file system without case takes for one file, or a file that is also a folder."""
    seen: dict[str, str] = {}
    found: list[tuple[str, str]] = []
    ordered = sorted(names)
    for name in ordered:
        key = _fold(name)
        if key in seen:
            found.append((name, seen[key]))
        else:
            seen[key] = name
    for name in ordered:
        parts = name.split("/")
        for depth in range(1, len(parts)):
            above = _fold("/".join(parts[:depth]))
            if above in seen:
                found.append((name, seen[above]))
    folders: dict[str, str] = {}
    for name in ordered:
        parts = name.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            known = folders.setdefault(_fold(folder), folder)
            if known != folder:
                found.append((name, known))
    return found


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())

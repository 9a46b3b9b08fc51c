"""Identity of bytes and folders: SHA-256, written `sha256:<64 hex>`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

__all__ = ["DIGEST", "is_digest", "of_bytes", "of_file", "of_tree", "short"]

DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


def of_bytes(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def of_file(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def of_tree(files: Mapping[str, str]) -> str:
    """Digest of a folder: over `path NUL digest LF` in code point order of the relative paths."""
    text = "".join(f"{path}\0{files[path]}\n" for path in sorted(files))
    return of_bytes(text.encode())


def is_digest(text: str) -> bool:
    return DIGEST.fullmatch(text) is not None


def short(digest: str) -> str:
    """Twelve hex digits for people; never an identity."""
    return digest.removeprefix("sha256:")[:12]

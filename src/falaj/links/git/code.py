"""Which code is this? Asked of git, if the folder is in a repository."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from falaj.facts.runs import Code
from falaj.ports.blobs import Blobs

__all__ = ["read_code"]

LARGEST_DIFF = 1 << 20


def read_code(root: Path, blobs: Blobs) -> Code:
    """Commit, branch and, when dirty, the diff as a blob. Empty outside a repository."""
    commit = git(root, "rev-parse", "HEAD")
    if not commit:
        return Code()
    changed = git(root, "status", "--porcelain", "--", ".")
    diff = git(root, "diff", "HEAD", "--binary", "--", ".") if changed else ""
    return Code(
        commit=commit,
        branch=git(root, "rev-parse", "--abbrev-ref", "HEAD"),
        dirty=bool(changed),
        diff=blobs.put(diff.encode()) if diff and len(diff) <= LARGEST_DIFF else "",
    )


def git(root: Path, *words: str) -> str:
    program = shutil.which("git")
    if program is None:
        return ""
    done = subprocess.run(
        [program, "-C", str(root), *words],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=30,
        check=False,
    )
    # strip: porcelain lines keep their order; a final newline is not content
    return done.stdout.strip().encode(errors="replace").decode() if done.returncode == 0 else ""

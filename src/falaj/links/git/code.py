"""Which code is this? Asked of git, if the folder is in a repository."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from falaj.base import digests
from falaj.base.sources import BUILT, below
from falaj.facts.runs import Code
from falaj.ports.blobs import Blobs

__all__ = ["changed_files", "code_tree", "read_code"]

LARGEST_DIFF = 1 << 20
HERE: Final = (".",)
KINDS: Final = (".py", ".pyi", ".sql")
TESTS: Final = frozenset(("test", "tests"))


def read_code(root: Path, blobs: Blobs, folders: Sequence[str] = HERE) -> Code:
    """Commit, branch and, when dirty, the diff as a blob; outside a repository the files alone.

    folders: below `root`, where the project's code lies.
    """
    tree = code_tree(root, folders)
    commit = git(root, "rev-parse", "HEAD")
    if not commit:
        return Code(tree=tree)
    changed = git(root, "status", "--porcelain", "--", ".")
    diff = git(root, "diff", "HEAD", "--binary", "--", ".") if changed else ""
    return Code(
        commit=commit,
        branch=git(root, "rev-parse", "--abbrev-ref", "HEAD"),
        dirty=bool(changed),
        diff=blobs.put(diff.encode()) if diff and len(diff) <= LARGEST_DIFF else "",
        tree=tree,
    )


def code_tree(root: Path, folders: Sequence[str] = HERE) -> str:
    """Digest of all code files below the folders, by bytes; nothing where there are none.

    Tests are left out: whoever writes a test after training has not changed what was trained. So
    are hidden folders, environments and what was built.
    """
    found: dict[str, str] = {}
    for file in below(root, folders, BUILT | TESTS):
        is_test = file.name == "conftest.py" or file.name.startswith("test_")
        if file.suffix in KINDS and not is_test and file.is_file():
            found[file.relative_to(root).as_posix()] = digests.of_file(file)
    return digests.of_tree(found) if found else ""


def changed_files(root: Path, one: str, other: str) -> tuple[tuple[str, str], ...] | None:
    """(letter of git, path) of what differs between two commits below `root`: A, D, M, T.

    None where the repository does not hold both.
    """
    if not all(re.fullmatch(r"[0-9a-f]{40,64}", commit) for commit in (one, other)):
        return None
    if not all(git(root, "cat-file", "-t", commit) == "commit" for commit in (one, other)):
        return None
    words = ("diff", "--name-status", "--no-renames", "--relative", "-z", one, other, "--", ".")
    parts = git(root, *words).split("\0")
    return tuple(
        (letter[:1], path) for letter, path in zip(parts[::2], parts[1::2], strict=False) if path
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

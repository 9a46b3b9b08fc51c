"""Which packages run here: the project's lock, or what is installed."""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from importlib.metadata import distributions
from pathlib import Path

from falaj.base import digests
from falaj.base.locks import NAMES
from falaj.facts.runs import Environment

__all__ = ["read_environment"]


def read_environment(root: Path) -> tuple[Environment, bytes]:
    """The facts for cache keys and records, and the text that goes into a release.

    Without a lock file the installed distributions stand in, and `locked` says so.
    """
    for name in NAMES:
        if (root / name).is_file():
            text, locked = (root / name).read_bytes(), True
            break
    else:
        text, locked = installed(), False
    return (
        Environment(
            lock=digests.of_bytes(text),
            locked=locked,
            python=".".join(platform.python_version_tuple()[:2]),
            platform=f"{platform.system()}-{platform.machine()}".lower(),
        ),
        text,
    )


def installed() -> bytes:
    """What packages carry inside themselves, and some put on the path when loaded, is left out."""
    home = os.path.realpath(sysconfig.get_path("purelib")) + os.sep
    path = [entry for entry in sys.path if not os.path.realpath(entry).startswith(home)]
    # Its name and version would each read and parse the whole file.
    described = [found.metadata for found in distributions(path=path)]
    found = {(d["Name"] or "").lower().replace("_", "-"): d["Version"] for d in described}
    return "".join(f"{name}=={found[name]}\n" for name in sorted(found) if name).encode()

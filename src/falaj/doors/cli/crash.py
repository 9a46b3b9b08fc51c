"""A redacted report of our own failures: places in the code, never values."""

from __future__ import annotations

import platform
import sys
import tempfile
import traceback
from pathlib import Path

from falaj.base import time

__all__ = ["report"]


def report(error: BaseException) -> Path:
    """Write types and lines of code of the whole chain; messages may hold data and stay out."""
    lines = [f"falaj crash report, {time.text(time.now())}", f"python {platform.python_version()}"]
    lines.append(f"verb: {' '.join(arg for arg in sys.argv[1:2] if not arg.startswith('-'))}")
    seen: BaseException | None = error
    while seen is not None:
        lines.append(f"{type(seen).__module__}.{type(seen).__name__}")
        lines += [
            f"  {Path(frame.filename).name}:{frame.lineno} in {frame.name}"
            for frame in traceback.extract_tb(seen.__traceback__)
        ]
        seen = seen.__cause__ or seen.__context__
    with tempfile.NamedTemporaryFile(
        "w", prefix="falaj-crash-", suffix=".txt", delete=False
    ) as file:
        file.write("\n".join(lines) + "\n")
    return Path(file.name)

"""Make falaj-verify.pyz: the verifier and what it imports, as one file that Python runs.

The files are those of this source, byte for byte; nothing else comes in. The same source gives the
same file.
"""

from __future__ import annotations

import ast
import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["archive", "main", "needed"]

START: Final = "falaj.doors.verifier.main"
ALLOWED: Final = frozenset({"cryptography"})
# Asked for by facts alone, which are not in here.
NEVER_ASKED: Final = frozenset({("falaj.base.time", "msgspec")})
SOURCE: Final = Path(__file__).parents[3]
RUN: Final = f"from {START} import main\n\nraise SystemExit(main())\n"
FIRST_LINE: Final = b"#!/usr/bin/env python3\n"
NO_DATE: Final = (1980, 1, 1, 0, 0, 0)


def needed(start: str = START) -> dict[str, Path]:
    """Every module below falaj that `start` imports, anywhere in its code -> its file.

    Raises ImportError, naming the line, for a package that is neither Python's own nor allowed.
    """
    found: dict[str, Path] = {}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = path = file_of(name)
        for line, other in imports(path):
            top = other.partition(".")[0]
            if top == "falaj":
                waiting.append(other)
            elif not (
                top in sys.stdlib_module_names or top in ALLOWED or (name, top) in NEVER_ASKED
            ):
                raise ImportError(f"{path.name}:{line} imports {other}")
    for name in list(found):
        parts = name.split(".")
        for end in range(1, len(parts)):
            package = ".".join(parts[:end])
            found[package] = SOURCE.joinpath(*parts[:end], "__init__.py")
    return dict(sorted(found.items()))


def file_of(name: str) -> Path:
    path = SOURCE.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of everything that is imported when the code runs."""
    tree = ast.parse(path.read_bytes())
    idle = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for part in node.body
        for inner in ast.walk(part)
    }
    for node in ast.walk(tree):
        if id(node) in idle:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                is_module = node.module.startswith("falaj") and file_of(below).is_file()
                yield node.lineno, below if is_module else node.module


def archive() -> bytes:
    """The bytes of falaj-verify.pyz."""
    sink = io.BytesIO()
    sink.write(FIRST_LINE)
    with zipfile.ZipFile(sink, "a", zipfile.ZIP_DEFLATED) as packed:
        members = {"__main__.py": RUN.encode()} | {
            path.relative_to(SOURCE).as_posix(): path.read_bytes() for path in needed().values()
        }
        for name in sorted(members):
            info = zipfile.ZipInfo(name, NO_DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o100644 << 16
            packed.writestr(info, members[name])
    return sink.getvalue()


def main() -> None:
    """Write it where the first word says."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "falaj-verify.pyz")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(archive())
    path.chmod(0o755)
    print(f"{path}  {path.stat().st_size:,} bytes, {len(needed())} modules")


if __name__ == "__main__":
    main()

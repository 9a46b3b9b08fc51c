"""Project templates, shipped inside the package (in a checkout: examples/)."""

from __future__ import annotations

from pathlib import Path

from falaj.base.errors import Conflict, FalajError
from falaj.base.files import write_atomic

__all__ = ["source", "unpack"]

LEFT_OUT = {".falaj", "__pycache__"}


def source(name: str) -> Path:
    """The template's folder. Raises FalajError when this installation has none."""
    import falaj

    package = Path(falaj.__file__).parent
    for folder in (package / "templates" / name, package.parent.parent / "examples" / name):
        if (folder / "falaj.toml").is_file():
            return folder
    raise FalajError("cli.no-template", f"the template {name!r} is not part of this installation")


def unpack(name: str, into: Path) -> list[Path]:
    """Copy the template. Refuses a folder that holds anything."""
    if into.exists() and any(into.iterdir()):
        raise Conflict(
            "cli.folder-not-empty",
            f"{into} is not empty",
            why="nothing of yours is ever overwritten",
            fix="name a new folder",
        )
    origin = source(name)
    made = []
    for path in sorted(origin.rglob("*")):
        relative = path.relative_to(origin)
        if path.is_file() and not LEFT_OUT & set(relative.parts):
            write_atomic(into / relative, path.read_bytes())
            made.append(into / relative)
    return made

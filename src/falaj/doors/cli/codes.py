"""All error codes with their explanation, read from the packaged errors.md."""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple

from falaj.base.errors import FalajError

__all__ = ["Explanation", "explain", "explanations"]


class Explanation(NamedTuple):
    """code: `room.reason`. why and fix: what stands behind it and what to do."""

    code: str
    what: str
    why: str
    fix: str

    def __str__(self) -> str:
        return f"{self.code}\n\n{self.what}\n\nWhy: {self.why}\n\nFix: {self.fix}"


def explanations() -> dict[str, Explanation]:
    """Every code in the order of the file."""
    text = files("falaj.doors.cli").joinpath("errors.md").read_text(encoding="utf-8")
    return {found.code: found for found in map(_read, text.split("\n### ")[1:])}


def explain(code: str) -> Explanation:
    """Raises FalajError (cli.unknown-code) with the nearest code."""
    known = explanations()
    if code in known:
        return known[code]
    import difflib

    near = difflib.get_close_matches(code, list(known), 1) or ["config.unknown-key"]
    raise FalajError(
        "cli.unknown-code",
        f"there is no error code {code!r}",
        why="a code is written room.reason, as in error[room.reason]",
        fix=f"did you mean `{near[0]}`? `falaj explain` without a code lists all",
    )


def _read(section: str) -> Explanation:
    code, _, body = section.partition("\n")
    words = {"what": "", "why": "", "fix": ""}
    part = "what"
    for line in body.partition("\n## ")[0].splitlines():
        said = line
        if line.startswith(("Why: ", "Fix: ")):
            part, said = line[:3].lower(), line[5:]
        words[part] = f"{words[part]} {said.strip()}".strip()
    return Explanation(code.strip(), **words)

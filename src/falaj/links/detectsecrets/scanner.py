"""ports/scanners.py by detect-secrets: passwords, tokens and keys in files. It asks no server."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from falaj.base.childtool import ask, failed
from falaj.base.sources import TEXT
from falaj.facts.scans import CodeFinding
from falaj.ports.scanners import Scanned

__all__ = ["DetectSecrets"]

AT_ONCE: Final = 500
PRAGMA: Final = re.compile(rb"pragma: ?(?:allowlist|whitelist)[ -](?:nextline )?secret")


class DetectSecrets:
    """python: where it is installed."""

    name = "detect-secrets"
    kinds = TEXT

    def __init__(self, python: str = sys.executable) -> None:
        self._python = python

    def scan(self, root: Path, files: Sequence[str]) -> Scanned:
        said = ask(self._python, "detect_secrets", ["--version"], root=root, name=self.name)
        version = said.out.decode(errors="replace").strip()
        findings: list[CodeFinding] = []
        for begin in range(0, len(files), AT_ONCE):
            answer = self._answer(root, files[begin : begin + AT_ONCE])
            for name, found in answer["results"].items():
                findings += [_finding(str(name), one) for one in found]
        return Scanned(
            version=version,
            findings=tuple(sorted(findings, key=lambda f: (f.file, f.line, f.rule))),
            # It leaves out in silence what is no UTF-8.
            unread=tuple(f"{name}: it is no UTF-8" for name in files if not is_text(root / name)),
            silenced=sum(len(PRAGMA.findall((root / name).read_bytes())) for name in files),
        )

    def _answer(self, root: Path, files: Sequence[str]) -> dict[str, Any]:
        names = [f"./{name}" for name in files]
        words = ["scan", "--no-verify", "--all-files", *names]
        said = ask(self._python, "detect_secrets", words, root=root, name=self.name)
        try:
            answer = msgspec.json.decode(said.out)
        except msgspec.DecodeError:
            answer = None
        if said.code != 0 or not isinstance(answer, dict):
            raise failed(self.name, f"it ended with {said.code}: {said.err.strip()}")
        if not {"results", "version"} <= answer.keys():
            raise failed(self.name, "its answer has another form")
        return cast("dict[str, Any]", answer)


def is_text(path: Path) -> bool:
    try:
        path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError):
        return False
    return True


def _finding(name: str, one: dict[str, Any]) -> CodeFinding:
    """Where it lies and of which kind; never what it is, and not its hash, which can be guessed."""
    kind = str(one["type"])
    return CodeFinding(
        tool="detect-secrets",
        rule="secret." + re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-"),
        file=name.removeprefix("./"),
        line=int(one["line_number"]),
        severity="high",
        message=f"this looks like a secret: {kind}",
    )

"""ports/scanners.py by bandit: dangerous calls in Python code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from posixpath import normpath
from typing import Any, Final, cast

import msgspec

from falaj.base.childtool import ask, failed
from falaj.facts.scans import CodeFinding, Severity
from falaj.ports.scanners import Scanned

__all__ = ["Bandit"]

AT_ONCE: Final = 500  # files on one command line
FOUND: Final = (0, 1)  # exit codes of a scan that went to its end
SEVERITIES: Final = {"HIGH": "high", "MEDIUM": "medium", "LOW": "low"}


class Bandit:
    """python: where it is installed."""

    name = "bandit"
    kinds = (".py",)

    def __init__(self, python: str = sys.executable) -> None:
        self._python = python

    def scan(self, root: Path, files: Sequence[str]) -> Scanned:
        said = ask(self._python, "bandit", ["--version"], root=root, name=self.name)
        version = said.out.decode(errors="replace").partition("\n")[0].split()[-1:]
        findings: list[CodeFinding] = []
        unread: list[str] = []
        silenced = 0
        for begin in range(0, len(files), AT_ONCE):
            answer = self._answer(root, files[begin : begin + AT_ONCE])
            findings += [_finding(one) for one in answer["results"]]
            unread += [f"{_path(e['filename'])}: {e['reason']}" for e in answer["errors"]]
            totals = answer["metrics"].get("_totals", {})
            silenced += int(totals.get("nosec", 0)) + int(totals.get("skipped_tests", 0))
        return Scanned(
            version=version[0] if version else "",
            findings=tuple(sorted(findings, key=lambda f: (f.file, f.line, f.rule))),
            unread=tuple(unread),
            silenced=silenced,
        )

    def _answer(self, root: Path, files: Sequence[str]) -> dict[str, Any]:
        # A name that begins with a dash is a file all the same.
        names = [f"./{name}" for name in files]
        said = ask(self._python, "bandit", ["-f", "json", "-q", *names], root=root, name=self.name)
        try:
            answer = msgspec.json.decode(said.out)
        except msgspec.DecodeError:
            answer = None
        if said.code not in FOUND or not isinstance(answer, dict):
            raise failed(self.name, f"it ended with {said.code}: {said.err.strip()}")
        if not {"results", "errors", "metrics"} <= answer.keys():
            raise failed(self.name, "its answer has another form")
        return cast("dict[str, Any]", answer)


def _finding(one: dict[str, Any]) -> CodeFinding:
    severity = SEVERITIES.get(str(one["issue_severity"]), "unrated")
    return CodeFinding(
        tool="bandit",
        rule=str(one["test_id"]),
        file=_path(one["filename"]),
        line=int(one["line_number"]),
        severity=cast("Severity", severity),
        message=" ".join(str(one["issue_text"]).split())[:300],
        confidence=str(one["issue_confidence"]).lower(),
    )


def _path(name: object) -> str:
    return normpath(str(name))

"""A scan as SARIF 2.1.0 (OASIS), for code hosts and editors. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final
from urllib.parse import quote

from falaj.base import digests
from falaj.facts.checks import Verdict
from falaj.facts.scans import Scan, Severity, Vulnerability

__all__ = ["sarif"]

LEVELS: Final[dict[Severity, str]] = {
    "critical": "error",
    "high": "error",
    "medium": "warning",
    "low": "note",
    "unrated": "warning",
}
SCORES: Final[dict[Severity, str]] = {
    "critical": "9.5",
    "high": "8.0",
    "medium": "5.0",
    "low": "2.0",
    "unrated": "0.0",
}


def sarif(scan: Scan, version: str) -> dict[str, Any]:
    """One run a tool. version: Falaj's own."""
    lock = scan.lock_file or "environment.lock"
    own = [_vulnerability(one, lock) for one in scan.vulnerabilities]
    own += [
        _entry("licence", "error" if r.verdict is Verdict.FAIL else "warning", r.reason, lock, 1)
        for r in scan.results
        if r.check.startswith("dependencies.licence.")
    ]
    own += [
        _entry("not-pinned", "warning", f"its version is not known: {line}", lock, 1)
        for line in scan.unread
    ]
    about = {"lock": scan.lock, "database": scan.database, "packages": scan.packages}
    runs = [_run("falaj", version, own, _rules_of(scan.vulnerabilities), about)]
    for tool, its in sorted(scan.tools.items()):
        found = [
            _entry(f.rule, LEVELS[f.severity], f.message, f.file, f.line)
            for f in scan.findings
            if f.tool == tool
        ]
        rules = {
            f.rule: {"id": f.rule, "properties": {"security-severity": SCORES[f.severity]}}
            for f in scan.findings
            if f.tool == tool
        }
        runs.append(_run(tool, its, found, rules, {"tree": scan.tree}))
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": runs,
    }


def _rules_of(found: Iterable[Vulnerability]) -> dict[str, dict[str, Any]]:
    return {
        one.id: {
            "id": one.id,
            "shortDescription": {"text": one.summary or one.id},
            "properties": {
                "security-severity": SCORES[one.severity]
                if one.cvss is None
                else f"{one.cvss:.1f}",
                "tags": list(one.ids),
            },
        }
        for one in found
    }


def _vulnerability(one: Vulnerability, lock: str) -> dict[str, Any]:
    cure = f"; fixed in {', '.join(one.fixed)}" if one.fixed else "; no fix is known"
    doubt = f" It cannot be said whether it is affected: {one.why}." if one.why else ""
    text = f"{one.package} {one.version}: {one.summary or one.id}{cure}.{doubt}"
    level = "warning" if one.state == "unknown" else LEVELS[one.severity]
    return _entry(one.id, level, text, lock, one.line, one.package)


def _entry(
    rule: str, level: str, text: str, file: str, line: int, more: str = ""
) -> dict[str, Any]:
    mark = digests.of_bytes(f"{rule}\0{file}\0{more or text}".encode())
    return {
        "ruleId": rule,
        "level": level,
        "message": {"text": text},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": quote(file)},
                    "region": {"startLine": max(line, 1)},
                }
            }
        ],
        "partialFingerprints": {"falaj/v1": mark.removeprefix("sha256:")},
    }


def _run(
    name: str,
    version: str,
    results: Sequence[dict[str, Any]],
    rules: dict[str, dict[str, Any]],
    about: dict[str, Any],
) -> dict[str, Any]:
    known = {**rules}
    for result in results:
        known.setdefault(result["ruleId"], {"id": result["ruleId"]})
    return {
        "tool": {"driver": {"name": name, "version": version, "rules": list(known.values())}},
        "results": list(results),
        "columnKind": "unicodeCodePoints",
        "properties": about,
    }

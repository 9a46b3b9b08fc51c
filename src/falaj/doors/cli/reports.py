"""A gate report in rows and words."""

from __future__ import annotations

from typing import Any

from falaj.doors.cli import terminal
from falaj.facts.checks import shown_word

__all__ = ["marked", "measured", "rows", "verdict_of"]


def verdict_of(report: dict[str, Any]) -> str:
    """The required gates' worst verdict."""
    order = ["fail", "error", "inconclusive", "skipped", "pass"]
    found = dict.fromkeys(report["required"], "inconclusive")
    for gate in found:
        here = [r["verdict"] for r in report["results"] if r["gate"] == gate]
        if here:
            found[gate] = min(here, key=order.index)
    return min(found.values(), key=order.index, default="inconclusive")


def rows(report: dict[str, Any], *, full: bool = False) -> list[tuple[str, str, str, str]]:
    found = []
    waived = {
        w["check"]: f"; waived until {w['expires'][:10]}: {w['reason']}" for w in report["waivers"]
    }
    data = [r for r in report["results"] if r["gate"] == "data"]
    passed = [r for r in data if r["verdict"] == "pass"]
    for r in report["results"]:
        if r["gate"].startswith("data") and r["verdict"] == "pass" and not full:
            continue
        why = r["reason"] + waived.get(r["check"], "")
        found.append((r["check"], marked(r), measured(r), why))
    if passed and not full:
        word = terminal.mark("pass")
        found.insert(0, ("data", word, f"{len(passed)} checks", "the contract is kept"))
    return found


def marked(r: dict[str, Any]) -> str:
    """The verdict with its mark; what does not count is a warning, never a failure."""
    return terminal.mark(shown_word(r["gate"], r["verdict"], r["details"].get("severity", "")))


def measured(r: dict[str, Any]) -> str:
    if r["value"] is None:
        return ""
    unit = f" {r['unit']}" if r["unit"] else ""
    value = f"{r['value']:.4g}{unit}"
    if r["low"] is not None and r["high"] is not None:
        value += f" [{r['low']:.4g}, {r['high']:.4g}]"
    elif r["high"] is not None:
        value += f" (at most {r['high']:.4g})"
    elif r["low"] is not None:
        value += f" (at least {r['low']:.4g})"
    return f"{value}, {r['requirement']}" if r["requirement"] else value

"""Errors for machines: the one RFC 9457 document of API and command line."""

from __future__ import annotations

from typing import Any

from falaj.base.errors import FalajError, Problem

__all__ = ["document"]


def document(error: FalajError) -> dict[str, Any]:
    """`errors` holds every problem; the members beside it are the first one's."""
    first = error.problems[0]
    room, _, reason = first.code.partition(".")
    return {
        "type": f"/problems/{first.code}",
        "title": f"{room}: {reason.replace('-', ' ')}",
        "status": error.status,
        "exit": error.exit,
        **members(first),
        "errors": [members(problem) for problem in error.problems],
    }


def members(problem: Problem) -> dict[str, Any]:
    place = problem.place
    return {
        "detail": problem.message,
        "code": problem.code,
        "why": problem.why,
        "fix": problem.fix,
        "place": place
        and {
            "file": place.file,
            "line": place.line,
            "column": place.column,
            "excerpt": [list(row) for row in place.excerpt],
            "note": place.note,
        },
    }

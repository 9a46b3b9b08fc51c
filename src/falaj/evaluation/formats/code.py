"""Python code of a model. That it is code stands in its first line: nothing is taken for it by chance.

Not read for harm, which nobody can: a runtime that takes it runs it in a sandbox.
"""

from __future__ import annotations

import ast
from typing import Final

from falaj.evaluation.formats.verdict import Format, Refused
from falaj.facts.formats import MARK

__all__ = ["begins", "judge"]

MOST: Final = 1 << 20


def begins(data: bytes) -> bool:
    return data.startswith(MARK)


def judge(data: bytes) -> Format:
    """UTF-8 that Python reads as a program."""
    if len(data) > MOST:
        raise Refused(f"code of more than {MOST >> 20} MiB")
    try:
        text = data.decode("utf-8")
        tree = ast.parse(text)
    except (UnicodeDecodeError, SyntaxError, ValueError, RecursionError, MemoryError):
        raise Refused("it says that it is Python, and is not") from None
    names = sorted(
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)
    )
    return Format("python", {"bytes": len(data), "defines": names[:50]})

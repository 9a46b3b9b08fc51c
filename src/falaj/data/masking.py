"""What of a value may be shown, by the class of its column."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Any

from falaj.facts.data import Classification

__all__ = ["masked", "plain"]


def masked(value: Any, column: str, kind: Classification, key: bytes) -> Any:
    """A value as results, errors, logs and pages may show it.

    public, internal: as it is. confidential: its shape, `Aaaa-999`. personal, sensitive: a token,
    HMAC-SHA256 under the project's key, so that equal values can be compared but not read.
    Without a key the token says nothing.
    """
    if value is None:
        return None
    if kind in {Classification.PUBLIC, Classification.INTERNAL}:
        return plain(value)
    if kind is Classification.CONFIDENTIAL:
        return _shape(str(plain(value)))
    if not key:
        return "tok:hidden"
    text = f"{len(column)}:{column}{value}".encode()
    return "tok:" + hmac.new(key, text, hashlib.sha256).hexdigest()[:8]


def plain(value: Any) -> Any:
    """A value as JSON holds it, a long text cut."""
    if value is None or isinstance(value, bool | int | str):
        return value if not isinstance(value, str) or len(value) <= 200 else value[:197] + "..."
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)  # noqa: PLR0124 NaN
    return str(value)[:200]


def _shape(text: str) -> str:
    text = re.sub(r"[^\W\d_]", lambda found: "A" if found[0].isupper() else "a", text[:40])
    return re.sub(r"\d", "9", text)

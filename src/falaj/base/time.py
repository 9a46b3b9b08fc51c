"""Instants: always with a zone, always UTC inside."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

if TYPE_CHECKING:
    from msgspec import Meta

__all__ = ["Instant", "now", "parse_instant", "parse_span", "text"]

if TYPE_CHECKING:
    Instant = Annotated[datetime, Meta(tz=True)]
else:

    def __getattr__(name: str) -> Any:
        """`Instant`, made when a fact asks for it: an auditor's verifier has no msgspec."""
        if name != "Instant":
            raise AttributeError(name)
        from msgspec import Meta

        globals()[name] = found = Annotated[datetime, Meta(tz=True)]
        return found


SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def now() -> datetime:
    return datetime.now(UTC)


def text(at: datetime) -> str:
    """RFC 3339 in UTC with microseconds and Z."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_instant(words: str) -> datetime:
    """Read an ISO 8601 time; without a zone it is taken as UTC. Raises ValueError."""
    at = datetime.fromisoformat(words)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def parse_span(words: str) -> timedelta:
    """Read `30s`, `5m`, `1d`, `1h30m`, `250ms`. Raises ValueError."""
    parts = SPAN.findall(words)
    if not parts or "".join(number + unit for number, unit in parts) != words:
        raise ValueError(f"got {words!r}, expected a time such as 30s, 5m, 12h or 1d")
    try:
        return timedelta(seconds=sum(float(number) * UNITS_S[unit] for number, unit in parts))
    except OverflowError:
        raise ValueError(f"got {words[:40]!r}, longer than any calendar") from None

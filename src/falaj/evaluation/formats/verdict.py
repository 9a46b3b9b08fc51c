"""What is said of a file, and the limits that all parsers keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

__all__ = ["MOST_BYTES", "MOST_RATIO", "MOST_UNPACKED", "Format", "Quarantine", "Refused"]

MOST_BYTES: Final = 2**31 - 1  # protobuf's own limit
MOST_UNPACKED: Final = 2 << 30
MOST_RATIO: Final = 200  # unpacked to packed, for members above 16 MiB


class Format(NamedTuple):
    """A file whose structure is known through and through. details: facts for people."""

    name: str
    details: Mapping[str, Any]


class Quarantine(NamedTuple):
    """A file that may not come near a model server."""

    reason: str


class Refused(Exception):
    """Why a file is quarantined; it never leaves this package but for the pickle rules."""

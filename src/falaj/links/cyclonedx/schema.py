"""The schema of CycloneDX 1.6, where the extra `scan` has brought the library that holds it."""

from __future__ import annotations

__all__ = ["trouble"]


def trouble(bill: bytes) -> tuple[str, ...]:
    """What the strict schema says against a bill; nothing where it holds or is not installed."""
    try:
        from cyclonedx.exception import MissingOptionalDependencyException
        from cyclonedx.schema import SchemaVersion
        from cyclonedx.validation.json import JsonStrictValidator
    except ImportError:
        return ()
    try:
        found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill.decode())
    except MissingOptionalDependencyException:
        return ()
    return () if found is None else (str(found).splitlines()[0][:300],)

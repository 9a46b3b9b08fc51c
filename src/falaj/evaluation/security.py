"""The check of the gate `security`: the format of every file of a model, by its content."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from falaj.evaluation.formats.decide import decide, decide_bytes
from falaj.evaluation.formats.verdict import Format, Quarantine
from falaj.facts.checks import CheckResult, Verdict
from falaj.facts.formats import FORMATS as ALLOWED

__all__ = [
    "ALLOWED",
    "Format",
    "Quarantine",
    "check_model_file",
    "check_model_files",
    "decide",
    "decide_bytes",
]


def check_model_file(
    path: Path, name: str = "", *, allow: Collection[str] = ALLOWED
) -> CheckResult:
    """One result for one file of a model. A failed check is a verdict, not an exception."""
    name = name or path.name
    requirement = f"a format on the allow-list: {', '.join(sorted(allow))}"
    try:
        found = decide(path)
    except OSError as error:
        return CheckResult(
            check=f"security.format.{name}",
            gate="security",
            verdict=Verdict.ERROR,
            reason=f"{name} cannot be read: {error.strerror}",
            requirement=requirement,
        )
    if isinstance(found, Format) and found.name in allow:
        return CheckResult(
            check=f"security.format.{name}",
            gate="security",
            verdict=Verdict.PASS,
            reason=f"{name} is {found.name}, read through to its last byte",
            requirement=requirement,
            details={"format": found.name, **found.details},
        )
    why = found.reason if isinstance(found, Quarantine) else f"{found.name} is not allowed here"
    return CheckResult(
        check=f"security.format.{name}",
        gate="security",
        verdict=Verdict.FAIL,
        reason=f"{name} is quarantined: {why}",
        requirement=requirement,
    )


def check_model_files(
    files: Mapping[str, Path], *, allow: Collection[str] = ALLOWED
) -> tuple[CheckResult, ...]:
    """One result a file, in the order of the names. No file at all is inconclusive."""
    if not files:
        return (
            CheckResult(
                check="security.format",
                gate="security",
                verdict=Verdict.INCONCLUSIVE,
                reason="the model has no file",
                requirement="at least one model file",
            ),
        )
    return tuple(check_model_file(files[name], name, allow=allow) for name in sorted(files))

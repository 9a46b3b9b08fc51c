"""The one family of errors that a person may see: what, where, why, what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

__all__ = ["Exit", "FalajError", "Place", "Problem"]


class Exit:
    """Exit codes of the command line; a contract with machines."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    GATE_FAIL = 3
    WAITS = 4
    ROLLED_BACK = 5
    NOT_ALLOWED = 6
    UNVERIFIED = 7
    CONFLICT = 8
    INCONCLUSIVE = 9
    INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a mistake stands. line and column count from 1, columns count characters."""

    file: str
    line: int
    column: int = 1
    excerpt: tuple[tuple[int, str], ...] = ()
    note: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One finding for a person. `code` is `room.reason`, the address in the docs."""

    code: str
    message: str
    place: Place | None = None
    why: str = ""
    fix: str = ""


class FalajError(Exception):
    """Something a person can understand and mend. Carries one or more problems.

    Subclasses set `exit` (command line) and `status` (HTTP).
    """

    exit: ClassVar[int] = Exit.USAGE
    status: ClassVar[int] = 400

    def __init__(
        self,
        code: str,
        message: str,
        *,
        why: str = "",
        fix: str = "",
        place: Place | None = None,
        more: tuple[Problem, ...] = (),
    ) -> None:
        first = Problem(code=code, message=message, why=why, fix=fix, place=place)
        self.problems: tuple[Problem, ...] = (first, *more)
        super().__init__(message)

    @property
    def code(self) -> str:
        return self.problems[0].code

    @classmethod
    def of(cls, problems: tuple[Problem, ...]) -> FalajError:
        """Make one error of several findings, in the order given (at least one)."""
        head, *rest = problems
        return cls(
            head.code,
            head.message,
            why=head.why,
            fix=head.fix,
            place=head.place,
            more=tuple(rest),
        )


class NotAllowed(FalajError):
    """The principal may not do this."""

    exit = Exit.NOT_ALLOWED
    status = 403


class NotFound(FalajError):
    """No such thing."""

    status = 404


class Conflict(FalajError):
    """The state moved on, or someone else holds the lease."""

    exit = Exit.CONFLICT
    status = 409


class Unverified(FalajError):
    """Bytes, signature or evidence do not match; nothing was loaded."""

    exit = Exit.UNVERIFIED
    status = 422


class Waits(FalajError):
    """A person has to act first."""

    exit = Exit.WAITS
    status = 409


class GateFailed(FalajError):
    """A required check failed."""

    exit = Exit.GATE_FAIL
    status = 422


class GateInconclusive(FalajError):
    """A required check cannot be decided with the data at hand."""

    exit = Exit.INCONCLUSIVE
    status = 422

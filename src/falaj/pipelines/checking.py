"""`@check`: the project's own gate checks, called with the model and the evaluation rows."""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

import numpy as np
from msgspec.structs import replace

from falaj.base.errors import FalajError
from falaj.facts.checks import CheckResult, Verdict
from falaj.pipelines.loading import project, user_places
from falaj.pipelines.service import code_roots

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

__all__ = ["Check", "check", "run_checks"]

GATE = "checks"
P = ParamSpec("P")
R = TypeVar("R")


class Check(Generic[P, R]):
    """A function of (score, rows). Called by hand it is the function itself."""

    def __init__(
        self,
        function: Callable[P, R],
        at_least: float | None,
        at_most: float | None,
        cache: bool = True,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.at_least, self.at_most = at_least, at_most
        self.cache = cache

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)


@overload
def check(function: Callable[P, R], /) -> Check[P, R]: ...
@overload
def check(
    *, at_least: float | None = ..., at_most: float | None = ..., cache: bool = ...
) -> Callable[[Callable[P, R]], Check[P, R]]: ...
def check(
    function: Callable[..., Any] | None = None,
    /,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    cache: bool = True,
) -> Any:
    """Make a function a gate check, named in falaj.toml: `[gates] checks = ["checks:no_delay"]`.

    It is called with `score`, which answers a frame or matrix of the inputs, and with the held-out
    rows (inputs, `y`, and what stands beside them). It returns one of:

    - True or False, or a pair of it and a reason;
    - a number, held against `at_least` or `at_most`: it is exact, there is no doubt about it;
    - a triple (value, low, high): the bound on the near side decides, and in between is doubt.

    A result is kept, and given again while the model, the rows, the project's code and its packages
    are the same. A check that looks at anything else, such as a file or the time, says `cache=False`.
    """

    def made(function: Callable[..., Any]) -> Check[..., Any]:
        return Check(function, at_least, at_most, cache)

    return made if function is None else made(function)


def run_checks(
    references: Sequence[str],
    root: Path,
    score: Callable[[NDArray[np.float32]], NDArray[np.float64]],
    rows: pl.DataFrame,
    columns: Sequence[str],
) -> list[CheckResult]:
    """One result a reference, whatever the checks do."""
    import polars as pl

    def answer(x: Any) -> NDArray[np.float64]:
        inputs = x.select(columns).to_numpy() if isinstance(x, pl.DataFrame) else np.asarray(x)
        return score(np.ascontiguousarray(inputs, dtype=np.float32))

    with project(code_roots(root)):
        return [one_check(reference, root, answer, rows) for reference in references]


def one_check(reference: str, root: Path, score: Any, rows: pl.DataFrame) -> CheckResult:
    module, _, name = reference.partition(":")
    try:
        found = getattr(importlib.import_module(module), name, None)
        if not isinstance(found, Check):
            what = "is not decorated with @falaj.check" if callable(found) else "does not exist"
            return told(name, Verdict.ERROR, f"{reference}: {name} {what}")
        result = judged(name, found, found.function(score, rows.clone()), len(rows))
        return result if found.cache else replace(result, details={"cache": False})
    except FalajError as error:
        return told(name, Verdict.ERROR, f"{error.code}: {error}")
    except (Exception, SystemExit) as error:
        places = user_places(error, root)
        where = f" ({places[-1].file}:{places[-1].line})" if places else ""
        words = " ".join(str(error).split())[:300]
        return told(name, Verdict.ERROR, f"{type(error).__name__}: {words}{where}")


def judged(name: str, made: Check[..., Any], said: Any, n: int) -> CheckResult:
    reason = ""
    if isinstance(said, tuple) and len(said) == 2 and isinstance(said[1], str):
        said, reason = said
    if isinstance(said, bool | np.bool_):
        verdict = Verdict.PASS if said else Verdict.FAIL
        return told(name, verdict, reason or f"it returned {bool(said)}", n=n)
    numbers = said if isinstance(said, tuple) else (said, said, said)
    if len(numbers) != 3 or not all(is_number(one) for one in numbers):
        return told(
            name,
            Verdict.ERROR,
            f"it returned {type(said).__name__}, expected a truth value, a number, or value, low, high",
        )
    if (made.at_least is None) == (made.at_most is None):
        return told(
            name,
            Verdict.ERROR,
            "a number needs @falaj.check(at_least=...) or at_most=..., one of both",
        )
    value, low, high = (float(one) for one in numbers)
    if not low <= value <= high:
        return told(name, Verdict.ERROR, f"{value:g} does not lie between {low:g} and {high:g}")
    if made.at_least is not None:
        limit, holds, breaks = made.at_least, low >= made.at_least, high < made.at_least
        words = f"at least {limit:g}"
    else:
        limit = made.at_most if made.at_most is not None else math.inf
        holds, breaks = high <= limit, low > limit
        words = f"at most {limit:g}"
    doubt = Verdict.FAIL if breaks else Verdict.INCONCLUSIVE
    return CheckResult(
        check=f"{GATE}.{name}",
        gate=GATE,
        verdict=Verdict.PASS if holds else doubt,
        reason=reason or f"{value:.6g} [{low:.6g}, {high:.6g}], {words} is asked for",
        value=value,
        low=low,
        high=high,
        limit=limit,
        requirement=words,
        n=n,
    )


def is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return math.isfinite(float(value))


def told(name: str, verdict: Verdict, reason: str, n: int = 0) -> CheckResult:
    return CheckResult(check=f"{GATE}.{name}", gate=GATE, verdict=verdict, reason=reason, n=n)
